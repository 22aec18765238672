#!/usr/bin/env bash
# Sourced by deploy/local/bench: what a rate limit decision costs, beside redis-benchmark of the same script.
# shellcheck disable=SC2154 # what bench sets

bench_limits() {
    local socket password digest mode
    local -a keys
    admin limits probe --json >"$scratch/probe.json"
    python3 - "$scratch/probe.json" "$scratch" <<'PYTHON'
import json, sys
probe = json.load(open(sys.argv[1]))
print("\n== Rate limit decisions, three rules each (CPU of the deciding thread)")
for name, key, target in (("with leased units", "leased", 0.5), ("by Redis, 32 at a time", "redis", 2.0)):
    cost = probe[key]
    print("%-34s %10.0f/s %9.3f us each (target: at most %.1f)" % (name, cost["perSecond"], cost["microseconds"], target))
# redis-benchmark ends an argument at its first zero byte: so the script has it as a constant.
argument = "'" + "".join("\\%03d" % byte for byte in bytes.fromhex(probe["script"]["argument"])) + "'"
open(sys.argv[2] + "/script", "w").write(probe["script"]["source"].replace("ARGV[1]", argument))
open(sys.argv[2] + "/keys", "w").write("\n".join(probe["script"]["keys"]) + "\n")
PYTHON
    mapfile -t keys <"$scratch/keys"
    socket=$(<"$HC_STATE/secrets/redis.socket")
    password=$(<"$HC_STATE/secrets/redis.password")
    digest=$(REDISCLI_AUTH=$password redis-cli -s "$socket" -x script load <"$scratch/script")
    for mode in "-c 32 -P 1" "-c 8 -P 16"; do
        # A password on the command line is that of this Redis only.
        # shellcheck disable=SC2086
        line "redis-benchmark $mode" "$(redis-benchmark -s "$socket" $mode -n 200000 -q -a "$password" \
            EVALSHA "$digest" "${#keys[@]}" "${keys[@]}" 2>/dev/null |
            grep -ao '[0-9.]* requests per second' | tail -1)" "" "" "" ""
    done
}
