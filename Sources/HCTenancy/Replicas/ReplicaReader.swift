import HCCore
import HCIO
import HCPostgres

/// Reads from the replicas of one shard, as far as `ReplicaMachine` lets it: opens their connections, asks them and the
/// primary how far they are, and looks at each answer before it is given out.
///
/// It asks from the first read on that a replica may answer: often while there are such reads, now and then
/// otherwise, so that something is known when the primary is lost.
@LoopActor
final class ReplicaReader {
    struct Configuration {
        var replicas: PlatformConfiguration.Replicas
        var pools: PlatformConfiguration.Pools
        var applicationName: String
        var connectTimeout: Duration
        var conninfo: @Sendable (_ reference: String) throws -> Sensitive<String>
        /// Since the last read that a replica may answer, until it is asked now and then only.
        var restAfter = Duration.seconds(10)
        var restInterval = Duration.seconds(10)
        var registry: MetricsRegistry
    }

    /// Why an answer was not given by a replica.
    struct Miss: Error {
        let reason: ReplicaMetrics.Fallback
    }

    /// What must have been replayed; nil: nothing particular.
    struct Position: Equatable {
        let value: LogPosition?
    }

    let shard: ShardRecord
    private(set) var machine: ReplicaMachine
    private let configuration: Configuration
    private let logger: Logger
    private let tenancyMetrics: TenancyMetrics
    private let metrics: ReplicaMetrics
    private var random = SystemRandomNumberGenerator()
    private var pools: [String: ShardPool] = [:]
    private var probes: [String: ReplicaProbe<ReplicaSight>] = [:]
    private lazy var primaryProbe = makePrimaryProbe()
    /// Replicas that were told of as being something else.
    private var impostors: Set<String> = []
    private var isRunning = false
    private var isClosed = false
    private var wantedAt: MonotonicTime?
    /// Ends the pause between two samples.
    private var pause: Waiter<Void>?

    init(
        _ shard: ShardRecord, _ configuration: Configuration, logger: Logger,
        metrics: TenancyMetrics
    ) {
        self.shard = shard
        self.configuration = configuration
        self.logger = logger
        tenancyMetrics = metrics
        self.metrics = ReplicaMetrics(configuration.registry, shard: shard.id)
        var limits = ReplicaMachine.Limits()
        limits.lagMax = configuration.replicas.lagMax
        limits.outageMax = configuration.replicas.outageMax
        machine = ReplicaMachine(limits)
        machine.follow(shard.replicas)
    }

    /// Takes what the map says now of the same shard.
    func follow(_ replicas: [ReplicaRecord]) {
        let before = machine.members.map(\.record)
        guard before != replicas else { return }
        machine.follow(replicas)
        for old in before
        where !replicas.contains(where: { $0.name == old.name && $0.reference == old.reference }) {
            close(old.name)
        }
    }

    // MARK: Reads

    /// Whether a replica would be asked now, by what is known. Also makes it known.
    func isPromising() -> Bool {
        want()
        var guess = machine
        if case .primary(let reason) = guess.choose(after: nil, now: Loop.now) {
            metrics.fellBack(.init(reason))
            return false
        }
        return true
    }

    /// The primary has to answer, for this reason.
    func fellBack(_ reason: ReplicaMetrics.Fallback) { metrics.fellBack(reason) }

    /// Answers from a replica, if there is one that is good enough.
    ///
    /// - Parameter inOutage: the primary is lost: good enough is who had what it had.
    /// - Returns: nil: the primary has to answer. It also has the last word on whatever a replica refused.
    /// - Throws: `TenancyError.cancelled`.
    func read(
        _ entrance: Entrance, _ queries: [Query], after position: LogPosition?, inOutage: Bool,
        deadline: Deadline
    ) async throws(TenancyError) -> [PostgresResult]? {
        want()
        let now = Loop.now
        let choice =
            inOutage
            ? machine.chooseInOutage(after: position, now: now)
            : machine.choose(after: position, now: now)
        guard case .replica(let name) = choice else {
            if case .primary(let reason) = choice { metrics.fellBack(.init(reason)) }
            return nil
        }
        do {
            let results = try await ask(
                name, entrance, queries, deadline: inOutage ? deadline : half(of: deadline, now))
            try judge(results[0], name, after: position, since: now, inOutage: inOutage)
            metrics.answered(by: name, inOutage: inOutage)
            return Array(results.dropFirst(2))
        } catch {
            try settle(error, name)
            return nil
        }
    }

    /// A replica that hangs leaves the primary time to answer.
    private func half(of deadline: Deadline, _ now: MonotonicTime) -> Deadline {
        deadline == .never ? deadline : .after(deadline.remaining(at: now) / 2, from: now)
    }

    private func ask(
        _ name: String, _ entrance: Entrance, _ queries: [Query], deadline: Deadline
    ) async throws -> [PostgresResult] {
        guard let record = machine.member(name)?.record else { throw Miss(reason: .none) }
        return try await pool(record).withConnection(
            for: entrance.record.id, entrance.tier, deadline: deadline
        ) { connection in
            // What is replayed before the first statement is seen by those that follow: each has a snapshot of its own.
            try await connection.execute(
                [ReplicaReader.replayed, entrance.query(.read, on: connection)] + queries,
                deadline: entrance.limit(deadline))
        }
    }

    private nonisolated static let replayed = Query(
        "SELECT (pg_last_wal_replay_lsn() - '0/0')::int8, pg_is_in_recovery()")

    /// The position that came with the answer decides, not the samples by which the replica was chosen.
    private func judge(
        _ result: PostgresResult, _ name: String, after position: LogPosition?,
        since now: MonotonicTime, inOutage: Bool
    ) throws {
        let row = try result.single()
        guard try row.bool(1) else {
            machine.refused(name)
            throw Miss(reason: .impostor)
        }
        let verdict = machine.answered(
            name, try row.position(0), after: position, since: now, inOutage: inOutage)
        if case .reject(let reason) = verdict { throw Miss(reason: .init(reason)) }
    }

    /// What a failed read says about the replica.
    private func settle(_ error: any Error, _ name: String) throws(TenancyError) {
        let reason: ReplicaMetrics.Fallback
        var isItsFault = false
        switch error {
        case let miss as Miss: reason = miss.reason
        case is CancellationError:
            machine.abandoned(name)
            throw .cancelled
        case let error as PostgresError:
            switch RetryMachine.Failure(error) {
            case .cancelled:
                machine.abandoned(name)
                throw .cancelled
            case .moved, .draining, .suspended, .readOnly: reason = .refused
            case .conflict: reason = .conflict
            // What the statements themselves met they will meet on the primary too.
            case .other, .timeLimitExceeded: reason = .refused
            default:
                reason = .failed
                isItsFault = true
            }
        case let error as PoolError:
            reason = error.code == .queueFull ? .busy : .failed
            isItsFault = error.code == .circuitOpen || error.cause != nil
        case TenancyError.overloaded: reason = .busy
        case TenancyError.deadlineExceeded: reason = .busy
        default: reason = .failed
        }
        metrics.fellBack(reason)
        if isItsFault {
            machine.failed(name, now: Loop.now, using: &random)
        } else if reason == .refused || reason == .conflict {
            machine.responded(name)
        } else {
            machine.abandoned(name)
        }
    }

    // MARK: Pools

    private func pool(_ record: ReplicaRecord) -> ShardPool {
        if let pool = pools[record.name] { return pool }
        let limit = configuration.replicas.connectionsMax
        let pools = configuration.pools
        let name = "\(shard.id)/\(record.name)"
        let pool = ShardPool(
            PostgresPool(
                name: "replica \(name)",
                configuration: PoolConfiguration(
                    hardLimit: limit, waitersMax: limit, idleTimeout: pools.idleTimeout,
                    connectTimeout: configuration.connectTimeout),
                metrics: PoolMetrics(configuration.registry, pool: name),
                postgres: { [weak self] in
                    guard let self else { throw CancellationError() }
                    return try self.postgres(record.reference)
                },
                identify: { [weak self] connection, deadline in
                    let sight = try await ReplicaSight.look(at: connection, deadline: deadline)
                    try self?.check(sight, record.name)
                }),
            limits: ShardPool.Queue.Limits(connections: limit, waitingMax: pools.shardQueueMax))
        self.pools[record.name] = pool
        pool.start()
        return pool
    }

    private func postgres(_ reference: String) throws -> PostgresConfiguration {
        // Read for each connection: passwords change.
        var postgres = PostgresConfiguration(
            connectionString: try configuration.conninfo(reference),
            applicationName: configuration.applicationName)
        let usual = TierTimeouts()
        postgres.statementTimeout = usual.statement
        postgres.lockTimeout = usual.lock
        postgres.idleInTransactionTimeout = usual.transaction
        return postgres
    }

    /// - Throws: for a server that is no replica of this shard.
    private func check(_ sight: ReplicaSight, _ name: String) throws(PostgresError) {
        guard let refusal = sight.refusal(asReplicaOf: shard.identity) else {
            if impostors.remove(name) != nil {
                logger.notice("a replica is what it should be again", labels(name))
            }
            return
        }
        machine.refused(name)
        tenancyMetrics.identityRefusals.increment()
        if impostors.insert(name).inserted {
            logger.critical(
                "a server is no replica of the shard: hc-admin shard replica list",
                labels(name) + [
                    ("reason", .string(refusal.rawValue)),
                    ("expected", .string("\(shard.identity)")),
                    ("found", .string("\(sight.identity)")),
                ])
        }
        throw PostgresError(.connectFailed(.identityRefused))
    }

    private func labels(_ name: String) -> [(StaticString, LogValue)] {
        [("shard", .string(shard.id.text)), ("replica", .string(name))]
    }

    private func close(_ name: String) {
        probes.removeValue(forKey: name)?.close()
        guard let pool = pools.removeValue(forKey: name) else { return }
        let limit = Deadline.after(.seconds(30), from: Loop.now)
        Loop.shared.spawn { await pool.shutDown(deadline: limit) }
    }

    /// Refuses new work and waits for what is under way, until the deadline.
    func shutDown(deadline: Deadline) async {
        isClosed = true
        pause?.succeed(())
        primaryProbe.close()
        for probe in probes.values { probe.close() }
        probes = [:]
        let open = pools.values
        pools = [:]
        for pool in open { await pool.shutDown(deadline: deadline) }
    }

    // MARK: Samples

    /// A read came that a replica may answer, now or when the primary is lost.
    func want() {
        let now = Loop.now
        let wasResting = wantedAt.map { now - $0 > configuration.restAfter } ?? true
        wantedAt = now
        if !isRunning, !isClosed {
            isRunning = true
            // Holds nobody while it waits: who drops the reader ends it.
            Loop.shared.spawn { [weak self] in
                while let wait = self?.sampleAndRest() {
                    let pause = Waiter<Void>()
                    self?.pause = pause
                    do {
                        try await pause.wait(until: .after(wait, from: Loop.now))
                    } catch is DeadlineExceeded {
                        continue
                    } catch {
                        break
                    }
                }
            }
        } else if wasResting {
            pause?.succeed(())
        }
    }

    /// - Returns: how long until the next time; nil: there is none.
    private func sampleAndRest() -> Duration? {
        guard !isClosed else { return nil }
        sample()
        let isResting = wantedAt.map { Loop.now - $0 > configuration.restAfter } ?? true
        return isResting ? configuration.restInterval : configuration.replicas.sampleInterval
    }

    private func sample() {
        let timeout = configuration.connectTimeout
        primaryProbe.sample(timeout: timeout) { [weak self] result, askedAt in
            guard let self, case .success(let end) = result else { return }
            machine.primarySampled(end, askedAt: askedAt)
        }
        for name in machine.samplesWanted(now: Loop.now) {
            guard let record = machine.member(name)?.record else { continue }
            probe(record).sample(timeout: timeout) { [weak self] result, _ in
                guard let self, self.probes[name] != nil else { return }
                let now = Loop.now
                switch result {
                case .success(let sight): sampled(name, sight.replayed, now: now)
                case .failure: machine.sampleFailed(name, now: now, using: &random)
                }
                show(name)
            }
        }
        for member in machine.members { show(member.record.name) }
    }

    func sampled(_ name: String, _ replayed: LogPosition, now: MonotonicTime) {
        machine.replicaSampled(name, replayed, now: now)
    }

    private func show(_ name: String) {
        guard let member = machine.member(name) else { return }
        metrics.show(
            name, lag: machine.lag(of: name, now: Loop.now),
            bytes: machine.lagBytes(of: name),
            breaker: member.breaker.state)
    }

    private func makePrimaryProbe() -> ReplicaProbe<LogPosition> {
        let (reference, identity) = (shard.reference, shard.identity)
        return ReplicaProbe(
            connect: { [weak self] deadline in
                guard let self else { throw CancellationError() }
                let connection = try await PostgresConnection.connect(
                    try postgres(reference), deadline: deadline)
                do {
                    guard try await ShardIdentity(of: connection, deadline: deadline) == identity
                    else { throw PostgresError(.connectFailed(.identityRefused)) }
                } catch {
                    connection.close()
                    throw error
                }
                return connection
            },
            ask: { connection, deadline in
                try await LogPosition.end(of: connection, deadline: deadline)
            })
    }

    private func probe(_ record: ReplicaRecord) -> ReplicaProbe<ReplicaSight> {
        if let probe = probes[record.name] { return probe }
        let probe = ReplicaProbe<ReplicaSight>(
            connect: { [weak self] deadline in
                guard let self else { throw CancellationError() }
                return try await PostgresConnection.connect(
                    try postgres(record.reference), deadline: deadline)
            },
            ask: { [weak self] connection, deadline in
                let sight = try await ReplicaSight.look(at: connection, deadline: deadline)
                // Each time: a replica may be promoted under our eyes.
                try self?.check(sight, record.name)
                return sight
            })
        probes[record.name] = probe
        return probe
    }
}
