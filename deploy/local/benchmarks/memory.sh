#!/usr/bin/env bash
# Sourced by deploy/local/bench: GET /v1/limits, beside nginx.
# shellcheck disable=SC2154 # what bench sets

bench_memory() {
    local body name rate script
    local -A url pids shown costs
    body=$(api -H "authorization: Bearer $token" "$base/v1/limits")
    start_nginx "$body"
    url=([hc]=http://127.0.0.1:$HC_PORT [nginx]=http://127.0.0.1:$nginx_port)
    pids=([hc]=$(server_pids) [nginx]=$(nginx_pids))
    shown=([hc]="hc /v1/limits" [nginx]="nginx return 200")
    cat >"$scratch/hc-full.lua" <<LUA
local headers = { ["Host"] = "bench.localhost", ["Authorization"] = "Bearer $token" }
request = function() return wrk.format("GET", "/v1/limits", headers) end
LUA
    echo 'request = function() return wrk.format("GET", "/") end' >"$scratch/nginx-full.lua"
    # With this pause, in milliseconds, the clients ask both servers for the same, and neither is busy all of the time.
    for name in hc nginx; do
        { cat "$scratch/$name-full.lua" && echo 'function delay() return 2 end'; } >"$scratch/$name-equal.lua"
    done

    header "GET from memory (routed, authenticated, limited) beside nginx return 200"
    # At full speed both costs have two values, each more than 1.5 times the other, and ratios say which of them came: a
    # server that has answered all sleeps and must be waked, one that always finds more never sleeps, and which it is
    # changes from run to run. So what is compared is measured at a load that both take with ease, in turn.
    for rate in equal full; do
        costs=([hc]="" [nginx]="")
        for _ in 1 2 3; do
            for name in hc nginx; do
                script=$scratch/$name-$rate.lua
                # shellcheck disable=SC2086
                costs[$name]+="$(measure "$script" "${url[$name]}" ${pids[$name]})"$'\n'
            done
        done
        for name in hc nginx; do
            # The run whose cost is the one in the middle.
            costs[$name]=$(sort -n -k 5 <<<"${costs[$name]%$'\n'}" | sed -n 2p)
            # shellcheck disable=SC2086
            line "${shown[$name]}, $rate" ${costs[$name]}
        done
        if [[ $rate == equal ]]; then
            ratio "${costs[hc]##* }" "${costs[nginx]##* }" x \
                "hc / nginx in server CPU per request at an equal load (target: at most 1.50)"
        fi
    done
    stop_nginx
}
