import HCCore
import HCCrypto
import HCIO
import HCRedis
import HCTenancy

struct LimitsProbe: Command {
    static let specification = CommandSpecification(
        path: ["limits", "probe"],
        summary: "Measures what a rate limit decision costs this machine, with its Redis.",
        discussion: """
            Decides many requests of a clinic that does not exist, by three rules each: first with leased
            units, then by asking Redis for every one. Takes a few seconds of one core.
            """,
        examples: ["limits probe", "limits probe --json"])

    private static let leasedCount = 2_000_000
    private static let exactCount = 100_000
    private static let width = 32

    func run(_ invocation: Invocation, _ environment: AdminEnvironment) async throws -> Report {
        let redis = try RedisClient(
            environment.configuration().redis, name: "hc-admin-probe", blocking: BlockingPool(),
            logger: .silent)
        redis.start()
        defer { redis.close() }
        let deadline = Deadline.after(.seconds(60), from: Loop.now)
        try await redis.waitUntilReady(deadline: .after(.seconds(5), from: Loop.now))
        let probe = LimitProbe(redis: redis)
        // The first ones find caches cold and scripts not loaded.
        _ = try await probe.leased(10_000, deadline: deadline)
        _ = try await probe.byRedis(1000, width: LimitsProbe.width, deadline: deadline)
        let leased = try await probe.leased(LimitsProbe.leasedCount, deadline: deadline)
        let exact = try await probe.byRedis(
            LimitsProbe.exactCount, width: LimitsProbe.width, deadline: deadline)
        let command = probe.command
        return Report(
            json: [
                "leased": json(leased), "redis": json(exact),
                "script": [
                    "digest": .string(command.digest),
                    "keys": .array(command.keys.map { .string($0) }),
                    "argument": .string(Hex.encode(command.argument)),
                    "source": .string(command.source),
                ],
            ], text: "with a lease: \(text(leased))\nby Redis: \(text(exact))")
    }

    private func json(_ cost: LimitProbe.Cost) -> JSONValue {
        [
            "decisions": .integer(Int64(cost.decisions)),
            "microseconds": .double(cost.microseconds), "perSecond": .double(cost.perSecond),
        ]
    }

    private func text(_ cost: LimitProbe.Cost) -> String {
        let nanoseconds = Int((cost.microseconds * 1000).rounded())
        return "\(nanoseconds) ns of CPU each, \(Int(cost.perSecond)) a second"
    }
}
