import HCCore
import HCIO
import HCRedis

/// What the gate says about a request.
package struct GateAnswer: Sendable {
    package let limit: RateDecision
    /// `.unknown` for requests without a session as well.
    package let session: SessionLookup
}

/// Decides about each request by its clinic's limit, and looks its session up on the way.
@LoopActor
final class Gate {
    /// Redis is asked within this time or not at all: it is on the way of every request.
    static let timeout = Duration.milliseconds(100)
    /// After a timeout Redis is left alone for as long as this, so that a hanging one does not slow every
    /// request down.
    static let restAfterTimeout = Duration.seconds(1)

    private let redis: RedisClient?
    private let sessions: SessionCache
    private let metrics: TenancyMetrics
    private var shares: LocalShares
    private var restUntil = Deadline(.zero)

    init(
        redis: RedisClient?, sessions: SessionCache, processes: Int, sharesMax: Int,
        metrics: TenancyMetrics
    ) {
        self.redis = redis
        self.sessions = sessions
        self.metrics = metrics
        shares = LocalShares(processes: processes, tenantsMax: sharesMax)
    }

    func pass(
        _ tenant: TenantRecord, tier: TierDefinition, session: SessionID?, cost: RequestCost,
        now: Timestamp, deadline: Deadline
    ) async -> GateAnswer {
        let answer = await ask(tenant, tier: tier, session: session, cost: cost, deadline: deadline)
        guard let (answer, connection) = answer else {
            metrics.gateLocal.increment()
            let decision = shares.take(
                cost.units, of: tenant.id, tier: tier, at: Loop.shared.now)
            if !decision.isAllowed { metrics.gateRefused.increment() }
            return GateAnswer(limit: decision, session: .unknown(nil))
        }
        if !answer.isAllowed { metrics.gateRefused.increment() }
        let decision = RateDecision(
            isAllowed: answer.isAllowed, capacity: tier.bucketBurst,
            windowSeconds: max(
                1, (tier.bucketBurst + tier.bucketUnitsPerSecond - 1) / tier.bucketUnitsPerSecond),
            remaining: answer.remaining, retryAfter: answer.isAllowed ? nil : answer.retryAfter,
            resetAfter: answer.resetAfter, isLocal: false)
        return GateAnswer(
            limit: decision,
            session: sessions.judge(
                answer.session, redisNow: answer.now, connection: connection, now: now))
    }

    private func ask(
        _ tenant: TenantRecord, tier: TierDefinition, session: SessionID?, cost: RequestCost,
        deadline: Deadline
    ) async -> (GateScript.Answer, connection: MonotonicTime)? {
        guard let redis, let connection = redis.connectedSince,
            restUntil.isExpired(at: Loop.shared.now)
        else { return nil }
        let prefix = tenant.redisPrefix
        var keys: [RedisArgument] = [.text(prefix + "bucket")]
        if let session { keys.append(.text(prefix + SessionCache.name(of: session))) }
        do throws(RedisError) {
            let value = try await redis.evaluate(
                GateScript.script, keys: keys,
                arguments: [
                    .integer(Int64(cost.units)), .integer(Int64(tier.bucketBurst)),
                    .integer(Int64(tier.bucketUnitsPerSecond)),
                ], deadline: deadline.earlier(of: .after(Gate.timeout, from: Loop.shared.now)))
            // An answer over another connection than the one we looked at says nothing about its age.
            guard redis.connectedSince == connection, let answer = GateScript.Answer(value) else {
                return nil
            }
            return (answer, connection)
        } catch {
            if case .deadlineExceeded(sent: true) = error {
                restUntil = .after(Gate.restAfterTimeout, from: Loop.shared.now)
            }
            return nil
        }
    }
}

extension TierDefinition {
    /// The bucket that counts everything that a clinic does.
    private var bucket: RateRule? {
        rates.first { $0.scope == .tenant && $0.classes == nil && $0.algorithm == .tokenBucket }
    }

    package var bucketBurst: Int { bucket?.capacity ?? RequestCost.largest }

    package var bucketUnitsPerSecond: Int {
        guard let bucket else { return 10 }
        return max(1, Int(Int64(bucket.units) * 1000 / max(1, bucket.window.inMilliseconds)))
    }
}
