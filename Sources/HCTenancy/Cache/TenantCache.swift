import HCCore
import HCCrypto
import HCIO
import HCPostgres

/// Copies of what clinics read often and change seldom: in this process' memory, in Redis, in the shard.
///
/// `CacheMachine` says what may be used and kept, and why no read that begins after a commit sees a value from
/// before it; this asks the source, Redis and the shard, and wakes those who wait. Everything that changes what is
/// copied goes through `change`.
@LoopActor
final class TenantCache {
    /// How a flight ended for those who joined it.
    private enum Outcome {
        case answer(CacheAnswer)
        case failed(any Error)
        /// Its leader alone gave up: ask again.
        case abandoned
    }

    typealias Reader = @LoopActor () async throws -> CachedValue?
    typealias Statements =
        @LoopActor (EnterMode, [Query], Deadline) async throws -> [PostgresResult]

    let shared: SharedCache
    let metrics: CacheMetrics
    private let coherence: Coherence?
    private let configuration: CacheConfiguration
    private let clocks: Clocks
    private let logger: Logger
    private var machine: CacheMachine
    private var waiters: [CacheMachine.FlightID: [Waiter<Outcome>]] = [:]
    private var random = SystemRandomNumberGenerator()

    init(
        shared: SharedCache, coherence: Coherence?, _ configuration: CacheConfiguration,
        clocks: Clocks, logger: Logger, metrics: CacheMetrics
    ) {
        self.shared = shared
        self.coherence = coherence
        self.configuration = configuration
        self.clocks = clocks
        self.logger = logger
        self.metrics = metrics
        machine = CacheMachine(
            memory: MemoryCache(
                MemoryCache.Limits(
                    bytesMax: configuration.memoryBytesMax,
                    entriesMax: configuration.memoryEntriesMax)),
            waitingMax: configuration.waitingMax)
        coherence?.onVoid.append { [weak self] tenant, names in self?.void(tenant, names) }
    }

    func memoryBytes(of tenant: TenantID) -> Int { machine.memory.bytes(of: tenant) }

    private func void(_ tenant: TenantID?, _ names: VoidedNames) {
        machine.void(tenant, names)
        if names.contains(CacheTag.shared.name) { shared.distrust(tenant) }
    }

    // MARK: Reading

    /// One clinic's side of a question.
    struct Clinic {
        /// As the newest map has it.
        var record: TenantRecord
        var quota: MemoryCache.Quota
        var keys: () throws -> TenantKeys
        var run: Statements
    }

    /// The value of a key: a copy, or what `read` brings.
    ///
    /// - Parameter read: reads the source, and nothing else than what the key's tags name; nil if there is nothing.
    ///   Others may get what it brings: it must not depend on who asks.
    /// - Throws: what `read` throws; `.overloaded`, `.deadlineExceeded`, `.cancelled` of waiting for another's read.
    func value(
        _ spec: CacheKey, of clinic: Clinic, deadline: Deadline, _ read: Reader
    ) async throws -> CachedValue? {
        let since = machine.arrive()
        let key = CacheMachine.Key(
            tenant: clinic.record.id, epoch: clinic.record.epoch, name: spec.name)
        while true {
            let step = machine.next(
                key, since: since, agreement(spec, key.tenant), now: clocks.monotonic(),
                wallClock: clocks.now())
            switch step {
            case .copy(let answer):
                metrics.hit(.memory)
                return answer.value
            case .lead(let flight):
                metrics.missed(.memory)
                return try await lead(flight, key, spec, clinic, deadline, read).value
            case .join(let flight):
                metrics.joined.increment()
                switch try await wait(enlist(flight), deadline) {
                case .answer(let answer): return answer.value
                case .failed(let error): throw error
                case .abandoned: continue
                }
            case .wait(let flight): _ = try await wait(enlist(flight), deadline)
            case .refuse: throw TenancyError.overloaded(retryAfter: .seconds(1))
            }
        }
    }

    private func agreement(_ spec: CacheKey, _ tenant: TenantID) -> CacheAgreement {
        guard let coherence else {
            return CacheAgreement(mayUse: false, ticket: { nil }, isCurrent: { _ in false })
        }
        let names = spec.tagNames
        return CacheAgreement(
            mayUse: coherence.mayUseCopies(of: tenant)
                && !names.contains { coherence.isHeld($0, of: tenant) },
            ticket: { coherence.ticket(for: tenant) },
            isCurrent: { coherence.isCurrent($0, of: tenant, names) })
    }

    /// In the same stretch as the machine's step: an `await` may let others run, and the flight end.
    private func enlist(_ flight: CacheMachine.FlightID) -> Waiter<Outcome> {
        let waiter = Waiter<Outcome>()
        waiters[flight, default: []].append(waiter)
        return waiter
    }

    private func wait(
        _ waiter: Waiter<Outcome>, _ deadline: Deadline
    ) async throws(TenancyError) -> Outcome {
        do {
            return try await waiter.wait(until: deadline)
        } catch is DeadlineExceeded {
            throw .deadlineExceeded
        } catch {
            throw .cancelled
        }
    }

    private func end(_ flight: CacheMachine.FlightID, _ outcome: Outcome) {
        for waiter in waiters.removeValue(forKey: flight) ?? [] { waiter.succeed(outcome) }
    }

    private func lead(
        _ flight: CacheMachine.FlightID, _ key: CacheMachine.Key, _ spec: CacheKey,
        _ clinic: Clinic, _ deadline: Deadline, _ read: Reader
    ) async throws -> CacheAnswer {
        do {
            let (answer, ticket) = try await fetch(flight, key, spec, clinic, deadline, read)
            let life = answer.value == nil ? configuration.nothingLife : configuration.memoryLife
            let now = clocks.monotonic()
            let landing = machine.land(
                flight, key, spec, answer, agreement(spec, key.tenant), quota: clinic.quota,
                now: now, expiresAt: now + configuration.jittered(life, using: &random))
            metrics.update(machine.memory)
            switch landing {
            case .kept: metrics.filled(.memory)
            case .refused(let refusal): metrics.refused(refusal)
            }
            end(flight, .answer(answer))
            if let ticket, landing == .kept || landing == .refused(.room) {
                share(spec, clinic, answer, ticket)
            }
            return answer
        } catch {
            machine.fail(flight, key)
            end(flight, TenantCache.isOwn(error) ? .abandoned : .failed(error))
            throw error
        }
    }

    /// Whether the error is the leader's alone.
    private static func isOwn(_ error: any Error) -> Bool {
        switch error {
        case is CancellationError, is DeadlineExceeded, TenancyError.deadlineExceeded,
            TenancyError.cancelled:
            true
        default: false
        }
    }

    /// Redis, then the shard's models, then the source.
    private func fetch(
        _ flight: CacheMachine.FlightID, _ key: CacheMachine.Key, _ spec: CacheKey,
        _ clinic: Clinic, _ deadline: Deadline, _ read: Reader
    ) async throws -> (CacheAnswer, SharedCache.Ticket?) {
        var ticket: SharedCache.Ticket?
        if machine.isOpen(flight, key, agreement(spec, key.tenant)),
            coherence?.isHeld(CacheTag.shared.name, of: key.tenant) == false
        {
            switch await shared.look(
                spec, of: clinic.record, keys: clinic.keys, deadline: deadline)
            {
            case .copy(let answer):
                metrics.hit(.redis)
                return (answer, nil)
            case .missing(let seen):
                ticket = seen
                metrics.missed(.redis)
            case .none: metrics.missed(.redis)
            }
        } else {
            metrics.withoutLease.increment()
        }
        guard spec.isReadModel else { return (try await answer(read), ticket) }
        let models = ReadModels(record: clinic.record)
        let rows = try await clinic.run(.read, [models.find(spec)], deadline)
        let found = try ReadModels.found(try rows[0].single())
        if let body = found.body {
            if let answer = CacheSeal.open(
                body[...], spec, epoch: clinic.record.epoch, keys: clinic.keys,
                CacheRecord.Limits(configuration)), answer.isGood(at: clocks.now())
            {
                metrics.hit(.shard)
                return (answer, ticket)
            }
            metrics.unreadable.increment()
        }
        metrics.missed(.shard)
        let answer = try await answer(read)
        keep(spec, clinic, answer, models, counts: found.counts)
        return (answer, ticket)
    }

    private func answer(_ read: Reader) async throws -> CacheAnswer {
        if let value = try await read() { .value(value) } else { .nothing }
    }

    /// Nobody waits for the copy in Redis.
    private func share(
        _ spec: CacheKey, _ clinic: Clinic, _ answer: CacheAnswer, _ ticket: SharedCache.Ticket
    ) {
        let full = answer.value == nil ? configuration.nothingLife : configuration.sharedLife
        let life = configuration.jittered(full, using: &random)
        Loop.shared.spawn { [self] in
            await shared.fill(
                spec, of: clinic.record, answer, ticket, life: life, keys: clinic.keys,
                deadline: .never)
        }
    }

    /// Nobody waits for the model either.
    private func keep(
        _ spec: CacheKey, _ clinic: Clinic, _ answer: CacheAnswer, _ models: ReadModels,
        counts: String
    ) {
        guard answer.value != nil,
            let body = CacheSeal.close(
                answer, spec, epoch: clinic.record.epoch, keys: clinic.keys,
                CacheRecord.Limits(configuration))
        else { return }
        let life = configuration.jittered(configuration.modelLife, using: &random)
        let deadline = Deadline.after(.seconds(5), from: clocks.monotonic())
        Loop.shared.spawn { [self] in
            do {
                let results = try await clinic.run(
                    .write,
                    [
                        models.sweep(),
                        models.fill(spec, body: body, counts: counts, life: life),
                    ], deadline)
                if results[1].affectedRows == 0 {
                    metrics.refused(.shard)
                } else {
                    metrics.filled(.shard)
                }
            } catch {
                // It is a copy: the next reader makes it.
                logger.debug("a read model is not kept", [("error", .string("\(error)"))])
            }
        }
    }

    // MARK: Changing

    /// Commits a change of what may be copied: announced before, over when it is done.
    ///
    /// - Parameter commit: gets the time by which the commit must have been sent. It has committed, or it throws; only
    ///   `outcomeUnknown` says that it may have committed all the same.
    /// - Returns: when the change is committed and nobody can see what was before.
    func change<Value>(
        _ tags: [CacheTag], of record: TenantRecord, prefixes: [String], deadline: Deadline,
        _ commit: (Deadline) async throws -> Value
    ) async throws -> Value {
        guard !tags.isEmpty, let coherence else { return try await commit(deadline) }
        let announcement = await announce(tags, record, prefixes, coherence, deadline)
        let value: Value
        do {
            value = try await commit(
                deadline.earlier(of: Deadline(announcement.endsAt - configuration.holdMargin)))
        } catch {
            // What may still be committed stays held until it can be no more.
            if !TenantCache.isInDoubt(error) { release(announcement, coherence) }
            throw error
        }
        if clocks.monotonic() >= announcement.endsAt {
            metrics.holdsOutlived.increment()
            release(await announce(tags, record, prefixes, coherence, deadline), coherence)
        } else if !announcement.isTold {
            // Processes that reached Redis before this one did may have copied what was before.
            _ = await coherence.hold(announcement.names, of: record.id, for: .zero)
        }
        release(announcement, coherence)
        return value
    }

    private static func isInDoubt(_ error: any Error) -> Bool {
        switch error {
        case TenancyError.outcomeUnknown: true
        case let error as PostgresError: error.outcomeIsUnknown
        default: false
        }
    }

    private struct Announcement {
        var name: UUID
        var tags: [CacheTag]
        var record: TenantRecord
        var prefixes: [String]
        var holds: [CopyHold]
        var names: [String]
        var isShared: Bool
        var endsAt: MonotonicTime
        var isTold: Bool { isShared && holds.allSatisfy(\.isTold) }
    }

    /// Tells every process and Redis, in one round trip to Redis and one to those who have copies.
    private func announce(
        _ tags: [CacheTag], _ record: TenantRecord, _ prefixes: [String], _ coherence: Coherence,
        _ deadline: Deadline
    ) async -> Announcement {
        let begin = clocks.monotonic()
        var random = SystemRandom()
        let name = UUID.v7(at: clocks.now(), using: &random)
        let tags = Array(Set(tags)).sorted()
        var names = tags.map(\.name)
        metrics.holds.increment()
        // Both are sent in this tick.
        let sharing = Waiter<Bool>()
        Loop.shared.spawn { [self] in
            sharing.succeed(
                await shared.hold(
                    tags, of: record, prefixes: prefixes, name: name, deadline: deadline))
        }
        var holds = [await coherence.hold(names, of: record.id, for: configuration.holdLife)]
        let isShared: Bool
        do {
            isShared = try await sharing.wait(until: .never)
        } catch {
            isShared = false
        }
        if !isShared {
            metrics.holdsUnshared.increment()
            names.append(CacheTag.shared.name)
            holds.append(
                await coherence.hold(
                    [CacheTag.shared.name], of: record.id, for: configuration.holdLife))
        }
        metrics.holdLatency.observe(clocks.monotonic() - begin)
        return Announcement(
            name: name, tags: tags, record: record, prefixes: prefixes, holds: holds,
            names: names, isShared: isShared, endsAt: begin + configuration.holdLife)
    }

    private func release(_ announcement: Announcement, _ coherence: Coherence) {
        for hold in announcement.holds { coherence.release(hold) }
        Loop.shared.spawn { [self] in
            await shared.release(
                announcement.tags, of: announcement.record, prefixes: announcement.prefixes,
                name: announcement.name)
        }
    }
}
