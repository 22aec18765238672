#!/usr/bin/env bash
# Sourced by deploy/local/bench: twenty clinics at half of their tier, without and with one at a hundred times its own.
# shellcheck disable=SC2154 # what bench sets

bench_noisy() {
    local name tiers=$scratch/noisy-tiers.json
    # A tier so small that load generator, server and databases have room on one small machine: what is shown is who
    # pays, not how much the machine can do.
    python3 - "$scratch/tiers.json" "$tiers" <<'PYTHON'
import json, sys
tiers = json.load(open(sys.argv[1]))
basic = next(tier for tier in tiers["tiers"] if tier["name"] == "basic")
crowd = dict(basic, name="crowd", rates=[
    {"name": "tenant", "scope": "tenant", "algorithm": "token-bucket", "units": 20, "per": "1s", "burst": 600}])
tiers["tiers"] = [tier for tier in tiers["tiers"] if tier["name"] != "crowd"] + [crowd]
json.dump(tiers, open(sys.argv[2], "w"))
PYTHON
    admin tier apply --file "$tiers" >&2
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
