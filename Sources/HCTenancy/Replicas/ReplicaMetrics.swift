import HCCore

/// What reads from the replicas of one shard show: labels are the shard and its replicas, which are few.
struct ReplicaMetrics {
    /// Why a read that a replica may answer was not answered by one.
    enum Fallback: String, CaseIterable {
        case none, broken, unsampled, lagging, behind
        /// It cannot be known whether the reader's own write is there.
        case unknown
        /// The replica has not seen the clinic as the map has it: a move, a suspension.
        case refused
        /// Replaying the log took away what was being read.
        case conflict
        /// Too many wait for its connections.
        case busy
        /// It cannot be reached, broke down, or took too long.
        case failed
        /// It is another server than it should be.
        case impostor

        init(_ reason: ReplicaMachine.Reason) {
            switch reason {
            case .none: self = .none
            case .broken: self = .broken
            case .unsampled: self = .unsampled
            case .lagging: self = .lagging
            case .behind: self = .behind
            }
        }
    }

    private let registry: MetricsRegistry
    private let shard: String
    private let outageReads: Counter
    private let primaryReads: Counter

    init(_ registry: MetricsRegistry, shard: ShardID) {
        self.registry = registry
        self.shard = shard.text
        outageReads = registry.counter(
            "hc_replica_outage_reads_total",
            "Reads that a replica answered because the primary was lost",
            labels: [("shard", shard.text)])
        primaryReads = registry.counter(
            "hc_replica_reads_total", "Reads that a replica may answer, by who answered",
            labels: [("shard", shard.text), ("target", "primary")])
    }

    func answered(by replica: String, inOutage: Bool) {
        registry.counter(
            "hc_replica_reads_total", "Reads that a replica may answer, by who answered",
            labels: [("shard", shard), ("target", replica)]
        ).increment()
        if inOutage { outageReads.increment() }
    }

    func fellBack(_ reason: Fallback) {
        primaryReads.increment()
        registry.counter(
            "hc_replica_fallbacks_total",
            "Reads that a replica may answer and the primary had to, by reason",
            labels: [("shard", shard), ("reason", reason.rawValue)]
        ).increment()
    }

    func show(_ replica: String, lag: Duration?, bytes: UInt64?, breaker: ReplicaBreaker.State) {
        let labels: [(StaticString, String)] = [("shard", shard), ("replica", replica)]
        registry.gauge(
            "hc_replica_lag_seconds", "What a replica may be missing at most; -1: nobody knows",
            labels: labels
        ).set(lag.map { Double($0.inMicroseconds) / 1_000_000 } ?? -1)
        registry.gauge(
            "hc_replica_lag_bytes", "Log that a replica has not replayed, as of the last sample",
            labels: labels
        ).set(bytes.map { Double($0) } ?? -1)
        registry.gauge(
            "hc_replica_breaker", "0: closed, 1: one read tries, 2: open", labels: labels
        ).set(breaker.level)
    }
}

extension ReplicaBreaker.State {
    fileprivate var level: Int {
        switch self {
        case .closed: 0
        case .halfOpen, .trying: 1
        case .open: 2
        }
    }
}
