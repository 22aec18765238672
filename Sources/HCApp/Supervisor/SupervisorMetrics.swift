import HCCore

/// What the supervisor itself counts.
struct SupervisorMetrics: Sendable {
    enum RollOutcome: String, CaseIterable {
        case finished, abandoned
    }

    enum UpgradeOutcome: String, CaseIterable {
        case replaced, refused
    }

    let registry = MetricsRegistry()
    let exits: Counter
    let kills: [SupervisorStateMachine.KillReason: Counter]
    let memoryReplacements: Counter
    let rolls: [RollOutcome: Counter]
    let upgrades: [UpgradeOutcome: Counter]
    let configurationRefusals: Counter
    let generation: Gauge

    init() {
        let registry = registry
        exits = registry.counter(
            "hc_supervisor_worker_exits_total", "Worker processes that ended, for any reason.")
        kills = SupervisorMetrics.family { reason in
            registry.counter(
                "hc_supervisor_worker_kills_total", "Worker processes killed by the supervisor.",
                labels: [("reason", reason)])
        }
        memoryReplacements = registry.counter(
            "hc_supervisor_memory_replacements_total",
            "Workers above their memory ceiling whose slot a successor was started for.")
        rolls = SupervisorMetrics.family { outcome in
            registry.counter(
                "hc_supervisor_rolls_total", "Rolls of all workers that came to an end.",
                labels: [("outcome", outcome)])
        }
        upgrades = SupervisorMetrics.family { outcome in
            registry.counter(
                "hc_supervisor_upgrades_total", "Replacements of the program that were asked for.",
                labels: [("outcome", outcome)])
        }
        configurationRefusals = registry.counter(
            "hc_supervisor_configuration_refusals_total",
            "Configurations that were not taken over because they are not valid.")
        generation = registry.gauge(
            "hc_supervisor_generation", "How often all workers were to be replaced, and 1.")
    }

    private static func family<Label: CaseIterable & RawRepresentable<String> & Hashable>(
        _ make: (String) -> Counter
    ) -> [Label: Counter] {
        Dictionary(uniqueKeysWithValues: Label.allCases.map { ($0, make($0.rawValue)) })
    }
}

extension MetricsSnapshot {
    /// Adds what the workers told. While a worker is being replaced its slot has two: the gauges of the one that goes
    /// have the slot with "-old" as their label, and not the newer one's.
    ///
    /// - Parameter workers: the latest of each slot last.
    mutating func merge(workers: [(slot: Int, metrics: MetricsSnapshot)]) {
        var latest: [Int: Int] = [:]
        for (index, worker) in workers.enumerated() { latest[worker.slot] = index }
        for (index, worker) in workers.enumerated() {
            let isLatest = latest[worker.slot] == index
            merge(worker.metrics, worker: isLatest ? "\(worker.slot)" : "\(worker.slot)-old")
        }
    }
}
