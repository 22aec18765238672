#!/usr/bin/env bash
# Sourced by deploy/local/bench: a directory of 100,000 clinics, followed by real workers.
# shellcheck disable=SC2154 # what bench sets

# A control database of its own on the bench's server: the schema by its migrations, the rows by one statement each
# (without triggers: there is nobody who follows yet).
directory_database() {
    local bin=$1 tenants=$2 file number=0
    directory_psql() { "$bin/psql" -XqAt -v ON_ERROR_STOP=1 "$(<"$HC_STATE/secrets/control.superuser.conninfo") dbname=$database"; }
    "$bin/psql" -Xq -v ON_ERROR_STOP=1 "$(<"$HC_STATE/secrets/control.superuser.conninfo") dbname=postgres" <<SQL
SET client_min_messages = error;
DROP DATABASE IF EXISTS $database WITH (FORCE);
CREATE DATABASE $database OWNER hc_owner TEMPLATE template0;
SQL
    for file in "$HC_ROOT"/migrations/control/*/up.sql; do
        number=$((number + 1))
        {
            echo "BEGIN; SET LOCAL ROLE hc_owner;"
            cat "$file"
            echo "INSERT INTO hc_schema VALUES ($number, '$number', '$number', hc_schema_fingerprint()); COMMIT;"
        } | directory_psql
    done
    directory_psql <<SQL
SET session_replication_role = replica;
INSERT INTO tier (name, definition) VALUES ('basic', '{"name":"basic","unitsPerSecond":200,"burstUnits":2000}');
INSERT INTO shard (id, dsn_ref, system_id, timeline, database_oid, database_name, capacity)
    SELECT 's' || n, 's' || n, '1', 1, n, 's' || n, 1000000 FROM generate_series(1, 16) AS n;
CREATE TEMPORARY TABLE made AS
    SELECT n, lpad(to_hex(n), 8, '0')::text || '-0000-7000-8000-' || lpad(to_hex(n), 12, '0') AS id
    FROM generate_series(1, $tenants) AS n;
INSERT INTO tenant (id, slug, name, tier, state, time_zone)
    SELECT id::uuid, 'clinic-' || n, 'Clinic number ' || n, 'basic', 'active', 'America/New_York' FROM made;
INSERT INTO placement (tenant_id, shard_id, state) SELECT id::uuid, 's' || n % 16 + 1, 'serving' FROM made;
INSERT INTO domain (host, tenant_id, kind, verified_at)
    SELECT 'clinic-' || n || '.api.example.org', id::uuid, 'platform', now() FROM made;
INSERT INTO tenant_key (tenant_id, purpose, version, master_key_id, wrapping_version, wrapped)
    SELECT id::uuid, purpose, 1, CASE purpose WHEN 'kek' THEN 'a-master-key-of-the-bench' END,
        CASE purpose WHEN 'kek' THEN NULL ELSE 1 END, sha256((id || purpose)::bytea) || sha256((purpose || id)::bytea)
    FROM made, unnest(ARRAY['kek', 'data', 'index']) AS purpose;
UPDATE placement_version SET version = $tenants;
ANALYZE;
SQL
}

# Becomes a program with the configuration as it is: variables of the bench's own server would win over it.
directory_exec() {
    exec env -u HC_STATE -u HC_PORT -u HC_TLS_PORT -u HC_OPS_PORT -u HC_WORKERS "HC_CONFIG=$directory_state/hc.json" "$@"
}
directory_server() {
    directory_exec "$HC_ROOT/.build/${HC_BUILD:-release}/hc-server" \
        </dev/null >>"$directory_state/log" 2>&1 8>&- &
    directory_pid=$!
}
directory_stop() {
    kill "$directory_pid"
    wait "$directory_pid" 2>/dev/null || true
}

# Waits until so many workers have said something, and prints the milliseconds that each took.
directory_said() {
    timeout 300 python3 - "$directory_state/log" "$directory_pid" "$1" "$2" <<'PYTHON'
import json, os, select, sys
path, server, text, count = sys.argv[1], sys.argv[2], sys.argv[3], int(sys.argv[4])
found = []
with open(path) as log:
    while len(found) < count:
        line = log.readline()
        if not line:
            if not os.path.exists("/proc/" + server):
                sys.exit("the server has ended: " + path)
            select.select([], [], [], 0.05)
            continue
        if text in line and line.startswith("{"):
            found.append(json.loads(line))
print(" ".join(str(line["milliseconds"]) for line in found))
PYTHON
}

bench_directory() {
    local tenants=${HC_BENCH_TENANTS:-100000} workers=${HC_BENCH_WORKERS:-4} changes=${HC_BENCH_CHANGES:-1000}
    local database=hc_bench_directory bin file empty full
    directory_state=$scratch/directory
    [[ $tenants =~ ^[1-9][0-9]{0,7}$ ]] || fail "HC_BENCH_TENANTS is '$tenants', it must be a positive number"
    bin=$(dirname "$(postgres_bin)/psql")
    echo
    echo "== a directory of $tenants clinics, $workers workers"
    rm -rf "$directory_state"
    mkdir -p "$directory_state"
    cp -r "$HC_STATE/secrets" "$directory_state/secrets"
    directory_database "$bin" "$tenants"
    for file in "$directory_state"/secrets/control.*.conninfo; do
        printf '%s dbname=%s\n' "$(<"$file")" "$database" >"$file.new"
        chmod 0600 "$file.new"
        mv "$file.new" "$file"
    done
    python3 - "$HC_STATE" "$directory_state" "$workers" "$((HC_PORT + 10))" "$((HC_TLS_PORT + 10))" "$((HC_OPS_PORT + 10))" <<'PYTHON'
import json, os, sys
state, directory, workers, port, tls, ops = sys.argv[1:]
text = open(state + "/hc.json").read().replace(state + "/secrets/redis.password", "@redis").replace(
    state + "/secrets", directory + "/secrets").replace("@redis", state + "/secrets/redis.password")
settings = json.loads(text)
settings["stateDirectory"] = directory
settings["server"].update(workers=int(workers), port=int(port), tlsPort=int(tls), opsPort=int(ops))
with open(os.open(directory + "/hc.json", os.O_WRONLY | os.O_CREAT, 0o600), "w") as file:
    json.dump(settings, file)
PYTHON
    # A worker's first map is that of the bench's own few clinics: what more there is, is the directory's.
    # shellcheck disable=SC2046 # one word per process
    empty=$(memory_of $(pgrep -P "$(<"$HC_STATE/server/pid")" | head -1))

    (directory_exec "$HC_ROOT/.build/${HC_BUILD:-release}/hc-admin" directory measure)
    : >"$directory_state/log"
    directory_server
    echo "start from the database, ms by worker: $(directory_said 'the whole map was read' "$workers")"
    # shellcheck disable=SC2046
    full=$(memory_of $(pgrep -P "$directory_pid" | head -1))
    awk -v empty="$empty" -v full="$full" -v tenants="$tenants" 'BEGIN {
        printf "memory of a worker: %.0f MiB, %.0f bytes a clinic above one with few clinics\n", full / 1024, (full - empty) * 1024 / tenants }'

    # Each change is a transaction of its own, and the next one follows some milliseconds later.
    # shellcheck disable=SC2016 # Python's text
    python3 -c '
import random, sys
for n in range(int(sys.argv[1])):
    k = random.randint(1, int(sys.argv[2]))
    print(f"UPDATE tenant SET name = name || chr(46), version = version + 1 WHERE slug = $$clinic-{k}$$; SELECT pg_sleep(0.01);")
' "$changes" "$tenants" | directory_psql >/dev/null
    curl -sS "http://127.0.0.1:$((HC_OPS_PORT + 10))/metrics" >"$directory_state/metrics"
    python3 - "$directory_state/metrics" "$workers" "$changes" <<'PYTHON'
import re, sys
buckets, workers, changes = {}, int(sys.argv[2]), int(sys.argv[3])
for line in open(sys.argv[1]):
    found = re.match(r'hc_directory_change_seconds_bucket\{.*le="([^"]+)".*\} (\d+)', line)
    if found:
        bound = float("inf") if found[1] == "+Inf" else float(found[1])
        buckets[bound] = buckets.get(bound, 0) + int(found[2])
total = buckets.get(float("inf"), 0)
def quantile(q):
    return next((bound for bound in sorted(buckets) if buckets[bound] >= q * total), float("inf")) * 1000
print(f"a change reaches a worker: {total} arrivals of {changes} changes at {workers} workers;"
      f" p50 at most {quantile(0.5):g} ms, p99 at most {quantile(0.99):g} ms")
# The last of n workers is later than x for at most n times the share of arrivals that are.
print(f"a change has reached every worker: p99 at most {quantile(1 - 0.01 / workers):g} ms (target: under 100)")
PYTHON
    directory_stop

    for file in "$directory_state"/secrets/control.*.conninfo; do echo "host=/nonexistent" >"$file"; done
    : >"$directory_state/log"
    directory_server
    echo "start from disk, without a control database, ms by worker: $(directory_said 'serving from the last good map' "$workers")"
    directory_stop
    "$bin/psql" -Xq "$(<"$HC_STATE/secrets/control.superuser.conninfo") dbname=postgres" -c "DROP DATABASE $database WITH (FORCE)"
}
