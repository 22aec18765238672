#!/usr/bin/env bash
# Sourced by deploy/local/bench: TLS handshakes, full and resumed, beside nginx.
# shellcheck disable=SC2154 # what bench sets

# Handshakes one after the other for some seconds: how many, and the server's CPU microseconds for each.
# TLS 1.2 for the resumed ones: s_time reads no ticket that comes after the handshake.
measure_handshakes() {
    local port=$1 kind=$2 version=$3 before after count
    shift 3
    before=$(cpu_of "$@")
    count=$(openssl s_time -connect "127.0.0.1:$port" "$kind" "$version" -time "$seconds" 2>/dev/null |
        awk '/connections in .* real seconds/ { print $1 }')
    after=$(cpu_of "$@")
    awk -v cpu=$((after - before)) -v count="${count:-0}" -v seconds="$seconds" \
        'BEGIN { printf "%.0f - - 0 %.1f\n", count / seconds, count ? cpu / count / 1000 : 0 }'
}

bench_handshake() {
    local ours peer kind version
    start_nginx '{}'
    for kind in "-new -tls1_3" "-new -tls1_2" "-reuse -tls1_2"; do
        version=${kind#* } kind=${kind% *}
        header "TLS handshakes ($kind $version)"
        # shellcheck disable=SC2046
        ours=$(measure_handshakes "$HC_TLS_PORT" "$kind" "$version" $(server_pids))
        # shellcheck disable=SC2046
        peer=$(measure_handshakes "$nginx_tls_port" "$kind" "$version" $(nginx_pids))
        # shellcheck disable=SC2086
        line "hc" $ours
        # shellcheck disable=SC2086
        line "nginx" $peer
        ratio "${ours##* }" "${peer##* }" x "hc / nginx in server CPU per handshake"
    done
    stop_nginx
}
