#!/usr/bin/env bash
# Sourced by deploy/local/bench: POST of an appointment.
# shellcheck disable=SC2154 # what bench sets

bench_booking() {
    # More at once are mostly refused as overload: what is measured then is the refusal.
    # shellcheck disable=SC2034 # measure reads it
    local ours connections=${HC_BENCH_CONNECTIONS:-16}
    cat >"$scratch/booking.lua" <<LUA
local patients, practitioners = {}, {}
for line in io.lines("$scratch/patients") do patients[#patients + 1] = line end
for line in io.lines("$scratch/practitioners") do practitioners[#practitioners + 1] = line end
local headers = { ["Host"] = "bench.localhost", ["Authorization"] = "Bearer $token", ["Content-Type"] = "application/json" }
-- A year of its own for each run (runs begin seconds apart), then an hour later each time, round the
-- practitioners: no two bookings overlap, and no idempotency key comes twice.
local day = (math.floor(os.time() / 3600) + 8760 * (1 + os.time() % 97)) * 3600
local n = 0
request = function()
    local start = day + math.floor(n / #practitioners) * 3600
    local practitioner = practitioners[n % #practitioners + 1]
    n = n + 1
    local body = string.format('{"patientId":"%s","practitionerId":"%s","startsAt":"%s","endsAt":"%s","reason":"bench"}',
        patients[n % #patients + 1], practitioner, os.date("!%Y-%m-%dT%H:%M:%SZ", start), os.date("!%Y-%m-%dT%H:%M:%SZ", start + 300))
    headers["Idempotency-Key"] = string.format("bench-%d-%d", os.time(), n)
    return wrk.format("POST", "/v1/appointments", headers, body)
end
LUA
    header "POST of an appointment (idempotent, audited, one durable transaction)"
    # shellcheck disable=SC2046
    ours=$(measure "$scratch/booking.lua" "http://127.0.0.1:$HC_PORT" $(server_pids))
    # shellcheck disable=SC2086
    line "hc" $ours
}
