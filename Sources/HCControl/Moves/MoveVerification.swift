import HCCore
import HCIO
import HCPostgres
import HCTenancy

/// Compares a clinic's rows on both sides of a move: all of them before the pause, while the stream runs, and in the
/// pause what may still differ.
///
/// Before the pause some chunks are read at the origin, the stream is waited for until it is behind that look, and then they
/// are read at the destination. Writes that came in between make a difference that goes away when it is looked at
/// again. One that was seen between two looks at the origin that are equal is a fault of the copy, if it is seen twice (a
/// row may have come and gone), and ends the move. In the pause nobody writes: a small clinic is compared whole, of a
/// large one each row that was changed since the comparison began and was not found equal after that (`MoveWatch`).
@LoopActor
struct MoveVerification {
    /// A small clinic's rows: read in the pause at more than a million a second.
    static let smallRows = 5_000
    /// Looks at what differs, before the pause: if it is watched, and if it is not.
    private static let (watchedRoundsMax, roundsMax) = (3, 8)
    /// Chunks that are read on one side and then on the other, by the pace: so few that little is written in between, and
    /// fewer with each round, or of a clinic that is written to all over, nothing would ever be found equal.
    private static let chunksPerLook = 1...16
    /// Changed rows that are left to the pause; and so many that they are compared before there are more than a watch
    /// remembers, while a large clinic's rows are still being compared.
    static let (changedRowsFew, changedRowsMany) = (50, 10_000)
    private static let settlesMax = 10

    private let plan: TenantDigestPlan
    private var digests: TenantDigests
    private var unequal: [TenantChunk]
    private(set) var rounds: Int
    /// Of a small clinic, and of one that only a comparison is wanted of, there is none.
    private let watch: MoveWatch?

    var rows: Int { plan.rows }
    var isSmall: Bool { plan.rows <= MoveVerification.smallRows }

    /// What is read in the pause.
    var chunksInPause: [TenantChunk] { isSmall ? plan.chunks : unequal }

    /// No change since it began was missed.
    var isWhole: Bool { watch?.isWhole ?? true }

    /// What the pause would read of single rows now.
    var changedRows: Int { watch?.changes.count ?? 0 }

    func stop() async { await watch?.stop() }

    // MARK: Before the pause

    /// - Parameters:
    ///   - stream: brings the changes of the origin to the destination.
    ///   - isWatched: a pause follows: what is changed from now on is remembered.
    ///   - many: changed rows that are not left to the end.
    ///   - require: throws when nobody wants the answer any more.
    ///   - progress: rows that were compared, and all.
    /// - Throws: `Mover.Fatal` if the sides differ for good.
    static func run(
        over stream: MoveStream, isWatched: Bool, plane: ControlPlane,
        many: Int = changedRowsMany, require: () throws -> Void = {},
        progress: (Int, Int) async -> Void
    ) async throws -> MoveVerification {
        try await plane.attempt("the clinic's rows cannot be compared") {
            let here = try await plane.shard(reference: stream.publisher.reference, .mover)
            let there = try await plane.shard(reference: stream.subscriber.reference, .mover)
            let plan = try await TenantDigest.plan(
                of: stream.move.tenant, source: here, target: there, deadline: plane.longDeadline)
            let isLarge = plan.rows > smallRows
            let watch =
                isWatched && isLarge
                ? try await MoveWatch.open(on: stream, plan: plan, plane: plane) : nil
            do {
                return try await compare(
                    plan, watch, over: stream, here, there, plane, many, require, progress)
            } catch {
                await watch?.stop()
                throw error
            }
        }
    }

    private static func compare(
        _ plan: TenantDigestPlan, _ watch: MoveWatch?, over stream: MoveStream,
        _ here: PostgresConnection, _ there: PostgresConnection, _ plane: ControlPlane,
        _ many: Int, _ require: () throws -> Void, _ progress: (Int, Int) async -> Void
    ) async throws -> MoveVerification {
        let source = TenantDigest(of: stream.move.tenant, on: here)
        let target = TenantDigest(of: stream.move.tenant, on: there)
        var mine = TenantDigests(position: LogPosition(0), chunks: [:])
        var differing: [TenantChunk: ChunkDifference] = [:]
        var suspects: Set<TenantChunk> = []
        var rounds = 0
        var rows = 0
        var pace = MovePace(sizes: chunksPerLook)
        repeat {
            var chunks = (rounds == 0 ? plan.chunks : differing.keys.sorted())[...]
            rounds += 1
            while !chunks.isEmpty {
                try require()
                let most = max(1, chunksPerLook.upperBound >> (2 * (rounds - 1)))
                let some = Array(chunks.prefix(min(pace.size, most)))
                chunks = chunks.dropFirst(some.count)
                var begin = plane.clocks.monotonic()
                let look = try await source.read(plan, chunks: some, deadline: plane.longDeadline)
                let workHere = plane.clocks.monotonic() - begin
                // The destination was read between this look and the one before.
                for chunk in some {
                    guard let before = differing[chunk], look.chunks[chunk] == before.source
                    else { continue }
                    guard suspects.insert(chunk).inserted else {
                        throw Mover.Fatal(
                            reason: "the copy is not equal to the clinic: \(before)")
                    }
                }
                try await stream.requireConfirmed(look.position)
                begin = plane.clocks.monotonic()
                let other = try await target.read(plan, chunks: some, deadline: plane.longDeadline)
                let workThere = plane.clocks.monotonic() - begin
                mine = mine.updated(by: look)
                for chunk in some { differing[chunk] = nil }
                for difference in plan.differences(source: look, target: other, chunks: some) {
                    differing[difference.chunk] = difference
                }
                if rounds == 1 {
                    rows += look.rows
                    await progress(rows, plan.rows)
                }
                if let watch, watch.changes.count > many {
                    try await settle(
                        watch, of: plan, down: many / 10, isLast: false, over: stream, plane: plane)
                }
                try await pace.rest(after: workHere, workThere)
            }
        } while !differing.isEmpty && rounds < (watch == nil ? roundsMax : watchedRoundsMax)
        var unequal = differing.keys.sorted()
        if let watch {
            // What is written to without end is compared row by row: those that differ are compared again like those that
            // were changed, and of the others it is known when they are.
            for chunk in unequal {
                try require()
                let look = try await source.read(
                    plan, rowsOf: [chunk], deadline: plane.longDeadline)
                try await stream.requireConfirmed(look.position)
                let other = try await target.read(
                    plan, rowsOf: [chunk], deadline: plane.longDeadline)
                watch.suspect(
                    Set(look.digests.keys).union(other.digests.keys).filter {
                        look.digests[$0] != other.digests[$0]
                    })
                mine = mine.updated(
                    by: TenantDigests(
                        position: look.position,
                        chunks: [chunk: look.digests.values.reduce(.zero) { $0 + $1 }]))
            }
            unequal = []
        }
        return MoveVerification(
            plan: plan, digests: mine, unequal: unequal, rounds: rounds, watch: watch)
    }

    /// Compares the rows that were changed since, until few are left: as soon before the pause as can be.
    ///
    /// - Throws: `Mover.Fatal` if a row differs for good; `ControlError` if changes may have been missed.
    func settle(over stream: MoveStream, plane: ControlPlane) async throws {
        guard let watch else { return }
        try await MoveVerification.settle(
            watch, of: plan, down: MoveVerification.changedRowsFew, isLast: true, over: stream,
            plane: plane)
    }

    /// - Parameter isLast: rows that differ are looked at again until it is known whether they do for good.
    private static func settle(
        _ watch: MoveWatch, of plan: TenantDigestPlan, down few: Int, isLast: Bool,
        over stream: MoveStream, plane: ControlPlane
    ) async throws {
        let here = try await plane.shard(reference: stream.publisher.reference, .mover)
        let there = try await plane.shard(reference: stream.subscriber.reference, .mover)
        let tenant = stream.move.tenant
        /// As the origin had it when it differed, and how often it has since.
        var differing: [TenantRowKey: (source: RowDigest?, times: Int)] = [:]
        try await plane.attempt("the clinic's rows cannot be compared") {
            for _ in 0..<settlesMax {
                try watch.requireWhole()
                let keys = Array(watch.changes.keys)
                guard keys.count > few || isLast && !differing.isEmpty else { return }
                let mine = try await TenantDigest(of: tenant, on: here).read(
                    plan, keys: keys, deadline: plane.deadline)
                try await stream.requireConfirmed(mine.position)
                let other = try await TenantDigest(of: tenant, on: there).read(
                    plan, keys: keys, deadline: plane.deadline)
                let equal = keys.filter { mine.digests[$0] == other.digests[$0] }
                watch.settle(equal, seenBy: mine.snapshot)
                var next: [TenantRowKey: (source: RowDigest?, times: Int)] = [:]
                for key in keys where mine.digests[key] != other.digests[key] {
                    let before = differing[key]
                    let isSame = before != nil && before?.source == mine.digests[key]
                    let times = isSame ? (before?.times ?? 0) + 1 : 0
                    // As with chunks: between two looks that are equal, and once more, for a row may come and go.
                    guard times < 2 else {
                        throw Mover.Fatal(reason: "the copy is not equal to the clinic: row \(key)")
                    }
                    next[key] = (mine.digests[key], times)
                }
                differing = next
            }
        }
    }

    // MARK: In the pause

    /// What may differ, as the origin has it.
    struct Look: Sendable {
        fileprivate var chunks: [TenantChunk]
        fileprivate var keys: [TenantRowKey]
        fileprivate var digests: TenantDigests
        fileprivate var rows: TenantRows?
    }

    /// Reads at the origin what may differ. Nobody writes there any more, and the barrier is behind the last who did.
    ///
    /// - Throws: `PostgresError`, `DeadlineExceeded`, `ControlError` if changes may have been missed.
    func look(
        at origin: Shard, behind barrier: Int64, of tenant: TenantID, plane: ControlPlane,
        deadline: Deadline
    ) async throws -> Look {
        try await watch?.awaitBarrier(barrier, deadline: deadline)
        let (chunks, keys) = (chunksInPause, watch.map { $0.changes.keys.sorted() } ?? [])
        let (digests, rows) = try await read(
            chunks, keys, on: origin, of: tenant, plane: plane, deadline: deadline)
        return Look(chunks: chunks, keys: keys, digests: digests, rows: rows)
    }

    private func read(
        _ chunks: [TenantChunk], _ keys: [TenantRowKey], on shard: Shard, of tenant: TenantID,
        plane: ControlPlane, deadline: Deadline
    ) async throws -> (TenantDigests, TenantRows?) {
        let connection = try await plane.shard(reference: shard.reference, .mover)
        let digest = TenantDigest(of: tenant, on: connection)
        // Most often there is but one of them.
        let rows =
            keys.isEmpty ? nil : try await digest.read(plan, keys: keys, deadline: deadline)
        guard !chunks.isEmpty else {
            return (TenantDigests(position: LogPosition(0), chunks: [:]), rows)
        }
        return (try await digest.read(plan, chunks: chunks, deadline: deadline), rows)
    }

    /// Reads the same at the destination, which has everything.
    ///
    /// - Returns: the manifest's part.
    /// - Throws: `Mover.Fatal` if the sides differ; `PostgresError`, also when the deadline passes first.
    func finish(
        _ look: Look, at destination: Shard, of tenant: TenantID, plane: ControlPlane,
        deadline: Deadline
    ) async throws -> JSONValue {
        let (digests, rows) = try await read(
            look.chunks, look.keys, on: destination, of: tenant, plane: plane, deadline: deadline)
        if let wrong = plan.differences(
            source: look.digests, target: digests, chunks: look.chunks
        ).first {
            throw Mover.Fatal(reason: "the copy is not equal to the clinic: \(wrong)")
        }
        for key in look.keys where look.rows?.digests[key] != rows?.digests[key] {
            throw Mover.Fatal(reason: "the copy is not equal to the clinic: row \(key)")
        }
        let all = self.digests.updated(by: look.digests)
        return [
            "mode": .string(
                isSmall
                    ? MoveManifest.Verification.Mode.whole.rawValue
                    : MoveManifest.Verification.Mode.dirtyChunks.rawValue),
            "rowsPerChunk": .integer(Int64(plan.rowsPerChunk)),
            "chunks": .integer(Int64(plan.chunks.count)),
            "chunksInPause": .integer(Int64(look.chunks.count)),
            "rowsInPause": .integer(Int64(look.keys.count)), "rounds": .integer(Int64(rounds)),
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
