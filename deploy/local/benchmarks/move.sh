#!/usr/bin/env bash
# Sourced by deploy/local/bench: a clinic with 200,000 rows is moved to and fro between two PostgreSQL servers under load.
# shellcheck disable=SC2154 # what bench sets

bench_move() {
    local name clinic rows=${HC_BENCH_MOVE_ROWS:-200000} moves=${HC_BENCH_MOVES:-20} rate=${HC_BENCH_MOVE_RATE:-300} each=3 clinics
    positive HC_BENCH_MOVE_ROWS "$rows"
    positive HC_BENCH_MOVES "$moves"
    positive HC_BENCH_MOVE_RATE "$rate"
    [[ $(<"$HC_STATE/services/s1.server") != "$(<"$HC_STATE/services/s2.server")" ]] ||
        fail "s1 and s2 are on one server: remove $HC_STATE, made before HC_SHARD_SERVERS was 2"
    # A clinic under such a load grows by a sixth and more while it is moved: after three moves another one has its turn, for
    # each is to have about as many rows as was said.
    clinics=(neighbour)
    for ((clinic = 1; clinic <= (moves + each - 1) / each; clinic++)); do clinics+=("moved$clinic"); done
    for name in "${clinics[@]}"; do
        [[ ! -s $scratch/$name.json ]] || continue
        admin tenant create "$name" --name "$name" --tier custom --shard s1 --json >"$scratch/$name.owner"
        chmod 0600 "$scratch/$name.owner"
        # A patient is about twenty rows: most are tokens by which it is found.
        if [[ $name == neighbour ]]; then
            admin demo seed neighbour --patients 500 --days 5 >&2
        else
            admin demo seed "$name" --patients $((rows / 21)) --days 20 >&2
        fi
        mv "$scratch/$name.owner" "$scratch/$name.json"
    done
    echo
    echo "== a clinic is moved between two servers under load"
    copy_by_pipe moved1 >"$scratch/pipe.json"
    # To and fro once, unmeasured.
    for name in s2 s1; do
        [[ $(admin tenant show moved1 --json | field shard) == "$name" ]] ||
            admin tenant move moved1 --to "$name" --wait --soak 0s >&2
    done
    for name in s1 s2; do age_log "$name"; done
    # Under load the same pipe shows what any copy at that speed takes from the neighbours.
    export -f copy_by_pipe field
    export HC_STATE HC_ROOT
    python3 "$HC_ROOT/deploy/local/benchmarks/move_clients.py" \
        "$HC_PORT" "$scratch" "$moves" "$each" "$rate" s1 s2 "$HC_ROOT/deploy/local/hc-admin"
}

# A server that has run for a while uses the files of its log again: here they are made, as many as it keeps, so that
# none is made while somebody waits. One that is new takes tens of milliseconds from whoever commits.
age_log() {
    local files number
    shard() { psql -X -q -At -v ON_ERROR_STOP=1 "$(<"$HC_STATE/secrets/shards/$1.superuser.conninfo")"; }
    files=$(shard "$1" <<<"SELECT pg_size_bytes(current_setting('min_wal_size')) / pg_size_bytes(current_setting('wal_segment_size'))")
    for ((number = 0; number < files; number++)); do
        echo "SELECT pg_switch_wal() FROM pg_logical_emit_message(false, 'bench', '');"
    done | shard "$1" >/dev/null
    shard "$1" <<<"CHECKPOINT;"
    shard "$1" <<<"CHECKPOINT;"
}

# The floor of a copy: each of the clinic's tables through a pipe into one with the same indexes, one after the other.
# Prints how many rows that were, and its seconds.
copy_by_pipe() {
    local slug=$1 tenant from to table begin end rows=0
    admin() { "$HC_ROOT/deploy/local/hc-admin" "$@"; }
    tenant=$(admin tenant show "$slug" --json | field id)
    from=$(admin tenant show "$slug" --json | field shard)
    to=s1
    [[ $from != s1 ]] || to=s2
    sql() { psql -X -q -v ON_ERROR_STOP=1 "$(<"$HC_STATE/secrets/shards/$1.superuser.conninfo")" -Atc "$2"; }
    sql "$to" "DROP SCHEMA IF EXISTS bench CASCADE; CREATE SCHEMA bench"
    mapfile -t tables < <(sql "$from" "SELECT hc_tenant_tables() ORDER BY 1")
    for table in "${tables[@]}"; do
        sql "$to" "CREATE TABLE bench.$table (LIKE public.$table INCLUDING ALL)"
    done
    begin=$(date +%s%N)
    for table in "${tables[@]}"; do
        sql "$from" "COPY (SELECT * FROM $table WHERE tenant_id = '$tenant') TO STDOUT (FORMAT binary)" |
            sql "$to" "COPY bench.$table FROM STDIN (FORMAT binary)"
    done
    end=$(date +%s%N)
    for table in "${tables[@]}"; do
        rows=$((rows + $(sql "$to" "SELECT count(*) FROM bench.$table")))
    done
    sql "$to" "DROP SCHEMA bench CASCADE" >&2
    awk -v rows=$rows -v ns=$((end - begin)) 'BEGIN { printf "{\"rows\": %d, \"seconds\": %.3f}\n", rows, ns / 1e9 }'
}
