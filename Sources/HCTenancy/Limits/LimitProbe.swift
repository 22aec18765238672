import Glibc
package import HCCore
package import HCIO
package import HCRedis

/// Measures what a decision costs on this machine: for `hc-admin limits probe`, which benchmarks run.
///
/// Three rules have a say in each request, of the clinic, the account and the address; none of them refuses. What is
/// told is the CPU time of this thread, all that a server spends on a decision but for its session.
@LoopActor
package final class LimitProbe {
    package struct Cost: Sendable {
        package let decisions: Int
        /// CPU time of one, in microseconds.
        package let microseconds: Double
        package let perSecond: Double
    }

    private let gate: Gate
    private let limits: TenantLimits
    private let address = LimitAddress(.ipv4(address: 0xc000_0201, port: 1))
    private let user = UUID(high: 1, low: 1)

    /// - Parameter redis: connected. The probe's keys are those of a clinic that does not exist; they expire at once.
    package init(redis: RedisClient, metrics: MetricsRegistry = .unread) {
        let tenancy = TenancyMetrics(metrics)
        gate = Gate(
            redis: redis,
            sessions: SessionCache(redis: nil, SessionCacheConfiguration(), metrics: tenancy),
            processes: 1, metrics: tenancy.limits)
        let tenant = TenantRecord(
            id: TenantID(UUID(high: 0, low: 1)), slug: "probe", name: "Probe", hosts: [],
            tierName: "probe", state: .provisioning, timeZone: "UTC", locale: "en",
            shard: ShardID("probe"), epoch: 0, placement: .opening, keys: [])
        let plan = LimitPlan(
            TierDefinition(
                name: "probe",
                rates: RateScope.allCases.map {
                    RateRule(
                        name: $0.rawValue, scope: $0, algorithm: .tokenBucket,
                        units: RateRule.unitsMax, per: .seconds(1), burst: RateRule.burstMax)
                }))
        limits = TenantLimits(plan, of: tenant, under: LimitMap(generation: 1))
    }

    private func request(isExact: Bool) -> LimitRequest {
        LimitRequest(
            kind: .default, units: 1, isExact: isExact, user: user, address: address)
    }

    /// One request after the other, with the units that this process has leased.
    ///
    /// - Throws: `ProbeError` if one of them was decided in another way.
    package func leased(_ count: Int, deadline: Deadline) async throws -> Cost {
        try await measure(count, by: [.lease, .redis], deadline: deadline) {
            for number in 0..<count {
                // As a server's loop does: questions go out and answers come in between requests.
                if number % 256 == 0 {
                    try await Loop.shared.sleep(until: Deadline(Loop.now))
                }
                // As it decides a request whose session it knows; any other costs a task more.
                let request = self.request(isExact: false)
                guard self.gate.passNow(request, of: self.limits) == nil else { continue }
                _ = await self.gate.pass(
                    request, of: self.limits, session: nil, now: .init(seconds: 0),
                    deadline: deadline)
            }
        }
    }

    /// `width` requests at a time, each asked of Redis.
    package func byRedis(_ count: Int, width: Int, deadline: Deadline) async throws -> Cost {
        try await measure(count / width * width, by: [.redis], deadline: deadline) {
            let tasks = (0..<width).map { _ in
                Loop.shared.spawn {
                    for _ in 0..<count / width {
                        _ = await self.gate.pass(
                            self.request(isExact: true), of: self.limits, session: nil,
                            now: .init(seconds: 0),
                            deadline: deadline)
                    }
                }
            }
            for task in tasks { await task.value }
        }
    }

    private func measure(
        _ count: Int, by origins: [RateDecision.Origin], deadline: Deadline,
        _ body: () async throws -> Void
    ) async throws -> Cost {
        let metrics = gate.machine.metrics
        let before = origins.map { metrics.decisions($0) }.reduce(0, +)
        let (cpu, wall) = (
            LimitProbe.clock(CLOCK_THREAD_CPUTIME_ID), LimitProbe.clock(CLOCK_MONOTONIC)
        )
        try await body()
        let spent = LimitProbe.clock(CLOCK_THREAD_CPUTIME_ID) - cpu
        let lasted = LimitProbe.clock(CLOCK_MONOTONIC) - wall
        let decided = origins.map { metrics.decisions($0) }.reduce(0, +) - before
        guard decided == UInt64(count) else {
            throw ProbeError(decided: Int(decided), of: count)
        }
        return Cost(
            decisions: count, microseconds: Double(spent) / 1000 / Double(count),
            perSecond: Double(count) * 1e9 / Double(max(1, lasted)))
    }

    /// Redis did not answer, or refused.
    package struct ProbeError: Error, CustomStringConvertible {
        package let decided: Int
        package let of: Int
        package var description: String {
            "only \(decided) of \(of) requests were decided as they should be: is Redis well?"
        }
    }

    /// man 2 clock_gettime.
    private static func clock(_ id: clockid_t) -> Int64 {
        var time = timespec()
        precondition(clock_gettime(id, &time) == 0, "this clock is always there")
        return Int64(time.tv_sec) * 1_000_000_000 + Int64(time.tv_nsec)
    }

    /// What the same question is to another client of Redis.
    package var command: (digest: String, keys: [String], argument: [UInt8], source: String) {
        let groups = gate.machine.targets(of: request(isExact: true), limits).groups
        let parts = groups.map {
            LimitScript.Part(shape: $0.buckets[0].shape, need: 1, want: 1)
        }
        return (
            LimitScript.script.digest, groups.map { $0.name(of: 0, prefix: limits.redisPrefix) },
            LimitScript.argument(lane: .ordinary, birth: 0, parts),
            "\(LimitScript.script.source)"
        )
    }
}
