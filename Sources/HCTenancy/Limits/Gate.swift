import HCCore
import HCIO
import HCRedis

/// What the gate says about a request.
package struct GateAnswer: Sendable {
    package let limit: RateDecision
    /// `.unknown` for requests without a session as well, and for those that the limit refuses.
    package let session: SessionLookup
}

/// Decides about each request by its clinic's limits, and looks its session up beside that: what both ask of Redis
/// leaves in one write.
///
/// `LimitMachine` decides; here are its questions to Redis, and the clock.
@LoopActor
final class Gate {
    /// Redis is asked within this time or not at all: it is on the way of every request.
    static let timeout = Duration.milliseconds(100)
    private static let sweepInterval = Duration.milliseconds(250)
    /// Questions that are asked in one pipeline.
    private static let questionsMax = 256
    /// What is told about limits may be as old as this.
    private static let reportAge = Duration.seconds(1)

    private let redis: RedisClient?
    private let sessions: SessionCache
    let machine: LimitMachine
    /// The longest that a request waits for its decision: others' questions, `roundsMax` of them, and its own.
    private let patience: Duration
    private var sweeping: Timer?
    private var isLaunching = false
    private var birth = RedisBirth()
    /// The connection for which `birth` was asked.
    private var bornOn: MonotonicTime?

    init(
        redis: RedisClient?, sessions: SessionCache, processes: Int,
        limits: LimitMachine.Limits = LimitMachine.Limits(), metrics: LimitMetrics
    ) {
        self.redis = redis
        self.sessions = sessions
        machine = LimitMachine(processes: processes, limits: limits, metrics: metrics)
        patience = Gate.timeout * (limits.roundsMax + 2)
    }

    private var isConnected: Bool { redis?.connectedSince != nil }

    /// - Parameter session: to be looked up; nil if there is none, or if it is known without Redis.
    func pass(
        _ request: LimitRequest, of clinic: TenantLimits, session: SessionID?, now: Timestamp,
        deadline: Deadline
    ) async -> GateAnswer {
        let prefix = clinic.redisPrefix
        let targets = machine.targets(of: request, clinic)
        if let decided = machine.decide(
            request, clinic, targets, now: Loop.now, isConnected: isConnected)
        {
            launchQuestions()
            guard decided.isAllowed, let session else {
                return GateAnswer(limit: decided, session: .unknown(nil))
            }
            return GateAnswer(
                limit: decided,
                session: await lookUp(session, prefix: prefix, now: now, deadline: deadline))
        }
        let pending = machine.ask(request, clinic, targets, now: Loop.now)
        launchQuestions()
        let timer = timer(for: pending, deadline)
        defer { timer?.cancel() }
        // While Redis may be away only one request at a time finds out; its session waits for that.
        var found: SessionLookup?
        if let session, !machine.isAway(at: Loop.now) {
            found = await lookUp(session, prefix: prefix, now: now, deadline: deadline)
        }
        let limit = await pending.value()
        if found == nil, let session, limit.isAllowed {
            found = await lookUp(session, prefix: prefix, now: now, deadline: deadline)
        }
        return GateAnswer(limit: limit, session: found ?? .unknown(nil))
    }

    /// Every question has its answer, or has failed, within `timeout`: a request that has more time than all that it may
    /// have to wait for needs no timer. At the end of its time it is decided here, as nobody will wait for more.
    private func timer(for pending: PendingLimit, _ deadline: Deadline) -> Timer? {
        guard deadline.time <= Loop.now + patience else { return nil }
        return Loop.shared.schedule(at: deadline) { [machine] in
            guard !pending.isDone else { return }
            pending.finish(
                machine.decideAlone(
                    pending.request, machine.targets(of: pending.request, pending.clinic),
                    Loop.now))
        }
    }

    /// As `pass`, for a request whose session is known, if it can be decided here.
    func passNow(_ request: LimitRequest, of clinic: TenantLimits) -> RateDecision? {
        let decided = machine.decide(
            request, clinic, machine.targets(of: request, clinic), now: Loop.now,
            isConnected: isConnected)
        launchQuestions()
        return decided
    }

    private func lookUp(
        _ session: SessionID, prefix: String, now: Timestamp, deadline: Deadline
    ) async -> SessionLookup {
        guard isConnected, !machine.isAway(at: Loop.now) else { return .unknown(nil) }
        let found = await sessions.lookUp(
            [session], prefix: prefix, now: now, deadline: deadline)[0]
        if case .unknown(nil) = found, !deadline.isExpired(at: Loop.now) {
            machine.lookUpFailed(now: Loop.now)
        }
        return found
    }

    // MARK: Questions

    /// The questions of one tick leave together: one task and one deadline for all of them.
    private func launchQuestions() {
        if !isLaunching, !machine.outbox.isEmpty {
            isLaunching = true
            // Its turn comes after that of everybody who waits to be served in this tick.
            _ = Loop.shared.makeTask {
                self.isLaunching = false
                var flights = self.machine.takeOutbox()[...]
                while flights.count > Gate.questionsMax {
                    let some = flights.prefix(Gate.questionsMax)
                    Loop.shared.spawn { await self.run(some) }
                    flights = flights.dropFirst(Gate.questionsMax)
                }
                await self.run(flights)
            }
        }
        // While Redis is away too: what is left of the grace is shown.
        if sweeping == nil, machine.isHolding || machine.isAway(at: Loop.now) {
            scheduleSweep()
        }
    }

    private func run(_ flights: ArraySlice<LimitFlight>) async {
        do throws(RedisError) {
            let replies = try await ask(flights)
            for (flight, reply) in zip(flights, replies) {
                if let answer = LimitAnswer(reply, to: flight.questions.parts) {
                    machine.answered(flight, answer, now: Loop.now)
                } else {
                    let reason: LimitMetrics.Failure = reply.asError == nil ? .garbage : .refused
                    machine.failed(flight, reason, now: Loop.now)
                }
            }
        } catch {
            let reason: LimitMetrics.Failure =
                switch error {
                case .unavailable, .connectionLost, .cancelled: .unavailable
                case .overloaded: .overloaded
                case .deadlineExceeded: .timeout
                case .server: .refused
                case .unexpectedReply: .garbage
                }
            for flight in flights { machine.failed(flight, reason, now: Loop.now) }
        }
        launchQuestions()
    }

    /// - Returns: one reply for each.
    private func ask(_ flights: ArraySlice<LimitFlight>) async throws(RedisError) -> [RESPValue] {
        guard let redis, let connection = redis.connectedSince else { throw .unavailable }
        let deadline = Deadline.after(Gate.timeout, from: Loop.now)
        let since = try await birth(redis, connection, deadline: deadline)
        // A question about three buckets has some 600 bytes.
        var runs = RedisCommands(reserving: flights.count * 640)
        for flight in flights { flight.write(to: &runs, birth: since) }
        return try await redis.evaluate(LimitScript.script, runs: runs, deadline: deadline)
    }

    /// Since when Redis has known everything: asked once for each connection.
    private func birth(
        _ redis: RedisClient, _ connection: MonotonicTime, deadline: Deadline
    ) async throws(RedisError) -> Int64 {
        if bornOn == connection { return birth.since }
        let mine = String(UInt64.random(in: .min ... .max), radix: 16)
        let value = try await redis.evaluate(
            LimitScript.birth, keys: [.name(LimitScript.birthKey)],
            arguments: [birth.isFirst ? "0" : "1", .text(mine)], deadline: deadline)
        guard let parts = value.asArray, parts.count == 2, let now = parts[0].asInteger,
            let mark = parts[1].asString, birth.learn(mark, now: now)
        else { throw .unexpectedReply }
        bornOn = connection
        return birth.since
    }

    // MARK: Sweeping

    private func scheduleSweep() {
        sweeping = Loop.shared.schedule(after: Gate.sweepInterval) { [weak self] in
            guard let self else { return }
            sweeping = nil
            machine.sweep(now: Loop.now)
            launchQuestions()
        }
    }

    // MARK: Telling

    /// As `report`, if Redis need not be asked for it; otherwise nothing is written.
    func reportNow(
        _ request: LimitRequest, of clinic: TenantLimits, to json: inout JSONWriter
    ) -> Bool {
        let now = Loop.now
        let targets = machine.targets(of: request, clinic, forAll: true)
        if isConnected, !machine.isAway(at: now),
            machine.look(clinic, targets, olderThan: Gate.reportAge, now: now) != nil
        {
            return false
        }
        machine.report(clinic, targets, now: now, to: &json)
        return true
    }

    /// Writes what is left of all rules that concern the request's clinic, account and address, at most a second old.
    func report(
        _ request: LimitRequest, of clinic: TenantLimits, to json: inout JSONWriter
    ) async {
        let now = Loop.now
        let targets = machine.targets(of: request, clinic, forAll: true)
        if isConnected, !machine.isAway(at: now),
            let flight = machine.look(clinic, targets, olderThan: Gate.reportAge, now: now)
        {
            await run([flight])
        }
        machine.report(
            clinic, machine.targets(of: request, clinic, forAll: true), now: Loop.now, to: &json)
    }
}
