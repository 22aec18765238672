import HCCore
import HCIO
import HCTenancy

/// Compares a clinic's rows on both sides of a move: all of them before the pause, while the stream runs, and in the
/// pause what may still differ.
///
/// Before the pause some chunks are read at the origin, the stream is waited for until it is behind that look, and then they
/// are read at the destination. Writes that came in between make a difference that goes away when it is looked at
/// again. One that was seen between two looks at the origin that are equal is a fault of the copy, if it is seen twice (a
/// row may have come and gone), and ends the move. In the pause nobody writes: a small clinic is compared whole, of a
/// large one the chunks that were never found equal, and the last of each table, where new rows go.
@LoopActor
struct MoveVerification {
    /// A small clinic's rows: read in the pause at more than a million a second.
    static let smallRows = 5_000
    /// Looks at what differs, before the pause.
    static let roundsMax = 8
    /// Chunks that are read on one side and then on the other: so few that little is written in between, or of a clinic
    /// that is written to all over, nothing would ever be found equal.
    private static let chunksPerLook = 16

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
    ///   - progress: rows that were compared, and all.
    /// - Throws: `Mover.Fatal` if the sides differ for good.
    static func run(
        _ move: Move, origin: Shard, destination: Shard, plane: ControlPlane,
        pass: (LogPosition) async throws -> Void,
        progress: (Int, Int) -> Void
    ) async throws -> MoveVerification {
        try await plane.attempt("the clinic's rows cannot be compared") {
            let here = try await plane.shard(reference: origin.reference, .mover)
            let there = try await plane.shard(reference: destination.reference, .mover)
            let plan = try await TenantDigest.plan(
                of: move.tenant, source: here, target: there, deadline: plane.longDeadline)
            let source = TenantDigest(of: move.tenant, on: here)
            let target = TenantDigest(of: move.tenant, on: there)
            var mine = TenantDigests(position: LogPosition(0), chunks: [:])
            var differing: [TenantChunk: ChunkDifference] = [:]
            var suspects: Set<TenantChunk> = []
            var rounds = 0
            var rows = 0
            repeat {
                var chunks = (rounds == 0 ? plan.chunks : differing.keys.sorted())[...]
                rounds += 1
                while !chunks.isEmpty {
                    let some = Array(chunks.prefix(chunksPerLook))
                    chunks = chunks.dropFirst(chunksPerLook)
                    let look = try await source.read(
                        plan, chunks: some, deadline: plane.longDeadline)
                    // The destination was read between this look and the one before.
                    for chunk in some {
                        guard let before = differing[chunk], look.chunks[chunk] == before.source
                        else { continue }
                        guard suspects.insert(chunk).inserted else {
                            throw Mover.Fatal(
                                reason: "the copy is not equal to the clinic: \(before)")
                        }
                    }
                    try await pass(look.position)
                    let other = try await target.read(
                        plan, chunks: some, deadline: plane.longDeadline)
                    mine = mine.updated(by: look)
                    for chunk in some { differing[chunk] = nil }
                    for difference in plan.differences(source: look, target: other, chunks: some) {
                        differing[difference.chunk] = difference
                    }
                    if rounds == 1 {
                        rows += look.rows
                        progress(rows, plan.rows)
                    }
                }
            } while !differing.isEmpty && rounds < roundsMax
            return MoveVerification(
                plan: plan, digests: mine, unequal: differing.keys.sorted(), rounds: rounds)
        }
    }

    // MARK: In the pause

    /// Compares what may differ, on both sides at once. Nobody writes on either.
    ///
    /// - Returns: the manifest's part.
    /// - Throws: `Mover.Fatal` if the sides differ; `PostgresError`, also when the deadline passes first.
    func finish(
        _ move: Move, origin: Shard, destination: Shard, plane: ControlPlane, deadline: Deadline
    ) async throws -> JSONValue {
        let chunks = chunksInPause
        let here = try await plane.shard(reference: origin.reference, .mover)
        let there = try await plane.shard(reference: destination.reference, .mover)
        let (plan, tenant) = (plan, move.tenant)
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
