#!/usr/bin/env bash
# Sourced by deploy/local/bench: reads of the directory from copies, beside the same reads of the source.
# shellcheck disable=SC2154 # what bench sets

# A read that is answered from a copy in memory, and its twin that never is: each asks for a page of another size, of
# which no copy is kept long enough to be asked for again.
cache_script() {
    cat >"$scratch/$1.lua" <<LUA
local headers = { ["Host"] = "bench.localhost", ["Authorization"] = "Bearer $token" }
local practitioners = {}
for line in io.lines("$scratch/practitioners") do practitioners[#practitioners + 1] = line end
local count = 0
request = function()
    count = count + 1
    local practitioner = practitioners[count % #practitioners + 1]
    $2
    return wrk.format("GET", path, headers)
end
LUA
}

bench_cache() {
    local from to what cached uncached
    from=$(date -u -d '+3 days' +%Y-%m-%dT00:00:00Z)
    to=$(date -u -d '+8 days' +%Y-%m-%dT00:00:00Z)
    cache_script practitioner-cached 'local path = "/v1/practitioners/" .. practitioner'
    cache_script practitioner-source 'local path = "/v1/appointments?limit=1&practitionerId=" .. practitioner'
    cache_script slots-cached "local path = '/v1/slots?durationMinutes=30&from=$from&to=$to&practitionerId=' .. practitioner"
    # Another second each time, of a span as long.
    cache_script slots-source "local path = string.format('/v1/slots?durationMinutes=30&from=%sZ&to=%sZ&practitionerId=%s',
        os.date('!%Y-%m-%dT%H:%M:%S', os.time() + 259200 + count), os.date('!%Y-%m-%dT%H:%M:%S', os.time() + 691200 + count), practitioner)"
    cache_script directory-cached 'local path = "/v1/directory"'
    # Revalidation: the client has it already.
    local tag
    tag=$(api -sS -D - -o /dev/null -H "authorization: Bearer $token" "$base/v1/directory" |
        tr -d '\r' | awk 'tolower($1) == "etag:" { print $2 }')
    cache_script directory-held "local path = '/v1/directory'; headers['If-None-Match'] = '$tag'"
    header "Free slots of five days: from copies, and computed each time"
    # shellcheck disable=SC2046
    for what in cached source; do
        local result
        result=$(measure "$scratch/slots-$what.lua" "http://127.0.0.1:$HC_PORT" $(server_pids))
        # shellcheck disable=SC2086
        line "slots, $what" $result
        [[ $what == cached ]] && cached=$result || uncached=$result
    done
    ratio "${cached%% *}" "${uncached%% *}" x "requests/s from copies / computed"
    ratio "${uncached##* }" "${cached##* }" x "server CPU computed / from copies"
    header "One practitioner from copies; one page of appointments from PostgreSQL, for comparison"
    # shellcheck disable=SC2046,SC2086
    line "practitioner, copies" $(measure "$scratch/practitioner-cached.lua" "http://127.0.0.1:$HC_PORT" $(server_pids))
    # shellcheck disable=SC2046,SC2086
    line "appointments, PostgreSQL" $(measure "$scratch/practitioner-source.lua" "http://127.0.0.1:$HC_PORT" $(server_pids))
    header "The whole directory, sent and held already (304)"
    # shellcheck disable=SC2046,SC2086
    line "directory, 200" $(measure "$scratch/directory-cached.lua" "http://127.0.0.1:$HC_PORT" $(server_pids))
    # shellcheck disable=SC2046,SC2086
    line "directory, 304" $(measure "$scratch/directory-held.lua" "http://127.0.0.1:$HC_PORT" $(server_pids))
    echo
    api -s "http://127.0.0.1:$HC_OPS_PORT/metrics" | grep -E '^hc_cache_(hits|misses|fills|holds)_total' | sort || true
}
