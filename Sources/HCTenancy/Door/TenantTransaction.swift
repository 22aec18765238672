import HCCore
package import HCIO
package import HCPostgres

/// A transaction that is open inside one clinic. Of use only in the body that got it.
@LoopActor
package final class TenantTransaction {
    private let inner: PostgresTransaction
    private let enter: Query
    private let mode: EnterMode
    private var hasEntered = false
    private var events: [AuditEvent] = []
    private var messages: [OutboxMessage] = []

    /// - Parameter enter: the first statement.
    init(_ inner: PostgresTransaction, enter: Query, mode: EnterMode) {
        self.inner = inner
        self.enter = enter
        self.mode = mode
    }

    /// Runs statements in one round trip. The first call enters the clinic before them.
    ///
    /// A failure fails the whole transaction, even if the body catches it.
    package func execute(_ queries: [Query]) async throws(PostgresError) -> [PostgresResult] {
        guard !queries.isEmpty else { return [] }
        if hasEntered { return try await inner.execute(queries) }
        hasEntered = true
        do throws(PostgresError) {
            let results = try await inner.execute([enter] + queries)
            return Array(results.dropFirst())
        } catch {
            throw error.countedFrom(1)
        }
    }

    package func execute(_ query: Query) async throws(PostgresError) -> PostgresResult {
        try await execute([query])[0]
    }

    /// Records what the transaction does, in the transaction: stored if and only if it commits.
    package func audit(_ event: AuditEvent) {
        precondition(mode == .write, "a read-only transaction stores nothing: use readAudited")
        events.append(event)
    }

    /// Tells others, after the commit.
    package func publish(_ message: OutboxMessage) {
        precondition(mode == .write, "a read-only transaction stores nothing")
        messages.append(message)
    }

    /// Sends what was gathered together with the COMMIT.
    func finish(_ closing: ([AuditEvent], [OutboxMessage]) throws -> [Query]) async throws {
        let queries = try closing(events, messages)
        guard !queries.isEmpty else { return }
        let enter = hasEntered ? [] : [enter]
        hasEntered = true
        do throws(PostgresError) {
            _ = try await inner.execute(final: enter + queries)
        } catch {
            // Our own statements: their index is of no use to the caller.
            throw error.countedFrom(.max)
        }
    }
}
