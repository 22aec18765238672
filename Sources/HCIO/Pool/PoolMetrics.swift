package import HCCore

/// What a pool shows: one set per pool name.
package struct PoolMetrics: Sendable {
    let total: Gauge
    let active: Gauge
    let idle: Gauge
    let waiting: Gauge
    let connects: Counter
    let connectFailures: Counter
    let circuitOpenings: Counter
    let refusals: Counter
    let waitTime: Histogram

    package init(_ registry: MetricsRegistry, pool: String) {
        let labels: [(StaticString, String)] = [("pool", pool)]
        total = registry.gauge(
            "hc_pool_resources", "Resources open or being opened", labels: labels)
        active = registry.gauge("hc_pool_active", "Resources lent", labels: labels)
        idle = registry.gauge("hc_pool_idle", "Resources at rest", labels: labels)
        waiting = registry.gauge("hc_pool_waiting", "Leases being waited for", labels: labels)
        connects = registry.counter("hc_pool_connects_total", "Tries to open", labels: labels)
        connectFailures = registry.counter(
            "hc_pool_connect_failures_total", "Tries to open that failed", labels: labels)
        circuitOpenings = registry.counter(
            "hc_pool_circuit_openings_total", "Times the circuit opened", labels: labels)
        refusals = registry.counter("hc_pool_refusals_total", "Leases refused", labels: labels)
        waitTime = registry.histogram(
            "hc_pool_wait_seconds", "Time from asking to lease, where there was a wait",
            labels: labels)
    }

    /// Shows what changed between two looks at the machine.
    func update(
        from old: PoolStateMachine.Statistics, to new: PoolStateMachine.Statistics
    ) {
        if new.total != old.total { total.set(new.total) }
        if new.active != old.active { active.set(new.active) }
        if new.idle != old.idle { idle.set(new.idle) }
        if new.waiting != old.waiting { waiting.set(new.waiting) }
        if new.connects != old.connects { connects.increment(by: new.connects - old.connects) }
        if new.connectFailures != old.connectFailures {
            connectFailures.increment(by: new.connectFailures - old.connectFailures)
        }
        if new.circuitOpenings != old.circuitOpenings {
            circuitOpenings.increment(by: new.circuitOpenings - old.circuitOpenings)
        }
        if new.refusals != old.refusals { refusals.increment(by: new.refusals - old.refusals) }
    }
}
