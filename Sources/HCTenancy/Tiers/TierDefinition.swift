import HCCore

/// What a clinic of a tier may use. Written in `tenants/tiers.json`, kept in the control database, and seen
/// by every process within a second of a change.
package struct TierDefinition: Hashable, Sendable {
    package var name: String
    /// Share of a shard's capacity that one clinic of the tier counts for, and its share of the connections when
    /// they are scarce.
    package var weight: Int
    package var rates: [RateRule]
    /// Percent of each tenant-scoped rule that only the clinical safety lane may use.
    package var safetyReservePercent: Int
    package var pool: TierPool
    package var timeouts: TierTimeouts
    package var cache: TierCache
    /// Requests of one clinic that a process keeps waiting while the clinic is handed to another shard.
    package var parkedRequestsMax: Int

    package static let weights = 1...1000
    package static let safetyReserves = 0...90
    package static let parkedRequests = 1...10_000

    package init(
        name: String, weight: Int = 1, rates: [RateRule], safetyReservePercent: Int = 0,
        pool: TierPool = TierPool(), timeouts: TierTimeouts = TierTimeouts(),
        cache: TierCache = TierCache(), parkedRequestsMax: Int = 64
    ) {
        self.name = name
        self.weight = weight
        self.rates = rates
        self.safetyReservePercent = safetyReservePercent
        self.pool = pool
        self.timeouts = timeouts
        self.cache = cache
        self.parkedRequestsMax = parkedRequestsMax
    }

    /// For a clinic whose own tier cannot be read: little, so that it is neither closed nor without limits.
    package static func least(_ name: String) -> TierDefinition {
        TierDefinition(
            name: name, rates: [.bucket(units: 10, burst: RequestCost.largest)],
            pool: TierPool(inFlightMax: 4))
    }
}

/// How a clinic of a tier shares a shard's connections within one process.
package struct TierPool: Hashable, Sendable {
    /// Transactions of one clinic that run at once.
    package var inFlightMax: Int
    /// Transactions of one clinic that wait for their turn; more are refused at once.
    package var waitingMax: Int
    /// A transaction that has waited so long is refused.
    package var queueTimeout: Duration
    /// Connections that every process holds for each clinic of the tier alone. Counted by `config check`.
    package var dedicatedConnections: Int

    package static let inFlight = 1...1000
    package static let waiting = 1...100_000
    package static let queueTimeouts: ClosedRange<Duration> = .milliseconds(10)...(.seconds(30))
    package static let dedicated = 0...100

    package init(
        inFlightMax: Int = 32, waitingMax: Int = 1024, queueTimeout: Duration = .seconds(2),
        dedicatedConnections: Int = 0
    ) {
        self.inFlightMax = inFlightMax
        self.waitingMax = waitingMax
        self.queueTimeout = queueTimeout
        self.dedicatedConnections = dedicatedConnections
    }
}

/// How long work in a shard may take. Each is at least the one before it: lock, statement, transaction.
package struct TierTimeouts: Hashable, Sendable {
    package var statement: Duration
    package var lock: Duration
    package var transaction: Duration

    package static let range: ClosedRange<Duration> = .milliseconds(10)...(.seconds(600))

    package init(
        statement: Duration = .seconds(10), lock: Duration = .seconds(2),
        transaction: Duration = .seconds(20)
    ) {
        self.statement = statement
        self.lock = lock
        self.transaction = transaction
    }
}

/// What a clinic of a tier may keep in one process' cache.
package struct TierCache: Hashable, Sendable {
    package var bytesMax: Int
    package var entriesMax: Int

    package static let bytes = 64 << 10...1 << 30
    package static let entries = 16...1_000_000

    package init(bytesMax: Int = 1 << 20, entriesMax: Int = 1000) {
        self.bytesMax = bytesMax
        self.entriesMax = entriesMax
    }
}
