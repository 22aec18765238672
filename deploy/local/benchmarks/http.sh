#!/usr/bin/env bash
# Sourced by deploy/local/bench: a small JSON answer over each protocol, beside nginx.
# shellcheck disable=SC2154 # what bench sets

# Runs h2load over HTTP/2 and prints what `measure` prints; of latencies h2load tells the mean only.
measure_http2() {
    local url=$1 before after out requests
    shift
    h2load -c 8 -m 32 -t 1 -D 2 "$url" >/dev/null 2>&1
    before=$(cpu_of "$@")
    out=$(h2load -c 8 -m 32 -t 1 -D "$seconds" "$url" 2>/dev/null)
    after=$(cpu_of "$@")
    requests=$(awk '/^requests:/ { print $8 }' <<<"$out")
    awk -v cpu=$((after - before)) -v requests="$requests" '
        /^finished in/ { rate = $4 }
        /^requests:/ { errors = $10 + $12 }
        /^time for request:/ { mean = $6 }
        END { printf "%.0f %s - %d %.2f\n", rate, mean, errors, cpu / requests / 1000 }' <<<"$out"
}

bench_http() {
    local ours peer body
    body=$(api "$base/health")
    start_nginx "$body"
    echo 'request = function() return wrk.format("GET", "/health", { ["Host"] = "bench.localhost" }) end' >"$scratch/health.lua"

    header "GET /health over HTTP/1.1, keep-alive"
    # shellcheck disable=SC2046
    ours=$(measure "$scratch/health.lua" "http://127.0.0.1:$HC_PORT" $(server_pids))
    # shellcheck disable=SC2046
    peer=$(measure "$scratch/health.lua" "http://127.0.0.1:$nginx_port" $(nginx_pids))
    compare

    header "GET /health over HTTP/1.1 with TLS"
    # shellcheck disable=SC2046
    ours=$(measure "$scratch/health.lua" "https://127.0.0.1:$HC_TLS_PORT" $(server_pids))
    # shellcheck disable=SC2046
    peer=$(measure "$scratch/health.lua" "https://127.0.0.1:$nginx_tls_port" $(nginx_pids))
    compare

    header "GET /health over HTTP/2 with TLS, 8 connections of 32 streams (mean in place of p50)"
    # shellcheck disable=SC2046
    ours=$(measure_http2 "https://127.0.0.1:$HC_TLS_PORT/health" $(server_pids))
    # shellcheck disable=SC2046
    peer=$(measure_http2 "https://127.0.0.1:$nginx_tls_port/health" $(nginx_pids))
    compare
    stop_nginx
}

compare() {
    # shellcheck disable=SC2086
    line "hc" $ours
    # shellcheck disable=SC2086
    line "nginx" $peer
    ratio "${ours##* }" "${peer##* }" x "hc / nginx in server CPU per request (target: at most 2.00)"
}
