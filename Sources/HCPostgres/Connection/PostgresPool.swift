package import HCCore
package import HCIO

/// Sessions with one server and role, lent one at a time.
///
/// `withLease` throws `PoolError` while nothing has been sent yet: its `cause` is the last ``PostgresError`` of
/// connecting, by class. What the body throws comes through as it is. A session that is not usable after a lease
/// (lost, unsettled, left in a transaction, swollen by a large result) is closed.
package typealias PostgresPool = Pool<PostgresConnection>

extension PostgresConnection: PoolResource {
    /// One empty round trip.
    package func check(deadline: Deadline) async throws {
        _ = try await execute(Query("SELECT"), deadline: deadline)
    }
}

extension Pool where Resource == PostgresConnection {
    /// Looks at a new session before anybody gets it, and throws to refuse it: is this the server, the timeline, the
    /// database and the role that it should be? The session is then closed, and the pool counts a failed connect.
    package typealias Identify = @LoopActor (PostgresConnection, Deadline) async throws -> Void

    /// - Parameter postgres: asked before each connect, so that a changed password needs no restart.
    @LoopActor
    package convenience init(
        name: String, configuration: PoolConfiguration, metrics: PoolMetrics? = nil,
        postgres: @escaping @LoopActor () throws -> PostgresConfiguration,
        identify: Identify? = nil
    ) {
        self.init(name: name, configuration: configuration, metrics: metrics) { deadline in
            let connection = try await PostgresConnection.connect(postgres(), deadline: deadline)
            do {
                try await identify?(connection, deadline)
            } catch {
                connection.close()
                throw error
            }
            // Closed before the pool could watch it.
            guard connection.isUsable else {
                connection.close()
                throw PostgresError.connectionLost
            }
            return connection
        }
    }

    /// Runs `body` with a session; the deadline bounds the wait for it.
    package func withConnection<Value>(
        deadline: Deadline, _ body: @LoopActor (PostgresConnection) async throws -> Value
    ) async throws -> Value {
        try await withLease(deadline: deadline, body)
    }
}
