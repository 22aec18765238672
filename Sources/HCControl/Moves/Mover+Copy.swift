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
            if now - reportedAt > .milliseconds(500) {
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
        if lease.isAbortWanted { return }
        try FaultPoint.reach("move.mirrored.done")
        try await advance(to: .verified)
    }

    func compare() async throws {
        let stream = try await current()
        _ = try await look(at: stream)
        let move = move
        await forgetVerification()
        verification = try await MoveVerification.run(
            over: stream, isWatched: true, plane: plane, require: lease.require,
            progress: { [tell] rows, all in
                tell(move, "\(all - rows) of \(all) rows to be compared")
            })
    }

    func forgetVerification() async {
        let former = verification
        verification = nil
        await former?.stop()
    }
}
