import HCCore
import HCIO
import HCPostgres
import HCTenancy

/// Until both sides have the same rows: nobody is in the way of anybody.
extension Mover {
    func copy() async throws {
        let stream = try await stream()
        var isClose = 0
        let rows = move.progress["rows"]?.asInteger ?? 0
        let begin = plane.clocks.monotonic()
        var reportedAt = begin
        while true {
            try lease.require()
            if lease.isAbortWanted { return }
            let progress = try await look(at: stream)
            isClose = progress.isReady && progress.lagBytes < Mover.lagMax ? isClose + 1 : 0
            if isClose >= 2 { break }
            let now = plane.clocks.monotonic()
            if now - reportedAt > Mover.reportEvery {
                reportedAt = now
                let copied = copiedRows(progress)
                let left = MoveEstimate.left(done: copied, of: rows, after: now - begin)
                let text =
                    progress.isReady
                    ? "the stream to catch up (\(progress.lagBytes) bytes)"
                    : "\(progress.tables - progress.ready) of \(progress.tables) tables to be copied"
                        + " (\(copied) of \(rows) rows"
                        + (left.map { ", about \($0.inMilliseconds / 1000) s left)" } ?? ")")
                try await store.report(
                    move,
                    [
                        "tablesReady": .integer(Int64(progress.ready)),
                        "tables": .integer(Int64(progress.tables)),
                        "copiedRows": .integer(copied),
                        "secondsLeft": left.map { .integer($0.inMilliseconds / 1000) } ?? .null,
                        "copyingBytes": .integer(progress.bytes),
                        "lagBytes": .integer(progress.lagBytes), "waitingFor": .string(text),
                    ])
                tell(move, text)
            }
            try await Loop.shared.sleep(for: Mover.lookEvery)
        }
        try FaultPoint.reach("move.subscribed.done")
        let length = plane.clocks.monotonic() - begin
        try await advance(
            to: .copied,
            [
                "copyMilliseconds": .integer(length.inMilliseconds), "copiedRows": .integer(rows),
                "secondsLeft": .null, "lagBytes": 0,
            ])
    }

    /// The destination's planner knows nothing of the rows that have just come, and would read all of them to find one: for
    /// the comparison, for the clinic's first requests, and in the pause. Its own look at the tables comes up to a minute
    /// later. A clinic that is a small part of a table changes nothing of what it knows.
    func analyze() async throws {
        let destination = try await fence().destination
        let rows = (move.progress["tables"]?.asArray ?? []).compactMap { table in
            table["name"]?.asString.map { (name: $0, rows: table["rows"]?.asInteger ?? 0) }
        }.filter { $0.rows > Mover.fewRows }
        guard !rows.isEmpty else { return }
        try await plane.attempt("the tables of shard \(destination.id) cannot be analyzed") {
            let owner = try await plane.shard(reference: destination.reference, .owner)
            let known = try await owner.execute(
                Query(
                    """
                    SELECT relname::text, reltuples::float8 FROM pg_class
                    WHERE relnamespace = 'public'::regnamespace AND relname = ANY ($1)
                    """, [.texts(rows.map(\.name))]), deadline: plane.deadline
            ).rows.map { (name: try $0.text(0), rows: try $0.double(1)) }
            for table in known {
                let here = rows.first { $0.name == table.name }?.rows ?? 0
                guard Double(here) * Mover.smallPart > table.rows,
                    let name = Query.quotedIdentifier(table.name)
                else { continue }
                try lease.require()
                tell(move, "the planner of shard \(destination.id) to look at \(table.name)")
                // A quarter of the rows that autovacuum looks at, and rests as it has them: to sort what was looked at takes a
                // core, and is done in one go.
                _ = try await owner.execute(
                    [
                        Query(
                            """
                            SELECT set_config('default_statistics_target', '25', true),
                                set_config('vacuum_cost_delay', '2ms', true)
                            """),
                        .unsafeSQL("ANALYZE public.\(name)"),
                    ], deadline: plane.deadline)
            }
        }
    }

    /// Rows of a table of which any plan is good.
    private static let fewRows: Int64 = 1_000
    /// What a clinic must have of a table for it to be looked at anew is one part of so many, as with autovacuum.
    private static let smallPart = 10.0

    /// By the rows that the tables had when the move was asked for.
    func copiedRows(_ progress: MoveStream.Progress) -> Int64 {
        let ready = Set(progress.readyNames)
        return (move.progress["tables"]?.asArray ?? []).reduce(progress.rows) { sum, table in
            guard let name = table["name"]?.asString, ready.contains(name) else { return sum }
            return sum + (table["rows"]?.asInteger ?? 0)
        }
    }

    func verify() async throws {
        try await compare()
        try FaultPoint.reach("move.mirrored.done")
        try await advance(to: .verified)
    }

    func compare() async throws {
        let stream = try await current()
        _ = try await look(at: stream)
        try await stream.publishMissingKeys()
        await forgetVerification()
        let begin = plane.clocks.monotonic()
        var reportedAt = begin
        verification = try await MoveVerification.run(
            over: stream, isWatched: true, plane: plane, require: requireWanted,
            progress: { rows, all in
                let now = plane.clocks.monotonic()
                let left = MoveEstimate.left(
                    done: Int64(rows), of: Int64(all), after: now - begin)
                let text =
                    "\(max(0, all - rows)) of \(all) rows to be compared"
                    + (left.map { " (about \($0.inMilliseconds / 1000) s left)" } ?? "")
                tell(move, text)
                guard now - reportedAt > Mover.reportEvery else { return }
                reportedAt = now
                await note([
                    "comparedRows": .integer(Int64(rows)),
                    "secondsLeft": left.map { .integer($0.inMilliseconds / 1000) } ?? .null,
                    "waitingFor": .string(text),
                ])
            })
        await note(["secondsLeft": .null])
    }

    /// - Throws: `MoveLost` if the move may be somebody else's, `Mover.Fatal` if its abort is asked for.
    private func requireWanted() throws {
        try lease.require()
        if lease.isAbortWanted { throw Fatal(reason: Mover.askedFor) }
    }

    func forgetVerification() async {
        let former = verification
        verification = nil
        await former?.stop()
    }
}
