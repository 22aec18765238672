package import HCCore

/// What this room counts. Nothing is labelled by clinic: with ten thousand of them the scraper would choke.
package final class TenancyMetrics: Sendable {
    let directoryVersion: Gauge
    let directoryAge: Gauge
    let directoryLag: Gauge
    let directoryReloads: Counter
    let directoryChange: Histogram
    let directoryFailures: Counter
    let refusedMoved: Counter
    let refusedDraining: Counter
    let parked: Gauge
    let retries: Counter
    let outcomesUnknown: Counter
    let identityRefusals: Counter
    let auditRows: Counter
    let auditCommits: Counter
    let auditFailures: Counter
    package let limits: LimitMetrics
    let tombstonesWaiting: Gauge
    let tombstonesDropped: Counter

    package init(_ registry: MetricsRegistry) {
        directoryVersion = registry.gauge(
            "hc_directory_version", "Version of the map that this process routes by")
        directoryAge = registry.gauge(
            "hc_directory_age_seconds", "Time since the control database last confirmed the map")
        directoryLag = registry.gauge(
            "hc_directory_lag", "Versions that the last poll found the map to be behind")
        directoryReloads = registry.counter(
            "hc_directory_reloads_total", "Times that the whole map was read again")
        directoryChange = registry.histogram(
            "hc_directory_change_seconds",
            "Time from a change in the control database until this process routes by it")
        directoryFailures = registry.counter(
            "hc_directory_poll_failures_total", "Polls of the control database that failed")
        refusedMoved = registry.counter(
            "hc_enter_moved_total", "Transactions that a shard refused as not being there")
        refusedDraining = registry.counter(
            "hc_enter_draining_total", "Transactions that a shard refused as being handed over")
        parked = registry.gauge(
            "hc_parked_requests", "Requests that wait for a clinic that is being moved")
        retries = registry.counter("hc_transaction_retries_total", "Transactions begun again")
        outcomesUnknown = registry.counter(
            "hc_outcome_unknown_total", "Writes whose commit nobody could confirm")
        identityRefusals = registry.counter(
            "hc_shard_identity_refusals_total",
            "Connections to servers that are not the shard they should be")
        auditRows = registry.counter(
            "hc_audit_read_rows_total", "Audit rows of reads that were committed")
        auditCommits = registry.counter(
            "hc_audit_commits_total", "Commits that contained audit rows of reads")
        auditFailures = registry.counter(
            "hc_audit_failures_total", "Reads refused because their audit row was not committed")
        limits = LimitMetrics(registry)
        tombstonesWaiting = registry.gauge(
            "hc_revocations_waiting", "Revocations that Redis has not heard of")
        tombstonesDropped = registry.counter(
            "hc_revocations_dropped_total", "Revocations dropped before Redis heard of them")
    }
}
