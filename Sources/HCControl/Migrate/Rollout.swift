package import HCCore
import HCPostgres

/// One row of `migration_rollout`.
package struct Rollout: Sendable {
    package enum State: String, Sendable {
        case running
        case halted
        case aborted
        case done
    }

    package let id: UUID
    package let state: State
    package let version: Int
    package let canary: String
    package let wave: Int
    package let shardsDone: Int
    package let shardsTotal: Int
    package let failedShards: [String]
    package let problem: String?
    package let attempt: Int64
    package let operatorName: String
    /// For how long nobody else can take it over; nil if anybody can.
    package let leaseLeft: Duration?
    /// Since it last got on: began or ended something.
    package let silence: Duration

    package var isOpen: Bool { state == .running || state == .halted }
    /// Somebody has it and does not get on: it can be taken from him.
    package var isStuck: Bool { leaseLeft != nil && silence >= RolloutStore.stuckAfter }

    /// One whose process has gone without having heard of the abort has nobody left to end it: it has ended.
    static let columns = """
        id, CASE WHEN \(RolloutStore.isForsaken) THEN 'aborted' ELSE state END, version, canary, wave, shards_done, shards_total, array_to_string(failed_shards, ','), problem,
        attempt, operator_name,
        CASE WHEN \(RolloutStore.isHeld)
            THEN ceil(extract(epoch FROM lease_until - clock_timestamp()) * 1000)::int8 END,
        (abs(extract(epoch FROM clock_timestamp() - updated_at)) * 1000)::int8
        """

    init(_ row: PostgresRow) throws {
        id = try row.uuid(0)
        let state = try row.text(1)
        guard let known = State(rawValue: state) else {
            throw ControlError(
                .failed, code: "rollout-unreadable", "a rollout has the unknown state '\(state)'",
                remedy: "Use the newest release of hc-admin.")
        }
        self.state = known
        version = try row.int(2)
        canary = try row.text(3)
        wave = try row.int(4)
        shardsDone = try row.int(5)
        shardsTotal = try row.int(6)
        failedShards = try row.text(7).split(separator: ",").map(String.init)
        problem = try row.textIfPresent(8)
        attempt = Int64(try row.int(9))
        operatorName = try row.text(10)
        leaseLeft = try row.intIfPresent(11).map { .milliseconds($0) }
        silence = .milliseconds(try row.int(12))
    }

    package var json: JSONValue {
        [
            "id": .string("\(id)"), "state": .string(state.rawValue),
            "version": .integer(Int64(version)), "canary": .string(canary),
            "wave": .integer(Int64(wave)), "shardsDone": .integer(Int64(shardsDone)),
            "shardsTotal": .integer(Int64(shardsTotal)),
            "failedShards": .array(failedShards.map { .string($0) }),
            "problem": problem.map { .string($0) } ?? .null, "operator": .string(operatorName),
            "isCarriedOn": .bool(leaseLeft != nil),
            "silentSeconds": .integer(silence.inMilliseconds / 1000),
        ]
    }
}
