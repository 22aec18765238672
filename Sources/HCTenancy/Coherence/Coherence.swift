import HCCore
package import HCIO
import HCRedis

/// A void that has begun: no process uses or makes copies of the names until it is released or its time is over.
package struct CopyHold: Sendable {
    let tenant: TenantID
    let id: VoidID
    let names: [String]
    /// Those who were told, and are to be told of the end.
    fileprivate(set) var holders: [String] = []
    /// Redis knows of it. Otherwise it is told afterwards that the names were voided.
    fileprivate(set) var isTold = false
}

/// Lets processes keep copies in memory of what they share, and nobody see a copy from before a change.
///
/// Whoever changes something `hold`s the names of what it was copied under, commits, and `release`s. When `hold`
/// returns, no process in the world can use such a copy, nor make one before the release: each has acknowledged
/// that, or its lease has run out (Gray and Cheriton, "Leases", 1989). What processes may do is `CopyLedger`'s;
/// this tells them.
///
/// Without Redis nobody's lease lasts longer than `leaseLife`, and so long the first who changes something then
/// waits. A process that alone is cut off from Redis cannot know of others' leases: it waits as long, and what they
/// have copied holds until it reaches Redis again, which it tries all the time, or until the copy's own end.
@LoopActor
package final class Coherence: Service {
    let redis: RedisClient
    /// Waits for messages, and so is nobody else's; nil for programs that only change things.
    let reader: RedisClient?
    let limits: CoherenceLimits
    let metrics: CoherenceMetrics
    let logger: Logger
    var ledger: CopyLedger
    /// The name of this process, a new one for each time that it begins anew.
    var process: String
    var random = SystemRandomNumberGenerator()
    /// Called at once when copies are to be dropped; with nil for those of all clinics.
    package var onVoid: [@LoopActor (TenantID?, VoidedNames) -> Void] = []

    private var run: (connection: MonotonicTime, id: String)?
    private var voids: UInt64 = 0
    private var waits: [VoidID: AcknowledgementWait] = [:]
    /// Since when Redis could not be asked.
    private var outageSince: MonotonicTime?
    /// The task that registers clinics, while there is one.
    private(set) var registering: Task<Void, Never>?
    /// Open once this process has had a lease.
    let begun = HCIO.Gate()
    /// What was held before Redis forgot it may be held until then: no clinic is registered.
    private var quietUntil = MonotonicTime.zero
    /// This process takes part no more.
    private(set) var hasLeft = false
    private var untold: RingBuffer<(TenantID, [String])>
    /// The task that tells Redis later, while there is one.
    private(set) var telling: Task<Void, Never>?

    init(redis: RedisClient, _ setup: CoherenceSetup, logger: Logger) {
        self.redis = redis
        self.logger = logger
        reader = setup.reader
        limits = setup.limits
        metrics = setup.metrics
        ledger = CopyLedger(limits: limits)
        process = Coherence.name(using: &random)
        untold = RingBuffer(capacityMax: limits.untoldMax)
        if redis.state != .ready { outageSince = Loop.now }
        redis.observe { [weak self] state in
            guard let self, state != .ready else { return }
            outageSince = outageSince ?? Loop.now
        }
    }

    static func name(using random: inout SystemRandomNumberGenerator) -> String {
        String(random.next(), radix: 16) + String(random.next(), radix: 16)
    }

    package var serviceName: String { "copies" }

    // MARK: Using copies

    /// Whether copies of the clinic's data may be used now. Costs no more than two look-ups in memory.
    package func mayUseCopies(of tenant: TenantID) -> Bool {
        let isAllowed = ledger.mayUse(tenant, at: Loop.now)
        if ledger.hasWanted, registering == nil { register() }
        return isAllowed
    }

    /// To be asked for before the source is read.
    /// - Returns: nil if what is read may not be kept.
    package func ticket(for tenant: TenantID) -> CopyTicket? {
        guard mayUseCopies(of: tenant) else { return nil }
        return ledger.ticket(tenant, at: Loop.now)
    }

    /// Whether what was read since may be kept under these names.
    package func isCurrent(_ ticket: CopyTicket, of tenant: TenantID, _ names: [String]) -> Bool {
        ledger.isCurrent(ticket, tenant, names, at: Loop.now)
    }

    package func isHeld(_ name: String, of tenant: TenantID) -> Bool {
        ledger.isHeld(tenant, name, at: Loop.now)
    }

    /// Ends this process' part, so that nobody waits for its lease to run out. Copies are not used from now on.
    package func leave() async {
        hasLeft = true
        let keys = [CoherenceScripts.lease(of: process), CoherenceScripts.inbox(of: process)]
        beginAnew()
        do throws(RedisError) {
            _ = try await redis.send(["DEL"] + keys.map { .text($0) }, deadline: soon)
        } catch {
            logger.debug("a lease ends by itself", [("error", .string("\(error)"))])
        }
    }

    /// Nobody counts on this process any more: it goes on under another name, without copies.
    func beginAnew() {
        ledger.lost()
        process = Coherence.name(using: &random)
        metrics.isTrusted.set(0)
        metrics.clinics.set(0)
        drop(nil, .all)
    }

    private func register() {
        registering = Loop.shared.spawn { [self] in
            // Not at once: what else is wanted in this tick goes with it.
            await Task.yield()
            while ledger.hasWanted { await registerBatch() }
            registering = nil
        }
    }

    private func registerBatch() async {
        guard Loop.now >= quietUntil else { return ledger.dropWanted() }
        let run: String
        do throws(RedisError) {
            run = try await currentRun()
        } catch {
            return ledger.dropWanted()
        }
        let (tenants, forgotten) = ledger.takeWanted(at: Loop.now)
        let (era, process) = (ledger.era, process)
        for tenant in forgotten { drop(tenant, .all) }
        do throws(RedisError) {
            let replies = try await redis.evaluate(
                CoherenceScripts.register,
                tenants.map {
                    RedisScriptCall(
                        keys: [
                            .text(CoherenceScripts.key(of: $0)), .text(CoherenceScripts.born),
                        ],
                        arguments: [
                            .text(process), .integer(limits.keyLife.inMilliseconds), .text(run),
                            .integer(CoherenceLimits.holdLifeMax.inMicroseconds),
                        ])
                }, deadline: soon)
            for (tenant, reply) in zip(tenants, replies) {
                if let left = reply.asInteger {
                    quietUntil = Loop.now + .microseconds(left)
                    continue
                }
                guard let holds = CopyLedger.Hold.list(reply) else { continue }
                ledger.registered(tenant, holds, era: era, at: Loop.now)
            }
        } catch {
            // Then nobody is registered, and whoever asks next asks again.
            logger.debug("copies are not agreed on", [("error", .string("\(error)"))])
        }
        metrics.clinics.set(ledger.count)
    }

    var soon: Deadline { .after(limits.redisTimeout, from: Loop.now) }

    func drop(_ tenant: TenantID?, _ names: VoidedNames) {
        for observer in onVoid { observer(tenant, names) }
    }

    // MARK: Changing what is copied

    /// Makes sure that no process uses a copy of these names from now on, or makes one before the release.
    ///
    /// To be called before the change is committed, which must have happened, or be certain not to happen any more,
    /// within `life` of the call. A change whose outcome is not known is not released.
    ///
    /// - Parameters:
    ///   - names: at most `CoherenceLimits.namesMax`, each of at most `nameBytesMax` bytes without line breaks.
    ///   - life: at most `CoherenceLimits.holdLifeMax`; zero for what is committed already: then there is nothing to release.
    /// - Returns: in one round trip to Redis and one to those who have copies; after `leaseLife` at the latest.
    package func hold(
        _ names: [String], of tenant: TenantID, for life: Duration
    ) async -> CopyHold {
        precondition(life <= CoherenceLimits.holdLifeMax, "a hold is short")
        precondition(!names.isEmpty && names.count <= CoherenceLimits.namesMax, "a few names")
        precondition(
            names.allSatisfy {
                $0.utf8.count <= CoherenceLimits.nameBytesMax && !$0.contains("\n")
            }, "a name is short and a line")
        voids += 1
        var hold = CopyHold(
            tenant: tenant, id: VoidID(text: "\(process):\(voids)"), names: names)
        let begin = Loop.now
        void(tenant, hold.id, names, life)
        metrics.voids.increment()
        for attempt in 1...2 {
            do throws(RedisError) {
                try await tell(&hold, life: life)
                outageSince = nil
                hold.isTold = true
                break
            } catch {
                let since = outageSince ?? begin
                outageSince = since
                // Nobody's lease can be renewed meanwhile, and after that nobody has one.
                if attempt == 1 { await wait(until: since + limits.leaseLife) }
            }
        }
        if !hold.isTold {
            metrics.untold.increment()
            if life == .zero { remember(hold) }
        }
        metrics.wait.observe(Loop.now - begin)
        return hold
    }

    /// Ends a hold: the change is committed, or will not be. Returns at once; who has not heard of it waits for the
    /// hold's own end.
    package func release(_ hold: CopyHold) {
        ledger.released(hold.tenant, hold.id)
        guard hold.isTold else {
            // Whoever copied while Redis was away copied what has just been changed.
            void(hold.tenant, hold.id, hold.names, .zero)
            remember(hold)
            return
        }
        Loop.shared.spawn { [self] in
            do throws(RedisError) {
                _ = try await redis.send(
                    [
                        "HDEL", .text(CoherenceScripts.key(of: hold.tenant)),
                        .text("h:" + hold.id.text),
                    ], deadline: soon)
                let message = CoherenceMessage.release(hold.tenant, hold.id)
                _ = try await post(message, to: hold.holders)
            } catch {
                logger.debug("a hold ends by itself", [("error", .string("\(error)"))])
            }
        }
    }

    private func void(_ tenant: TenantID, _ id: VoidID, _ names: [String], _ life: Duration) {
        let hold = CopyLedger.Hold(id: id, names: VoidedNames(names), left: life)
        if ledger.voided(tenant, hold, at: Loop.now) { drop(tenant, hold.names) }
    }

    /// Tells Redis, and everybody who may have copies, and waits for them.
    private func tell(_ hold: inout CopyHold, life: Duration) async throws(RedisError) {
        let run = try await currentRun()
        let reply = try await redis.evaluate(
            CoherenceScripts.begin,
            keys: [
                .text(CoherenceScripts.key(of: hold.tenant)), .text(CoherenceScripts.born),
            ],
            arguments: [
                .text(hold.id.text), .integer(life.inMicroseconds),
                .text(hold.names.joined(separator: "\n")),
                .integer(limits.keyLife.inMilliseconds), .text(run),
            ], deadline: soon)
        guard let parts = reply.asArray, parts.count >= 2, let age = parts[0].asInteger,
            let born = parts[1].asString, parts.count <= limits.holdersMax
        else { throw .unexpectedReply }
        // Whoever was registered before this moment is told by us, and whoever comes after it by Redis: this process
        // may have come in between.
        void(hold.tenant, hold.id, hold.names, life)
        // Processes that Redis has forgotten have what is left of their leases.
        let forgottenUntil = Loop.now + (limits.leaseLife - .microseconds(age))
        let others = parts.dropFirst(2).compactMap(\.asString).filter { $0 != process }
        if !others.isEmpty { try await ask(others, born: born, about: &hold, life: life) }
        await wait(until: forgottenUntil)
    }

    private func ask(
        _ others: [String], born: String, about hold: inout CopyHold, life: Duration
    ) async throws(RedisError) {
        let wait = AcknowledgementWait()
        waits[hold.id] = wait
        defer { waits[hold.id] = nil }
        let message = CoherenceMessage.void(
            hold.tenant, hold.id, names: hold.names, life: life, process: process)
        var gone: [String] = []
        for (other, left) in zip(others, try await post(message, to: others, born: born)) {
            if left > .zero {
                hold.holders.append(other)
                wait.expect(other, until: Loop.now + left)
            } else {
                gone.append(other)
            }
        }
        if await !wait.finish() { metrics.expiredWaits.increment() }
        if !gone.isEmpty { forget(gone, of: hold.tenant) }
    }

    private func currentRun() async throws(RedisError) -> String {
        guard let connection = redis.connectedSince else { throw .unavailable }
        if let run, run.connection == connection { return run.id }
        let id = try await redis.runID(deadline: soon)
        // Another connection meanwhile may lead to another Redis.
        guard redis.connectedSince == connection else { throw .connectionLost }
        run = (connection, id)
        return id
    }

    /// - Parameter born: what Redis said when it named the processes; where that has changed it may have forgotten
    ///   leases that hold.
    /// - Returns: what is left of each one's lease; zero for who is gone.
    @discardableResult
    func post(
        _ message: CoherenceMessage, to processes: [String], born: String = ""
    ) async throws(RedisError) -> [Duration] {
        guard !processes.isEmpty else { return [] }
        let life = limits.leaseLife * 30
        let replies = try await redis.evaluate(
            CoherenceScripts.tell,
            processes.map {
                RedisScriptCall(
                    keys: [
                        .text(CoherenceScripts.lease(of: $0)),
                        .text(CoherenceScripts.inbox(of: $0)), .text(CoherenceScripts.born),
                    ],
                    arguments: [
                        .text(message.text), .integer(life.inMilliseconds), .text(born),
                        .integer(limits.leaseLife.inMilliseconds),
                    ])
            }, deadline: soon)
        // Of whom nothing is known it is believed that a lease has just begun.
        return replies.map { $0.asInteger.map { .milliseconds($0) } ?? limits.leaseLife }
    }

    /// Nobody waits for the dead again.
    private func forget(_ processes: [String], of tenant: TenantID) {
        Loop.shared.spawn { [self] in
            do throws(RedisError) {
                _ = try await redis.send(
                    ["HDEL", .text(CoherenceScripts.key(of: tenant))]
                        + processes.map { .text("p:" + $0) }, deadline: soon)
            } catch {
                logger.debug("a process is not forgotten", [("error", .string("\(error)"))])
            }
        }
    }

    /// Waits in a task that is cancelled as well: what follows may be a commit.
    private func wait(until time: MonotonicTime) async {
        guard time > Loop.now else { return }
        let end = HCIO.Gate()
        _ = Loop.shared.schedule(at: Deadline(time)) { end.open() }
        await end.wait()
    }

    func acknowledged(_ id: VoidID, by process: String) {
        waits[id]?.acknowledged(by: process)
    }

    // MARK: What Redis has not heard of

    /// Voids that Redis will be told of.
    var untoldCount: Int { untold.count }

    private func remember(_ hold: CopyHold) {
        if untold.appendDroppingFirst((hold.tenant, hold.names)) != nil {
            metrics.untoldDropped.increment()
        }
        guard telling == nil else { return }
        telling = Loop.shared.spawn { [self] in
            await tellLater()
            telling = nil
        }
    }

    private func tellLater() async {
        var backoff = Backoff(initial: .milliseconds(20), maximum: .seconds(1))
        while let (tenant, names) = untold.first {
            voids += 1
            var hold = CopyHold(
                tenant: tenant, id: VoidID(text: "\(process):\(voids)"), names: names)
            do {
                try await tell(&hold, life: .zero)
                _ = untold.popFirst()
                backoff.reset()
            } catch {
                do throws(CancellationError) {
                    try await Loop.shared.sleep(for: backoff.next(using: &random))
                } catch {
                    return
                }
            }
        }
    }
}
