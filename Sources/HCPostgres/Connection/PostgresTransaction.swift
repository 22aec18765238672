package import HCCore
package import HCIO

/// How a transaction begins.
package struct TransactionOptions: Hashable, Sendable {
    package enum Isolation: Hashable, Sendable {
        case readCommitted
        case repeatableRead
        case serializable
    }

    package var isolation: Isolation
    package var isReadOnly: Bool
    /// Whether the COMMIT finds out ``PostgresConnection/commitPosition``, at no further round trip.
    package var reportsPosition: Bool

    package init(
        isolation: Isolation = .readCommitted, isReadOnly: Bool = false,
        reportsPosition: Bool = false
    ) {
        self.isolation = isolation
        self.isReadOnly = isReadOnly
        self.reportsPosition = reportsPosition
    }

    var begin: StaticString {
        switch (isolation, isReadOnly) {
        case (.readCommitted, false): "BEGIN ISOLATION LEVEL READ COMMITTED READ WRITE"
        case (.readCommitted, true): "BEGIN ISOLATION LEVEL READ COMMITTED READ ONLY"
        case (.repeatableRead, false): "BEGIN ISOLATION LEVEL REPEATABLE READ READ WRITE"
        case (.repeatableRead, true): "BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY"
        case (.serializable, false): "BEGIN ISOLATION LEVEL SERIALIZABLE READ WRITE"
        case (.serializable, true): "BEGIN ISOLATION LEVEL SERIALIZABLE READ ONLY"
        }
    }
}

extension PostgresConnection {
    /// Runs `body` in a transaction: its BEGIN goes out with the first execute, its COMMIT with
    /// ``PostgresTransaction/execute(final:)`` or else by itself when `body` returns.
    ///
    /// When `body` throws, and when a query of it failed even if `body` swallowed that, the transaction is rolled
    /// back and the error thrown on.
    ///
    /// - Throws: what `body` throws; `PostgresError`, with `.commitUnknown` when COMMIT was sent and the connection
    ///   ended before its answer.
    package func transaction<Value>(
        _ options: TransactionOptions = TransactionOptions(), deadline: Deadline,
        _ body: (PostgresTransaction) async throws -> Value
    ) async throws -> Value {
        guard !transactionIsOpen else {
            throw PostgresError(.misuse("a transaction is open on this connection"))
        }
        transactionIsOpen = true
        let transaction = PostgresTransaction(self, options, deadline: deadline)
        defer {
            transaction.leave()
            transactionIsOpen = false
        }
        let value: Value
        do {
            value = try await body(transaction)
        } catch {
            await transaction.rollBack()
            throw error
        }
        try await transaction.complete()
        return value
    }
}

/// A transaction that is open on a connection. Of use only within the body it was given to.
@LoopActor
package final class PostgresTransaction {
    private enum State {
        /// Nothing was sent yet. Can transition to: open, failed, ended.
        case unbegun
        /// Can transition to: failed, ended.
        case open
        /// The server has rolled back, or will. Can transition to: ended.
        case failed(PostgresError)
        case ended
    }

    private let connection: PostgresConnection
    private let options: TransactionOptions
    private let deadline: Deadline
    private var state = State.unbegun

    init(_ connection: PostgresConnection, _ options: TransactionOptions, deadline: Deadline) {
        self.connection = connection
        self.options = options
        self.deadline = deadline
    }

    /// Runs the queries in one round trip. A failure fails the whole transaction.
    package func execute(_ queries: [Query]) async throws(PostgresError) -> [PostgresResult] {
        guard !queries.isEmpty else { return [] }
        return try await run(queries, ending: nil)
    }

    package func execute(_ query: Query) async throws(PostgresError) -> PostgresResult {
        try await execute([query])[0]
    }

    /// Runs the queries and commits, in one round trip: nothing can be executed after it.
    package func execute(final queries: [Query]) async throws(PostgresError) -> [PostgresResult] {
        let results = try await run(queries, ending: .commit)
        state = .ended
        return results
    }

    private func run(
        _ queries: [Query], ending: BatchStep?
    ) async throws(PostgresError) -> [PostgresResult] {
        // A rollback that is interrupted is one all the same; a commit is not.
        var frame = PostgresConnection.Frame(
            ending: ending, cancellation: ending == .commit ? .beforeSending : .always)
        frame.reportsPosition = ending == .commit && options.reportsPosition
        switch state {
        case .unbegun: frame.begin = options.begin
        case .open: break
        case .failed(let error): throw error
        case .ended: throw PostgresError(.misuse("the transaction has ended"))
        }
        do throws(PostgresError) {
            let results = try await connection.run(queries, frame, deadline: deadline)
            // Another call of the same body may have failed meanwhile: that stays.
            if case .unbegun = state { state = .open }
            return results
        } catch {
            state = .failed(error)
            throw error
        }
    }

    /// Runs a script of several statements within the transaction; see ``PostgresConnection/executeScript(_:deadline:)``.
    package func executeScript(_ sql: String) async throws(PostgresError) {
        try await beginAlone()
        do throws(PostgresError) {
            try await connection.runScript(sql, deadline: deadline)
        } catch {
            state = .failed(error)
            throw error
        }
        guard connection.handle.transactionStatus == .open else {
            connection.closeSession()
            let error = PostgresError(.misuse("a script ended the transaction it runs in"))
            state = .failed(error)
            throw error
        }
    }

    /// See ``PostgresConnection/copyIn(_:deadline:_:)``.
    @discardableResult
    package func copyIn(
        _ query: Query, _ next: () async throws -> [UInt8]?
    ) async throws -> Int {
        try await beginAlone()
        do {
            return try await connection.runCopyIn(query, deadline: deadline, next)
        } catch {
            state = .failed(error as? PostgresError ?? PostgresError(.cancelled))
            throw error
        }
    }

    /// See ``PostgresConnection/copyOut(_:deadline:_:)``.
    @discardableResult
    package func copyOut(
        _ query: Query, _ consume: ([UInt8]) async throws -> Void
    ) async throws -> Int {
        try await beginAlone()
        do {
            return try await connection.runCopyOut(query, deadline: deadline, consume)
        } catch {
            state = .failed(error as? PostgresError ?? PostgresError(.cancelled))
            throw error
        }
    }

    /// Scripts and COPY run outside the pipeline, so their BEGIN cannot ride with them.
    private func beginAlone() async throws(PostgresError) {
        guard case .unbegun = state else {
            if case .failed(let error) = state { throw error }
            if case .ended = state { throw PostgresError(.misuse("the transaction has ended")) }
            return
        }
        _ = try await run([], ending: nil)
    }

    /// The body has returned.
    func complete() async throws(PostgresError) {
        switch state {
        case .unbegun, .ended: return
        case .open:
            _ = try await runToEnd(.commit)
        case .failed(let error):
            await rollBack()
            throw error
        }
    }

    private func runToEnd(_ ending: BatchStep) async throws(PostgresError) {
        do throws(PostgresError) {
            _ = try await run([], ending: ending)
            state = .ended
        } catch {
            await rollBack()
            throw error
        }
    }

    /// Ends the transaction without effect. A rollback that fails closes the connection, which comes to the same.
    func rollBack() async {
        defer { state = .ended }
        switch state {
        case .unbegun, .ended: return
        case .open, .failed: break
        }
        guard !connection.isClosed, connection.handle.transactionStatus != .idle else { return }
        let limit = Deadline.after(
            connection.configuration.cancelGrace, from: Loop.now)
        let frame = PostgresConnection.Frame(ending: .rollback, cancellation: .never)
        do throws(PostgresError) {
            _ = try await connection.run([], frame, deadline: limit)
        } catch {
            connection.closeSession()
        }
    }

    /// The body is over: a reference that escaped from it can do nothing any more.
    func leave() {
        state = .ended
        if !connection.isClosed, connection.handle.transactionStatus != .idle {
            connection.closeSession()
        }
    }
}
