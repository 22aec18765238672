import HCCore
import HCIO
import HCPostgres
import HCTenancy

/// Compares both sides of a move that soaks, again and again: the shard that serves, and the former one, which follows.
/// Who wants to take the move back shall know before, and a copy that goes wrong later shall be found.
///
/// Nobody's lease is needed: it reads, and writes down what it found. A way back compares both sides by itself once more.
@LoopActor
struct SoakCheck {
    /// Between two looks at a move, by whichever agent.
    static let every = Duration.seconds(600)

    let plane: ControlPlane

    /// Moves that soak and were not looked at for so long; they are this process' to look at from here on.
    func take(limit: Int = 4) async throws -> [MoveID] {
        try await plane.attempt("the moves that soak cannot be read") {
            try await plane.control().execute(
                Query(
                    """
                    UPDATE move SET progress = progress || jsonb_build_object('soakCheckBegunAt', clock_timestamp())
                    WHERE id IN (
                        SELECT id FROM move
                        WHERE state = 'soaking' AND step = 'soaking' AND soak_until > clock_timestamp()
                            AND progress ->> 'wayBackLost' IS NULL
                            AND coalesce((progress ->> 'soakCheckBegunAt')::timestamptz, '-infinity')
                                < clock_timestamp() - $1 * interval '1 ms'
                        ORDER BY updated_at LIMIT $2 FOR UPDATE SKIP LOCKED)
                    RETURNING id
                    """, [.int8(SoakCheck.every.inMilliseconds), .int4(Int32(limit))]),
                deadline: plane.deadline
            ).rows.map { try $0.id(0) }
        }
    }

    /// - Returns: what differs; nil if nothing does, or the move does not soak any more.
    func run(_ id: MoveID) async throws -> String? {
        let store = MoveStore(plane: plane)
        let move = try await store.find(id)
        guard move.state == .soaking, move.step == .soaking else { return nil }
        let registry = ShardRegistry(plane: plane)
        let serving = try await registry.find(move.target)
        let former = try await registry.find(move.source)
        let stream = MoveStream(
            plane: plane, store: store, move: move, name: MoveStream.name(move, isMirror: true),
            publisher: serving, subscriber: former)
        // Nothing that comes behind it will be there.
        if let reason = try await stream.lostLog() {
            try await store.report(move, ["wayBackLost": .string(reason)])
            return reason
        }
        let failure: String?
        if let broken = try await stream.progress().failure {
            failure = broken
        } else {
            do {
                _ = try await MoveVerification.run(
                    over: stream, isWatched: false, plane: plane, progress: { _, _ in })
                failure = nil
            } catch let fatal as Mover.Fatal {
                failure = fatal.reason
            }
        }
        try await store.report(
            move,
            [
                "soakChecks": .integer((move.progress["soakChecks"]?.asInteger ?? 0) + 1),
                "soakCheckedAt": .string(plane.clocks.now().rfc3339),
                "soakDifference": failure.map { .string($0) } ?? .null,
            ])
        return failure
    }
}
