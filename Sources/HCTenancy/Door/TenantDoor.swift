package import HCCore
package import HCCrypto
package import HCIO
import HCPostgres
package import HCRedis

/// The one door to clinics' data: `context(…)` is the only function that makes a `TenantContext`, and a
/// context is the only way to a clinic's transactions, Redis keys, limits, keys and audit log.
///
/// Where a clinic lives is known in here and nowhere above.
@LoopActor
package final class TenantDoor {
    package struct Limits: Sendable {
        /// Clinics whose opened keys are kept in memory.
        package var keysMax = 1024
        /// Requests that wait, over all clinics, while clinics are being moved.
        package var parkedMax = 4096
        /// How long a refusal waits for a newer map.
        package var refreshTimeout = Duration.seconds(2)

        package init() {}
    }

    /// Who asks for a context that has no host.
    package enum Purpose: Sendable {
        /// A request or a job: only clinics that are served.
        case serving
        /// The control plane, making or mending a clinic that nobody else can reach.
        case control
    }

    let directory: DirectoryFollower
    let shards: ShardPools
    let clocks: Clocks
    let logger: Logger
    let metrics: TenancyMetrics
    let gate: Gate
    let redis: RedisClient?
    let sessions: SessionCache
    /// Lets this process keep copies of what it shares with others; nil for programs without Redis.
    package let coherence: Coherence?
    /// Sessions that need not be asked for; nil for programs that keep no copies.
    let sessionCopies: SessionCopies?
    /// Copies of what is read often.
    let cache: TenantCache
    /// What sockets follow; nil for programs without sockets.
    package private(set) var events: EventFeed?
    /// Publishes what is left behind; to be run beside the door's services by one kind of program.
    package private(set) var sweeper: OutboxSweeper?
    private(set) var relay: OutboxRelay?
    private let limits: Limits
    private let keyCache: KeyCache
    private let plans = LimitPlans()
    private let parking = ParkingLot()
    private var random = SystemRandomNumberGenerator()
    private(set) lazy var lookups = LookupGatherer { [weak self] tenant, queries, deadline in
        // Nobody who waits for a look-up can outlive the door: they run on it.
        guard let self else { throw CancellationError() }
        return try await self.perform(
            try self.record(of: tenant), .read, queries, isRepeatable: true, deadline: deadline)
    }
    private(set) lazy var auditor = AuditCommitter(metrics: metrics) {
        [weak self] tenant, rows, deadline in
        // Nobody who waits for the row can outlive the door: they run on it.
        guard let self else { throw CancellationError() }
        try await self.commitAudit(rows, of: tenant, deadline: deadline)
    }

    /// - Parameters:
    ///   - redis: nil for programs without one: limits are then local, sessions are not cached.
    ///   - processes: how many processes share the clinics' limits when Redis is away.
    ///   - events: for programs that publish what they commit.
    ///   - copies: for programs that change what others may have copied.
    ///   - cache: how much is copied, and what is counted of it.
    package init(
        directory: DirectoryFollower, shards: ShardPools, redis: RedisClient?, master: MasterKey,
        processes: Int, sessions: SessionCacheConfiguration = SessionCacheConfiguration(),
        limits: Limits = Limits(), clocks: Clocks, logger: Logger, metrics: TenancyMetrics,
        events: EventFeedSetup? = nil, copies: CoherenceSetup? = nil,
        cache setup: CacheSetup = CacheSetup()
    ) {
        self.directory = directory
        self.shards = shards
        self.redis = redis
        self.clocks = clocks
        self.logger = logger
        self.metrics = metrics
        self.limits = limits
        keyCache = KeyCache(master: master, tenantsMax: limits.keysMax)
        let cache = SessionCache(redis: redis, sessions, metrics: metrics)
        self.sessions = cache
        let coherence = redis.flatMap { redis in
            copies.map { Coherence(redis: redis, $0, logger: logger) }
        }
        self.coherence = coherence
        sessionCopies =
            copies?.reader == nil
            ? nil
            : coherence.map {
                SessionCopies($0, life: sessions.copyLife, copiesMax: sessions.copiesMax)
            }
        self.cache = TenantCache(
            shared: SharedCache(
                redis: coherence == nil ? nil : redis, setup.configuration,
                clocks: clocks, metrics: setup.metrics),
            coherence: coherence, setup.configuration, clocks: clocks, logger: logger,
            metrics: setup.metrics)
        gate = Gate(
            redis: redis, sessions: cache, processes: processes, metrics: metrics.limits)
        shards.schemas.isCutOff = { [weak directory] in directory?.isCutOff ?? true }
        directory.onChange.append { [weak self] changed, map in
            guard let self else { return }
            // A changed key set is noticed by comparison; wiping here makes a revocation immediate.
            keyCache.forget(changed)
            parking.wake(changed)
            self.shards.follow(map)
            self.shards.follow(changed, map)
            plans.follow(map.tierDefinitions)
            self.events?.follow(changed, map)
        }
        if let map = directory.snapshot {
            shards.follow(map)
            plans.follow(map.tierDefinitions)
        }
        if let redis, let events { setUp(events, redis) }
    }

    private func setUp(_ setup: EventFeedSetup, _ redis: RedisClient) {
        let (limits, metrics) = (setup.limits, setup.metrics)
        let stream = EventStream(redis, limits: limits)
        let find: @LoopActor (TenantID) -> TenantRecord? = { [directory] in
            directory.snapshot?.find($0)
        }
        relay = OutboxRelay(
            stream: stream, limits: limits, clocks: clocks, metrics: metrics, find: find
        ) { [weak self] record, queries, deadline in
            _ = try await self?.perform(
                record, .write, queries, isRepeatable: true, deadline: deadline)
        }
        sweeper = OutboxSweeper(door: self, stream: stream, limits: limits, metrics: metrics)
        if let reader = setup.reader {
            events = EventFeed(
                stream: stream, reader: reader, limits: limits, metrics: metrics, logger: logger,
                find: find)
        }
    }

    /// What must run while the door is in use.
    package var services: [any Service] {
        [directory, sessions] + (coherence.map { [$0] } ?? []) + (events.map { [$0] } ?? [])
    }

    /// Adds what clinics use of the shards' connections: those that use most by name, the others together.
    package func appendTenantUse(to snapshot: inout MetricsSnapshot) {
        shards.append(to: &snapshot) { directory.snapshot?.find($0)?.slug }
    }

    // MARK: The door

    /// The clinic that answers at a host.
    ///
    /// - Parameter host: lower case, without port.
    /// - Throws: `.tenantUnknown` for a host that no served clinic has, `.suspended`, `.directoryUnavailable`.
    package func context(host: String) throws(TenancyError) -> TenantContext {
        // Asked in its place, for each request: a copy of the map counts the references of all its tables.
        guard let record = directory.snapshot?.find(host: host), record.isServed else {
            _ = try map()
            throw .tenantUnknown
        }
        guard record.state != .suspended else { throw .suspended }
        return context(record)
    }

    /// The clinic with an id: for jobs and for the control plane.
    package func context(
        tenant: TenantID, for purpose: Purpose = .serving
    ) throws(TenancyError) -> TenantContext {
        let map = try map()
        guard let record = map.find(tenant) else { throw .tenantUnknown }
        if purpose == .serving {
            guard record.isServed else { throw .tenantUnknown }
            guard record.state != .suspended else { throw .suspended }
        }
        return context(record)
    }

    private func map() throws(TenancyError) -> DirectorySnapshot {
        guard let map = directory.snapshot else {
            throw .directoryUnavailable(retryAfter: .seconds(1))
        }
        return map
    }

    private func context(_ record: TenantRecord) -> TenantContext {
        TenantContext(tenant: record, limits: plans.limits(of: record), door: self)
    }

    // MARK: What each request asks

    // Asked of the door and not of its parts: each part that is taken out of its owner is kept alive for the question.

    /// The copy of a session, if this process has one that it may use.
    func findSession(
        _ session: SessionID, of tenant: TenantID, at now: Timestamp
    ) -> SessionEntry? {
        sessionCopies?.find(session, of: tenant, at: now)
    }

    func passNow(_ request: LimitRequest, of clinic: TenantLimits) -> RateDecision? {
        gate.passNow(request, of: clinic)
    }

    func reportNow(
        _ request: LimitRequest, of clinic: TenantLimits, to json: inout JSONWriter
    ) -> Bool {
        gate.reportNow(request, of: clinic, to: &json)
    }

    /// A tier that cannot be read must not close the clinics that have it: they get little.
    func tier(of record: TenantRecord, _ map: DirectorySnapshot?) -> TierDefinition {
        map?.findTier(record.tierName) ?? .least(record.tierName)
    }

    func keys(of record: TenantRecord) throws(TenancyError) -> TenantKeys {
        // The newest record: a context from before a rotation or revocation uses what holds now.
        try keyCache.keys(of: directory.snapshot?.find(record.id) ?? record)
    }

    func revoke(_ session: SessionID, of record: TenantRecord, deadline: Deadline) async -> Bool {
        let isDelivered = await sessions.revoke(
            session, prefixes: redisPrefixes(of: record), deadline: deadline)
        await voidCopies(of: session, record)
        return isDelivered
    }

    func renew(_ session: SessionID, of record: TenantRecord, deadline: Deadline) async -> Bool {
        let isDelivered = await sessions.renew(
            session, prefixes: redisPrefixes(of: record), deadline: deadline)
        await voidCopies(of: session, record)
        return isDelivered
    }

    /// Redis is told first: what is copied from there after this is what holds now.
    private func voidCopies(of session: SessionID, _ record: TenantRecord) async {
        _ = await coherence?.hold([SessionCopies.name(of: session)], of: record.id, for: .zero)
    }

    /// The clinic as the newest map has it: a context may be older.
    func newest(_ record: TenantRecord) -> TenantRecord {
        directory.snapshot?.find(record.id) ?? record
    }

    /// A revocation may come with a context from before a move, and other processes may not have heard of the
    /// move: so it goes where the clinic is and where it was.
    func redisPrefixes(of record: TenantRecord) -> [String] {
        var prefixes = [record.redisPrefix]
        if let map = directory.snapshot {
            if let present = map.find(record.id) {
                prefixes.append(present.redisPrefix)
            }
            if let former = map.formerRecord(of: record.id) {
                prefixes.append(former.redisPrefix)
            }
        }
        var seen: Set<String> = []
        return prefixes.filter { seen.insert($0).inserted }
    }

    // MARK: Running work on the clinic's shard

    /// Runs `attempt` on a connection to the clinic's shard, and again where that is safe and of use.
    ///
    /// - Parameters:
    ///   - isRepeatable: running it twice is the same as running it once.
    ///   - isUrgent: completes what has had its turn: it goes before the clinic's other work.
    ///   - attempt: gets how to enter the clinic where it is now.
    /// - Throws: `TenancyError`; `PostgresError` for what the caller's own SQL met; what `attempt` throws.
    func run<Value>(
        _ first: TenantRecord, isRepeatable: Bool, isUrgent: Bool = false, deadline: Deadline,
        _ attempt: @LoopActor (PostgresConnection, Entrance) async throws -> Value
    ) async throws -> Value {
        var machine = RetryMachine(isRepeatable: isRepeatable)
        // The map may have changed since the context was made.
        var record = directory.snapshot?.find(first.id) ?? first
        while true {
            do {
                let entrance = Entrance(
                    record, tier(of: record, directory.snapshot), shards.schemas.range)
                return try await shards.withConnection(
                    to: record.shard, for: record.id, entrance.tier, isUrgent: isUrgent,
                    deadline: deadline
                ) { connection in
                    do {
                        return try await attempt(connection, entrance)
                    } catch let error as PostgresError
                        where connection.isPooled && error.sqlstate == .tenantMoved
                    {
                        // The clinic has moved, or the server behind the pooler is another: to be identified anew.
                        connection.close()
                        throw error
                    }
                }
            } catch {
                let failure: RetryMachine.Failure
                switch error {
                case let error as PostgresError:
                    failure = RetryMachine.Failure(
                        error, isLate: deadline.isExpired(at: Loop.now))
                case let error as PoolError: failure = RetryMachine.Failure(error)
                case is ShardPools.Refusal: failure = .unreachable(retryAfter: .seconds(5))
                case is CancellationError: failure = .cancelled
                case TenancyError.deadlineExceeded: failure = .deadlineExceeded
                case TenancyError.overloaded(let time): failure = .poolExhausted(retryAfter: time)
                default: throw error
                }
                try await recover(
                    from: failure, error, &machine, &record, deadline: deadline)
            }
        }
    }

    /// Does what has to be done before the next attempt, or throws.
    private func recover(
        from failure: RetryMachine.Failure, _ error: any Error, _ machine: inout RetryMachine,
        _ record: inout TenantRecord, deadline: Deadline
    ) async throws {
        count(failure)
        var action = machine.failed(failure, using: &random)
        if action == .refreshMap {
            action = machine.mapRefreshed(
                isElsewhere: try await refresh(&record, deadline: deadline))
        }
        switch action {
        case .refreshMap: preconditionFailure("the map has just been refreshed")
        case .retry(let wait):
            metrics.retries.increment()
            if wait > .zero { try await pause(wait, deadline: deadline) }
        case .park(let wait):
            try await park(record, wait, deadline: deadline)
            record = directory.snapshot?.find(record.id) ?? record
        case .fail(let refusal): throw refusal
        case .rethrow: throw error
        }
    }

    /// - Returns: whether the newest map names another place or epoch. The record is then that of the map.
    private func refresh(
        _ record: inout TenantRecord, deadline: Deadline
    ) async throws(TenancyError) -> Bool {
        let before = record
        // Somebody else's refusal may have brought it already.
        if let known = directory.snapshot?.find(record.id), known.isElsewhere(than: before) {
            record = known
            return true
        }
        do throws(TenancyError) {
            try await directory.refresh(
                deadline: deadline.earlier(
                    of: .after(limits.refreshTimeout, from: Loop.now)))
        } catch {
            // The map stays as it is; whoever has time left may find it changed next time.
            if error == .cancelled { throw error }
            throw .moving(retryAfter: .seconds(1))
        }
        guard let found = directory.snapshot?.find(record.id) else { throw .tenantUnknown }
        record = found
        return found.isElsewhere(than: before)
    }

    private func park(
        _ record: TenantRecord, _ wait: Duration, deadline: Deadline
    ) async throws(TenancyError) {
        let now = Loop.now
        guard !deadline.isExpired(at: now) else { throw .moving(retryAfter: .seconds(1)) }
        let limit = tier(of: record, directory.snapshot).parkedRequestsMax
        guard parking.count < limits.parkedMax else { throw .moving(retryAfter: .seconds(1)) }
        metrics.parked.set(parking.count + 1)
        defer { metrics.parked.set(parking.count) }
        do {
            let hasWaited = try await parking.park(
                record.id, limit: limit, until: deadline.earlier(of: .after(wait, from: now)))
            guard hasWaited, !deadline.isExpired(at: Loop.now) else {
                throw TenancyError.moving(retryAfter: .seconds(1))
            }
        } catch let error as TenancyError {
            throw error
        } catch {
            throw .cancelled
        }
    }

    private func pause(_ wait: Duration, deadline: Deadline) async throws(TenancyError) {
        let until = Deadline.after(wait, from: Loop.now)
        guard until < deadline else { throw .deadlineExceeded }
        do {
            try await Loop.shared.sleep(until: until)
        } catch {
            throw .cancelled
        }
    }

    private func count(_ failure: RetryMachine.Failure) {
        switch failure {
        case .moved: metrics.refusedMoved.increment()
        case .draining: metrics.refusedDraining.increment()
        case .commitUnknown: metrics.outcomesUnknown.increment()
        default: break
        }
    }

    // MARK: Statements

    /// Enters the clinic and runs the statements: one round trip, one transaction, no BEGIN and no COMMIT
    /// (PostgreSQL manual 55.2.4: what comes before one Sync is one implicit transaction).
    ///
    /// - Parameter scope: learns up to where the statements were committed.
    func perform(
        _ record: TenantRecord, _ mode: EnterMode, _ queries: [Query], isRepeatable: Bool,
        scope: ReadScope? = nil, deadline: Deadline
    ) async throws -> [PostgresResult] {
        // The audit rows of reads complete work that has had its turn.
        try await run(
            record, isRepeatable: isRepeatable, isUrgent: mode == .audit, deadline: deadline
        ) { connection, entrance in
            do throws(PostgresError) {
                let log = scope == nil ? nil : shards.log(of: entrance.record.shard)
                let results = try await connection.execute(
                    [entrance.query(mode, on: connection)] + queries, reportsPosition: log != nil,
                    cancellation: mode == .read ? .always : .beforeSending,
                    deadline: entrance.limit(deadline))
                if let log { scope?.wrote(entrance, log, connection.commitPosition) }
                return Array(results.dropFirst())
            } catch {
                scope?.failed(error, entrance, shards.log(of: entrance.record.shard))
                throw error.countedFrom(1)
            }
        }
    }

    private func record(of tenant: TenantID) throws(TenancyError) -> TenantRecord {
        guard let record = directory.snapshot?.find(tenant) else { throw .tenantUnknown }
        return record
    }

    private func commitAudit(
        _ rows: [AuditRow], of tenant: TenantID, deadline: Deadline
    ) async throws {
        _ = try await perform(
            try record(of: tenant), .audit, [AuditRows.insert(rows, tenant: tenant)],
            isRepeatable: true,
            deadline: deadline)
    }
}

extension PostgresError {
    /// The same error with the index of the failing query counted without our own before it.
    func countedFrom(_ own: Int) -> PostgresError {
        var error = self
        error.queryIndex = queryIndex.flatMap { $0 >= own ? $0 - own : nil }
        return error
    }
}

/// What a program brings that takes part in the feed of events.
package struct EventFeedSetup: Sendable {
    package var metrics: EventMetrics
    /// A client of its own, for reads that wait; nil for a program that only publishes.
    package var reader: RedisClient?
    package var limits: EventLimits

    package init(
        metrics: EventMetrics, reader: RedisClient?, limits: EventLimits = EventLimits()
    ) {
        self.metrics = metrics
        self.reader = reader
        self.limits = limits
    }
}

/// What a program brings that takes part in the agreement on copies.
package struct CoherenceSetup: Sendable {
    package var metrics: CoherenceMetrics
    /// A client of its own, for messages that are waited for; nil for a program that keeps no copies.
    package var reader: RedisClient?
    package var limits: CoherenceLimits

    package init(
        metrics: CoherenceMetrics, reader: RedisClient?,
        limits: CoherenceLimits = CoherenceLimits()
    ) {
        self.metrics = metrics
        self.reader = reader
        self.limits = limits
    }
}
