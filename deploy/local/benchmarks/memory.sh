#!/usr/bin/env bash
# Sourced by deploy/local/bench: GET /v1/limits, beside nginx.
# shellcheck disable=SC2154 # what bench sets

bench_memory() {
    local ours peer body
    cat >"$scratch/memory.lua" <<LUA
local headers = { ["Host"] = "bench.localhost", ["Authorization"] = "Bearer $token" }
request = function() return wrk.format("GET", "/v1/limits", headers) end
LUA
    echo 'request = function() return wrk.format("GET", "/") end' >"$scratch/nginx.lua"
    body=$(api -H "authorization: Bearer $token" "$base/v1/limits")
    start_nginx "$body"
    header "GET from memory (routed, authenticated, limited) beside nginx return 200"
    # shellcheck disable=SC2046
    ours=$(measure "$scratch/memory.lua" "http://127.0.0.1:$HC_PORT" $(server_pids))
    # shellcheck disable=SC2046
    peer=$(measure "$scratch/nginx.lua" "http://127.0.0.1:$nginx_port" $(nginx_pids))
    stop_nginx
    # shellcheck disable=SC2086
    line "hc /v1/limits" $ours
    # shellcheck disable=SC2086
    line "nginx return 200" $peer
    ratio "${ours##* }" "${peer##* }" x "hc / nginx in server CPU per request (target: at most 1.50)"
}
