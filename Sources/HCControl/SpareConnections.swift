import HCCore
import HCIO
import HCPostgres

/// Connections that one worker of a run has done with and another may want: to open one takes longer than most of what is
/// asked over it, and a new server process has every catalogue to learn.
@LoopActor
final class SpareConnections {
    private var byFile: [String: [PostgresConnection]] = [:]

    /// - Parameter file: that says where it leads.
    /// - Returns: one as it was when it was opened; nil if there is none.
    func take(_ file: String, deadline: Deadline) async -> PostgresConnection? {
        while let connection = byFile[file]?.popLast() {
            guard connection.isUsable else { continue }
            // What a migration has set for its session is nobody else's.
            guard connection.isAltered else { return connection }
            do {
                _ = try await connection.executeAndReset([], deadline: deadline)
                return connection
            } catch {
                connection.close()
            }
        }
        return nil
    }

    /// In no transaction: whoever had it has come to his end.
    func give(_ connection: PostgresConnection, _ file: String) {
        guard connection.isUsable else { return connection.close() }
        byFile[file, default: []].append(connection)
    }

    func close() {
        for connection in byFile.values.joined() { connection.close() }
        byFile = [:]
    }
}
