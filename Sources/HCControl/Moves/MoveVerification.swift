import HCCore
import HCIO
import HCTenancy

/// Compares a clinic's rows on both sides of a move: all of them before the pause, while the stream runs, and in the
/// pause what may still differ.
///
/// Before the pause a chunk is read at the origin, the stream is waited for until it is behind that look, and then the
/// chunk is read at the destination. Writes that came in between make a difference that goes away when it is looked at
/// again. One that was seen between two looks at the origin that are equal is a fault of the copy, if it is seen twice (a
/// row may have come and gone), and ends the move. In the pause nobody writes: a small clinic is compared whole, of a
/// large one the chunks that were never found equal, and the last of each table, where new rows go.
@LoopActor
struct MoveVerification {
    /// A small clinic's rows: read in the pause at more than a million a second.
    static let smallRows = 5_000
    /// Looks at what differs, before the pause.
    static let roundsMax = 5

    private let plan: TenantDigestPlan
    private var digests: TenantDigests
    private var unequal: [TenantChunk]
    private(set) var rounds: Int

    var rows: Int { plan.rows }
    var isSmall: Bool { plan.rows <= MoveVerification.smallRows }

    /// What is read in the pause.
    var chunksInPause: [TenantChunk] {
        if isSmall { return plan.chunks }
        let last = plan.tables.map { TenantChunk(table: $0.name, index: $0.chunkCount - 1) }
        return Set(unequal).union(last).sorted()
    }

    // MARK: Before the pause

    /// - Parameters:
    ///   - pass: waits until the destination has what the origin's log has up to there.
    ///   - progress: rows and rows expected of each look.
    /// - Throws: `Mover.Fatal` if the sides differ for good.
    static func run(
        _ move: Move, origin: Shard, destination: Shard, plane: ControlPlane,
        pass: (LogPosition) async throws -> Void,
        progress: @escaping @LoopActor (TenantDigest.Progress) -> Void
    ) async throws -> MoveVerification {
        try await plane.attempt("the clinic's rows cannot be compared") {
            let here = try await plane.shard(reference: origin.reference, .mover)
            let there = try await plane.shard(reference: destination.reference, .mover)
            let plan = try await TenantDigest.plan(
                of: move.tenant, source: here, target: there, deadline: plane.longDeadline)
            let source = TenantDigest(of: move.tenant, on: here)
            let target = TenantDigest(of: move.tenant, on: there)
            var mine = try await source.read(
                plan, deadline: plane.longDeadline, progress: progress)
            try await pass(mine.position)
            var other = try await target.read(
                plan, deadline: plane.longDeadline, progress: progress)
            var differing = plan.differences(source: mine, target: other)
            var rounds = 1
            var suspects: Set<TenantChunk> = []
            while !differing.isEmpty, rounds < roundsMax {
                rounds += 1
                let chunks = differing.map(\.chunk)
                let again = try await source.read(
                    plan, chunks: chunks, deadline: plane.longDeadline)
                // The destination was read between these two looks.
                let standing = differing.filter { again.chunks[$0.chunk] == $0.source }
                if let wrong = standing.first(where: { suspects.contains($0.chunk) }) {
                    throw Mover.Fatal(reason: "the copy is not equal to the clinic: \(wrong)")
                }
                suspects.formUnion(standing.map(\.chunk))
                try await pass(again.position)
                mine = mine.updated(by: again)
                other = other.updated(
                    by: try await target.read(plan, chunks: chunks, deadline: plane.longDeadline))
                differing = plan.differences(source: mine, target: other, chunks: chunks)
            }
            return MoveVerification(
                plan: plan, digests: mine, unequal: differing.map(\.chunk), rounds: rounds)
        }
    }

    // MARK: In the pause

    /// Compares what may differ, on both sides at once. Nobody writes on either.
    ///
    /// - Returns: the manifest's part.
    /// - Throws: `Mover.Fatal` if the sides differ.
    func finish(
        _ move: Move, origin: Shard, destination: Shard, plane: ControlPlane
    ) async throws -> JSONValue {
        let chunks = chunksInPause
        let here = try await plane.shard(reference: origin.reference, .mover)
        let there = try await plane.shard(reference: destination.reference, .mover)
        let (plan, tenant, deadline) = (plan, move.tenant, plane.deadline)
        let other = Loop.shared.makeTask {
            try await TenantDigest(of: tenant, on: there).read(
                plan, chunks: chunks, deadline: deadline)
        }
        let mine: TenantDigests
        do {
            mine = try await TenantDigest(of: tenant, on: here).read(
                plan, chunks: chunks, deadline: deadline)
        } catch {
            // Its connection is free again before anybody else uses it.
            _ = await other.result
            throw error
        }
        let differing = plan.differences(
            source: mine, target: try await other.value, chunks: chunks)
        if let wrong = differing.first {
            throw Mover.Fatal(reason: "the copy is not equal to the clinic: \(wrong)")
        }
        let all = digests.updated(by: mine)
        return [
            "mode": .string(
                isSmall
                    ? MoveManifest.Verification.Mode.whole.rawValue
                    : MoveManifest.Verification.Mode.dirtyChunks.rawValue),
            "rowsPerChunk": .integer(Int64(plan.rowsPerChunk)),
            "chunks": .integer(Int64(plan.chunks.count)),
            "chunksInPause": .integer(Int64(chunks.count)), "rounds": .integer(Int64(rounds)),
            "tables": .array(
                all.tables.map {
                    [
                        "name": .string($0.name), "rows": .integer(Int64($0.digest.rows)),
                        "digest": .string($0.digest.hex),
                    ]
                }),
        ]
    }
}
