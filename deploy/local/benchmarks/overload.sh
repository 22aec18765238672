#!/usr/bin/env bash
# Sourced by deploy/local/bench: what becomes of requests when more come than can be answered.
# shellcheck disable=SC2154 # what bench sets

# One worker, and clients that ask for one thing each over HTTP/2: a patient's record (lane safety), the calendar
# (interactive) and a search (bulk). First as many as are answered when each client waits for its answers: that is the
# capacity, of this mix on this machine. Then once, twice and three times that are offered at fixed rates, whatever
# becomes of those before; of each lane the time of those that were let in, from request to end, and how many were not.
bench_overload() {
    local before=${HC_WORKERS:-} capacity times lane
    export HC_WORKERS=1
    restart_with_workers
    token=$(login)
    overload_uri=(
        "/v1/patients/$(head -n 1 "$scratch/patients")"
        "/v1/appointments?limit=5"
        "/v1/patients?limit=20"
    )
    overload_lane=(safety interactive bulk)
    # Requests of each lane in a hundred.
    overload_share=(50 30 20)
    echo
    echo "== overload: one worker, ${overload_share[*]} of a hundred requests in the lanes ${overload_lane[*]}"
    for lane in 0 1 2; do overload_clients "$lane" 4 8 ''; done
    overload_wait
    capacity=$(cat "$scratch"/overload.?.log | awk -v seconds="$seconds" '$2 == 200 { n++ } END { print int(n / seconds) }')
    echo "capacity: $capacity requests/s"
    printf '%-8s %-12s %10s %10s %9s %9s %9s\n' offered lane offered/s served/s "p50 ms" "p99 ms" "shed %"
    for times in 1 2 3; do
        overload_shed=$(overload_counter)
        # 32 connections of at most 100 requests each: enough that none waits for another at the client.
        for lane in 0 1 2; do
            overload_clients "$lane" 32 100 $((capacity * times * overload_share[lane] / 100))
        done
        overload_wait
        for lane in 0 1 2; do overload_report "$times" "$lane"; done
        echo "  the server's own count of requests that it shed: $(($(overload_counter) - overload_shed))"
    done
    if [[ -n $before ]]; then export HC_WORKERS=$before; else unset HC_WORKERS; fi
    restart_with_workers
    token=$(login)
}

restart_with_workers() {
    "$HC_ROOT/deploy/local/down" >&2
    "$HC_ROOT/deploy/local/up" --detach >&2
}

# overload_clients LANE CONNECTIONS STREAMS [REQUESTS PER SECOND IN ALL]
overload_clients() {
    local arguments=(-c "$2" -m "$3" -t 1 -D "$seconds" --warm-up-time=1 --log-file="$scratch/overload.$1.log")
    rm -f "$scratch/overload.$1.log"
    # A rate is each client's; at least one request a second.
    [[ -z $4 ]] || arguments+=(--rps=$((($4 + $2 - 1) / $2)))
    h2load "${arguments[@]}" -H ":authority: bench.localhost" -H "authorization: Bearer $token" \
        "http://127.0.0.1:$HC_PORT${overload_uri[$1]}" >"$scratch/overload.$1.out" &
    overload_pids+=($!)
}

overload_wait() {
    wait "${overload_pids[@]}"
    overload_pids=()
}

overload_report() {
    awk '$2 == 200 { print $3 }' "$scratch/overload.$2.log" | sort -n >"$scratch/overload.times"
    awk -v times="$1x" -v lane="${overload_lane[$2]}" -v seconds="$seconds" \
        -v served="$(wc -l <"$scratch/overload.times")" -v all="$(wc -l <"$scratch/overload.$2.log")" '
        { time[NR] = $1 / 1000 }
        function at(share) { return served ? time[int((served - 1) * share) + 1] : 0 }
        END {
            printf "%-8s %-12s %10.0f %10.0f %9.1f %9.1f %9.1f\n", times, lane, all / seconds, served / seconds,
                at(0.5), at(0.99), all ? 100 * (all - served) / all : 0
        }' "$scratch/overload.times"
}

overload_counter() {
    curl -sS "http://127.0.0.1:$HC_OPS_PORT/metrics" |
        awk '/^hc_http_requests_shed_total/ { n += $2 } END { print n + 0 }'
}
