#!/usr/bin/env bash
# Sourced by deploy/local/bench: GET of one patient, beside pgbench.
# shellcheck disable=SC2154 # what bench sets

bench_patient() {
    local ours pgbench_plain pgbench_audit entry tenant epoch
    cat >"$scratch/patient.lua" <<LUA
local ids = {}
for line in io.lines("$scratch/patients") do ids[#ids + 1] = line end
local headers = { ["Host"] = "bench.localhost", ["Authorization"] = "Bearer $token" }
request = function() return wrk.format("GET", "/v1/patients/" .. ids[math.random(#ids)], headers) end
LUA
    header "GET of one patient (audit row durable before the answer)"
    # shellcheck disable=SC2046
    ours=$(measure "$scratch/patient.lua" "http://127.0.0.1:$HC_PORT" $(server_pids))
    # shellcheck disable=SC2086
    line "hc" $ours
    entry=$(admin tenant show bench --json)
    tenant=$(field id <<<"$entry")
    epoch=$(field epoch <<<"$entry")
    local shard conninfo bin n=0 files=() audit_files=() id
    shard=$(field shard <<<"$entry")
    conninfo=$(cat "$HC_STATE/secrets/shards/$shard.app.conninfo")
    bin=$(postgres_bin)
    while read -r id && ((n++ < 8)); do
        cat >"$scratch/read-$n.sql" <<SQL
\\startpipeline
SELECT hc_enter('$tenant', $epoch, 'r');
SELECT id, sealed, key_version, version, created_at, updated_at FROM patient WHERE tenant_id = '$tenant' AND id = '$id' AND deleted_at IS NULL;
\\endpipeline
SQL
        cat >"$scratch/audit-$n.sql" <<SQL
\\startpipeline
SELECT hc_enter('$tenant', $epoch, 'w');
SELECT id, sealed, key_version, version, created_at, updated_at FROM patient WHERE tenant_id = '$tenant' AND id = '$id' AND deleted_at IS NULL;
INSERT INTO audit_event (tenant_id, id, at, actor_kind, action, entity, entity_id, outcome, request_id) VALUES ('$tenant', gen_random_uuid(), now(), 'system', 'read', 'patient', '$id', 'success', 'pgbench');
\\endpipeline
SQL
        files+=(-f "$scratch/read-$n.sql")
        audit_files+=(-f "$scratch/audit-$n.sql")
    done <"$scratch/patients"
    pgbench_plain=$("$bin/pgbench" -n -M prepared -c 6 -j 1 -T "$seconds" "${files[@]}" "$conninfo" 2>/dev/null |
        awk '/^tps/ { print $3 }' | head -1)
    pgbench_audit=$("$bin/pgbench" -n -M prepared -c 6 -j 1 -T "$seconds" "${audit_files[@]}" "$conninfo" 2>/dev/null |
        awk '/^tps/ { print $3 }' | head -1)
    pgbench_plain=${pgbench_plain%%.*} pgbench_audit=${pgbench_audit%%.*}
    line "pgbench, same read, no audit" "$pgbench_plain" - - - -
    line "pgbench, one audit commit per read" "$pgbench_audit" - - - -
    ratio "${ours%% *}" "$pgbench_plain" x "hc / pgbench without audit (target: at least 0.40)"
    ratio "${ours%% *}" "$pgbench_audit" x "hc / pgbench with an audit commit per read (target: at least 2.00)"
    echo "server CPU (target: at most 40 us/request): ${ours##* }"
}
