#!/usr/bin/env bash
# Sourced by deploy/local/bench: twenty clinics at half of their tier, without and with one at a hundred times its own.
# shellcheck disable=SC2154 # what bench sets

bench_noisy() {
    local name
    for name in noisy $(printf 'quiet%02d ' {1..20}); do
        [[ ! -s $scratch/$name.json ]] || continue
        admin tenant create "$name" --name "$name" --tier crowd --json >"$scratch/$name.owner"
        chmod 0600 "$scratch/$name.owner"
        admin demo seed "$name" --patients 20 --days 2 >&2
        mv "$scratch/$name.owner" "$scratch/$name.json"
    done
    echo
    echo "== one clinic at 100x its tier on every route class, twenty others at half of theirs"
    echo "tier: 20 units/s (a read is 1, a search 10, a write 20); ${seconds}s each, alternating, 3 rounds"
    python3 "$HC_ROOT/deploy/local/benchmarks/noisy_clients.py" "$HC_PORT" "$seconds" "$scratch"
}
