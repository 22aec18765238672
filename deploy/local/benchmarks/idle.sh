#!/usr/bin/env bash
# Sourced by deploy/local/bench: memory per idle connection.
# shellcheck disable=SC2154 # what bench sets

# Opens connections of a kind, counts memory before and with them, and prints bytes per connection.
# Arguments: plain, tls or websocket; how many; the target in bytes or nothing.
hold_connections() {
    local kind=$1 wanted=$2 target=${3:-} before after count port=$HC_PORT
    [[ $kind != tls ]] || port=$HC_TLS_PORT
    # shellcheck disable=SC2046
    before=$(memory_of $(server_pids))
    coproc CLIENTS { python3 "$HC_ROOT/deploy/local/benchmarks/idle_clients.py" "$kind" "$port" "$wanted"; }
    read -r count <&"${CLIENTS[0]}" || fail "the clients did not connect"
    # shellcheck disable=SC2046
    after=$(memory_of $(server_pids))
    echo "done" >&"${CLIENTS[1]}"
    # shellcheck disable=SC2153
    wait "$CLIENTS_PID" || true
    echo "$kind: $count connections, server memory before: $before KiB, with them: $after KiB"
    ratio $(((after - before) * 1024)) "$count" \
        " bytes per connection${target:+ (target: at most $target)}" "hc, $kind"
    held_bytes=$(((after - before) * 1024))
}

bench_idle() {
    local many=${HC_BENCH_IDLE_MAX:-50000} first
    positive HC_BENCH_IDLE_MAX "$many"
    echo
    echo "== memory per idle connection at 10,000, each after one request (WebSocket: one message echoed)"
    hold_connections plain 10000 2048
    first=$held_bytes
    restart_server
    hold_connections tls 10000 24576
    restart_server
    hold_connections websocket 10000
    restart_server
    if (($(ulimit -n) > many + 1000)); then
        hold_connections plain "$many" 2048
        ratio $((held_bytes - first)) $((many - 10000)) " bytes for each further connection" "hc, from 10,000 to $many"
    else
        echo "no slope to $many: this process may open $(ulimit -n) descriptors (root may raise that)"
    fi
}

# Fresh processes, so that memory which the allocator keeps does not hide what the next kind costs.
restart_server() {
    "$HC_ROOT/deploy/local/down" >&2
    "$HC_ROOT/deploy/local/up" --detach >&2
}
