import HCCore
import HCIO
import HCPostgres

/// How a migration asks for its locks: for a moment at a time, again and again, and not for ever.
///
/// Whoever comes after a statement that waits for a lock waits behind it: so no lock is waited for longer than `timeout`,
/// and in the pause after it those who queued behind go on.
package struct LockRetry: Sendable {
    package var timeout = Duration.milliseconds(100)
    package var attemptsMax = 60
    package var total = Duration.seconds(60)
    /// The first pause; each is twice the one before, up to `pauseMax`, and a random part of it, at least half.
    package var pause = Duration.milliseconds(100)
    package var pauseMax = Duration.seconds(2)

    package init() {}

    /// What an attempt that got no locks is followed by.
    ///
    /// - Parameter elapsed: since the first attempt began.
    /// - Returns: the pause before the next attempt; nil: it was the last.
    func next<Random: RandomNumberGenerator>(
        after attempt: Int, elapsed: Duration, using random: inout Random
    ) -> Duration? {
        guard attempt < attemptsMax, elapsed < total else { return nil }
        return pause(after: attempt, using: &random)
    }

    func pause<Random: RandomNumberGenerator>(
        after attempt: Int, using random: inout Random
    ) -> Duration {
        let full = min(pause * (1 << min(attempt - 1, 16)), pauseMax).inMilliseconds
        return .milliseconds(full / 2 + Int64.random(in: 0...(full / 2), using: &random))
    }
}

/// Looks, over a connection of its own, who keeps a session waiting: afterwards nobody can tell any more.
@LoopActor
final class LockWatch {
    private let plane: ControlPlane
    private let shardReference: String?
    private let process: Int32
    private static let lookEvery = Duration.milliseconds(20)
    private static let holdersMax = 5

    private var seen = ""
    private var trouble = ""

    /// What was seen last, else why nothing could be seen, for people; empty if nobody was there.
    var findings: String { seen.isEmpty ? trouble : seen }

    /// - Parameter shardReference: nil for the control database.
    init(_ plane: ControlPlane, shardReference: String?, process: Int32) {
        self.plane = plane.twin()
        self.shardReference = shardReference
        self.process = process
    }

    func close() async { await plane.close() }

    /// Looks again and again until it is cancelled. What it cannot see changes nothing about the migration.
    func run() async {
        while !Task.isCancelled {
            do {
                try await look()
                try await Loop.shared.sleep(for: LockWatch.lookEvery)
            } catch {
                if !Task.isCancelled { trouble = "who holds it cannot be told: \(error)" }
                return
            }
        }
    }

    private func look() async throws {
        let connection =
            if let shardReference {
                try await plane.shard(reference: shardReference, .owner)
            } else {
                try await plane.control(.owner)
            }
        let holders = try await connection.execute(
            Query(
                """
                SELECT holder.pid, coalesce(usename::text, '?'), coalesce(application_name, ''),
                    coalesce(
                        ' in a transaction of '
                            || extract(epoch FROM clock_timestamp() - xact_start)::int8 || ' s', ''),
                    coalesce(wanted.relation::regclass::text, wanted.locktype || ' lock'), wanted.mode
                FROM pg_locks AS wanted
                CROSS JOIN unnest(pg_blocking_pids($1)) AS holder (pid)
                LEFT JOIN pg_stat_activity AS activity ON activity.pid = holder.pid
                WHERE wanted.pid = $1 AND NOT wanted.granted
                ORDER BY holder.pid LIMIT $2
                """, [.int4(process), .int8(Int64(LockWatch.holdersMax))]),
            deadline: plane.deadline
        ).rows.map { row in
            (
                who: "process \(try row.int(0)) (\(try row.text(1)) \(try row.text(2)))"
                    + (try row.text(3)),
                what: "\(try row.text(5)) on \(try row.text(4))"
            )
        }
        guard let first = holders.first else { return }
        seen =
            "\(first.what) is held back by "
            + holders.map(\.who).joined(separator: ", ")
    }
}
