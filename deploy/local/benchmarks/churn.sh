#!/usr/bin/env bash
# Sourced by deploy/local/bench: does the memory grow while connections come and go?
# shellcheck disable=SC2154 # what bench sets

# Connections with one request each for the whole time. Memory is looked at after a sixth of it, when everything
# that is kept has been made, and each sixth from there on. Without HC_BENCH_CHURN_RATE they come as fast as they
# are served (wrk, in clear text and over TLS); with it so many come in a second, of all five kinds in turn.
bench_churn() {
    local length=${HC_BENCH_CHURN_SECONDS:-60} rate=${HC_BENCH_CHURN_RATE:-} step part first now
    positive HC_BENCH_CHURN_SECONDS "$length"
    [[ -z $rate ]] || positive HC_BENCH_CHURN_RATE "$rate"
    step=$(((length + 5) / 6))
    echo 'request = function() return wrk.format("GET", "/health", { ["Host"] = "bench.localhost", ["Connection"] = "close" }) end' \
        >"$scratch/churn.lua"
    echo
    echo "== connections that come, ask and go for $((6 * step)) seconds${rate:+, $rate a second}"
    # shellcheck disable=SC2046
    echo "at the start: $(anonymous_of $(server_pids)) KiB"
    for part in 1 2 3 4 5 6; do
        if [[ -n $rate ]]; then
            python3 "$HC_ROOT/deploy/local/benchmarks/churn_clients.py" "$HC_PORT" "$HC_TLS_PORT" "$rate" "$step"
        else
            churn "$step"
        fi
        # shellcheck disable=SC2046
        now=$(anonymous_of $(server_pids))
        first=${first:-$now}
        echo "after $((part * step)) seconds: $now KiB"
    done
    ratio "$now" "$first" x "memory at the end / after a sixth (target: no growth)"
}

# What the processes have made themselves, in KiB. Pages of files are left out: the share of each in those of libraries
# grows when other programs end that use them.
anonymous_of() {
    local pid total=0
    for pid in "$@"; do
        total=$((total + $(awk '/^(Pss_Anon|SwapPss):/ { n += $2 } END { print n + 0 }' "/proc/$pid/smaps_rollup")))
    done
    echo "$total"
}

churn() {
    wrk -t1 -c32 -d"$1s" -s "$scratch/churn.lua" "http://127.0.0.1:$HC_PORT" >"$scratch/churn.out" &
    wrk -t1 -c16 -d"$1s" -s "$scratch/churn.lua" "https://127.0.0.1:$HC_TLS_PORT" >"$scratch/churn-tls.out" || true
    wait $! || true
    awk '/requests in/ { n += $1 } END { print n, "connections" }' "$scratch/churn.out" "$scratch/churn-tls.out"
}
