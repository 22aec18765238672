import HCCore
import HCIO
import HCPostgres

/// Writes what the workers of a run have to write to the control database, over one connection.
///
/// What several of them have to write at the same time is one transaction. Transactions of their own would wait for each
/// other's commits anyway: whatever changes the row of a shard keeps the counter of the directory's feed locked until then.
@LoopActor
final class RolloutJournal {
    private struct Entry {
        let queries: [Query]
        let written = Waiter<[PostgresResult]>()
    }

    private let plane: ControlPlane
    /// No more than there are workers, each of which waits for its own.
    private var entries: [Entry] = []
    private var isWriting = false

    /// - Parameter plane: over whose connection nobody else asks anything meanwhile.
    init(plane: ControlPlane) {
        self.plane = plane
    }

    /// All of the queries, or none, and perhaps those of others with them.
    ///
    /// - Returns: one result for each query.
    /// - Throws: what these queries have met, and not what those of others have.
    func write(_ queries: [Query]) async throws -> [PostgresResult] {
        let entry = Entry(queries: queries)
        entries.append(entry)
        if !isWriting {
            isWriting = true
            Loop.shared.spawn { await self.writeAll() }
        }
        // Each writing has its own deadline.
        return try await entry.written.wait(until: .never)
    }

    private func writeAll() async {
        while !entries.isEmpty {
            let batch = entries
            entries = []
            await write(batch)
        }
        isWriting = false
    }

    private func write(_ batch: [Entry]) async {
        do {
            var results = try await plane.control().execute(
                batch.flatMap(\.queries), deadline: plane.deadline)[...]
            for entry in batch {
                entry.written.succeed(Array(results.prefix(entry.queries.count)))
                results = results.dropFirst(entry.queries.count)
            }
        } catch {
            // The server has refused one of them, and nothing was written: the others have nothing to do with it.
            guard batch.count > 1, (error as? PostgresError)?.server != nil else {
                for entry in batch { entry.written.fail(error) }
                return
            }
            for entry in batch { await write([entry]) }
        }
    }
}
