#!/usr/bin/env bash
# Sourced by deploy/local/bench: a shard with 100 small clinics is drained.
# shellcheck disable=SC2154 # what bench sets

bench_drain() {
    local count=${HC_BENCH_DRAIN:-100} number from to name
    positive HC_BENCH_DRAIN "$count"
    ((count <= 999)) || fail "HC_BENCH_DRAIN is $count, at most 999"
    for ((number = 1; number <= count; number++)); do
        name=$(printf 'small%03d' "$number")
        [[ ! -s $scratch/$name.json ]] || continue
        admin tenant create "$name" --name "$name" --tier basic --shard s1 --json >"$scratch/$name.owner"
        chmod 0600 "$scratch/$name.owner"
        admin demo seed "$name" --patients 20 --days 2 >&2
        mv "$scratch/$name.owner" "$scratch/$name.json"
    done
    from=$(admin tenant show small001 --json | field shard)
    to=s1
    [[ $from != s1 ]] || to=s2
    echo
    echo "== shard $from is drained to shard $to; $count of its clinics are small"
    admin shard drain "$from" --to "$to" --wait --json >"$scratch/drain.json"
    admin shard open "$from" >&2
    python3 - "$scratch/drain.json" <<'PYTHON'
import json, sys
drain = json.load(open(sys.argv[1]))
print(f"{drain['moved']} clinics in {drain['milliseconds'] / 1000:.1f} s: {drain['clinicsPerHour']} an hour "
      f"(target: at least 1000); failed: {len(drain['failed'])}")
PYTHON
}
