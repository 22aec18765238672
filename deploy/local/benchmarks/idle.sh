#!/usr/bin/env bash
# Sourced by deploy/local/bench: memory per idle connection, and what each further one costs.
# shellcheck disable=SC2154 # what bench sets

# Connections of a kind are opened in steps of 10,000, and the memory of all processes of the server is counted after
# each (proportional set size). So many descriptors as that takes no process may have: workers and clients are several,
# with at most 15,000 connections each on average.
bench_idle() {
    local many=${HC_BENCH_IDLE_MAX:-50000} before=${HC_WORKERS:-}
    positive HC_BENCH_IDLE_MAX "$many"
    idle_processes=$(((many + 14999) / 15000))
    (($(ulimit -n) >= 19000)) || fail "a process may have $(ulimit -n) descriptors: 19000 are needed (ulimit -n)"
    export HC_WORKERS=$idle_processes
    echo
    echo "== memory per idle connection, each after one request (WebSocket: one message echoed); $HC_WORKERS workers"
    hold_connections plain "$HC_PORT" "$many" 2048
    hold_connections tls "$HC_TLS_PORT" "$many" 24576
    hold_connections http2 "$HC_PORT" "$many"
    hold_connections websocket "$HC_PORT" "$many"
    if [[ -n $before ]]; then export HC_WORKERS=$before; else unset HC_WORKERS; fi
    restart_server
}

# hold_connections KIND PORT MANY [TARGET in bytes for each connection]
hold_connections() {
    local kind=$1 port=$2 many=$3 target=${4:-} start first='' count step=10000 bytes number pipe
    local inputs=() outputs=() pids=()
    # Fresh processes, so that memory which the allocator keeps does not hide what the next kind costs.
    restart_server
    # shellcheck disable=SC2046
    start=$(memory_of $(server_pids))
    for ((number = 0; number < idle_processes; number++)); do
        rm -f "$scratch/idle.$number.in" "$scratch/idle.$number.out"
        mkfifo "$scratch/idle.$number.in" "$scratch/idle.$number.out"
        python3 "$HC_ROOT/deploy/local/benchmarks/idle_clients.py" "$kind" "$port" "$number" \
            <"$scratch/idle.$number.in" >"$scratch/idle.$number.out" &
        pids+=($!)
        exec {pipe}>"$scratch/idle.$number.in"
        inputs+=("$pipe")
        exec {pipe}<"$scratch/idle.$number.out"
        outputs+=("$pipe")
    done
    for ((count = step; count <= many; count += step)); do
        for number in "${!pids[@]}"; do
            echo $((count / idle_processes)) >&"${inputs[number]}"
        done
        for number in "${!pids[@]}"; do
            read -r _ <&"${outputs[number]}" || fail "the clients did not connect"
        done
        # shellcheck disable=SC2046
        bytes=$((($(memory_of $(server_pids)) - start) * 1024))
        first=${first:-$bytes}
        ratio "$bytes" "$count" " bytes per connection${target:+ (target: at most $target)}" "hc, $kind, $count"
    done
    count=$((count - step))
    ((count == step)) || ratio $((bytes - first)) $((count - step)) \
        " bytes for each further connection" "hc, $kind, from $step to $count"
    for number in "${!pids[@]}"; do
        echo >&"${inputs[number]}"
        wait "${pids[number]}" || true
        pipe=${inputs[number]}
        exec {pipe}>&-
        pipe=${outputs[number]}
        exec {pipe}<&-
    done
}

restart_server() {
    "$HC_ROOT/deploy/local/down" >&2
    "$HC_ROOT/deploy/local/up" --detach >&2
}
