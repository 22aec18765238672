package import HCCore

extension PostgresConnection {
    /// Runs a script of several statements by the simple protocol: for migrations. The server runs it as one
    /// implicit transaction unless the script says otherwise.
    ///
    /// - Throws: ``PostgresError``; the server's error has no `queryIndex`.
    package func executeScript(_ sql: String, deadline: Deadline) async throws(PostgresError) {
        guard !transactionIsOpen else {
            throw PostgresError(.misuse("a transaction is open on this connection"))
        }
        defer { if handle.transactionStatus != .idle { closeSession() } }
        try await runScript(sql, deadline: deadline)
    }

    func runScript(_ sql: String, deadline: Deadline) async throws(PostgresError) {
        guard !sql.utf8.contains(0) else { throw PostgresError(.encode(.nulInSQL)) }
        noteAltered()
        let commits = handle.transactionStatus == .idle
        try await drive(deadline: deadline, commits: commits) { () throws(PostgresError) in
            guard handle.sendSimple(sql) else {
                closeSession()
                throw .connectionLost
            }
            try await flushAll()
            noteCommandSent()
            _ = try await awaitEnd()
        }
    }
}
