package import HCCore

/// What the agreement on copies counts. No label names a clinic.
package final class CoherenceMetrics: Sendable {
    let clinics: Gauge
    let isTrusted: Gauge
    let losses: Counter
    let voids: Counter
    let wait: Histogram
    let expiredWaits: Counter
    let untold: Counter
    let untoldDropped: Counter

    package init(_ registry: MetricsRegistry) {
        clinics = registry.gauge(
            "hc_copies_clinics", "Clinics of which this process may keep copies in memory")
        isTrusted = registry.gauge(
            "hc_copies_trusted", "1 while copies in memory may be used at all")
        losses = registry.counter(
            "hc_copies_lost_total", "Times that all copies were dropped, as Redis was lost or late")
        voids = registry.counter(
            "hc_copies_voids_total", "Changes that other processes had to be told of first")
        wait = registry.histogram(
            "hc_copies_void_seconds", "Time until no process could use a copy any more")
        expiredWaits = registry.counter(
            "hc_copies_void_expired_total", "Changes that waited for a process that did not answer")
        untold = registry.counter(
            "hc_copies_untold_total", "Changes that Redis heard of only later, or not yet")
        untoldDropped = registry.counter(
            "hc_copies_untold_dropped_total", "Changes that Redis will not hear of")
    }
}
