#!/usr/bin/env bash
# Sourced by deploy/local/bench: does the memory grow while connections come and go?
# shellcheck disable=SC2154 # what bench sets

# Connections with one request each, in clear text and over TLS, for the whole time. Memory is looked at after a
# third of it, when everything that is kept has been made, and at the end.
bench_churn() {
    local length=${HC_BENCH_CHURN_SECONDS:-60} third middle end
    positive HC_BENCH_CHURN_SECONDS "$length"
    third=$((length / 3 > 0 ? length / 3 : 1))
    echo 'request = function() return wrk.format("GET", "/health", { ["Host"] = "bench.localhost", ["Connection"] = "close" }) end' \
        >"$scratch/churn.lua"
    echo
    echo "== connections that come, ask and go for $length seconds"
    churn "$third"
    # shellcheck disable=SC2046
    middle=$(memory_of $(server_pids))
    churn $((length - third))
    # shellcheck disable=SC2046
    end=$(memory_of $(server_pids))
    echo "server memory after $third seconds: $middle KiB, at the end: $end KiB (target: no growth)"
    ratio "$end" "$middle" x "memory at the end / after a third"
}

churn() {
    wrk -t1 -c32 -d"$1s" -s "$scratch/churn.lua" "http://127.0.0.1:$HC_PORT" >"$scratch/churn.out" &
    wrk -t1 -c16 -d"$1s" -s "$scratch/churn.lua" "https://127.0.0.1:$HC_TLS_PORT" >"$scratch/churn-tls.out" || true
    wait $! || true
    awk '/requests in/ { n += $1 } END { print n, "connections" }' "$scratch/churn.out" "$scratch/churn-tls.out"
}
