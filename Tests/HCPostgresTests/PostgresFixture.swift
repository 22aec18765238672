import HCCore
import HCIO
import HCTesting
import Synchronization

@testable import HCPostgres

/// A schema for each caller, in one database on the servers that the process's tests share.
struct PostgresFixture {
    let database: ShardDatabase
    let schema: String

    /// Kept to the end of the process: dropping a database blocks, and must not do so on the loop.
    private static let databases = Mutex<ShardDatabase?>(nil)
    private static let schemas = Atomic<Int>(0)

    @LoopActor
    static func make() async throws -> PostgresFixture {
        // The services' calls block, so they are made off the loop.
        let database = try await offLoop {
            try databases.withLock { database in
                if let database { return database }
                let made = try LocalServices.shared().makeEmptyDatabase()
                database = made
                return made
            }
        }
        let number = schemas.add(1, ordering: .relaxed).newValue
        let fixture = PostgresFixture(database: database, schema: "test_\(number)")
        let connection = try await fixture.connect()
        try await connection.executeScript("CREATE SCHEMA \(fixture.schema)", deadline: soon())
        connection.close()
        return fixture
    }

    func configuration(
        _ change: (inout PostgresConfiguration) -> Void = { _ in }
    ) -> PostgresConfiguration {
        var configuration = PostgresConfiguration(
            connectionString: Sensitive(database.superuser.description), applicationName: "hc-test")
        configuration.searchPath = schema
        change(&configuration)
        return configuration
    }

    @LoopActor
    func connect(
        _ change: (inout PostgresConfiguration) -> Void = { _ in }
    ) async throws -> PostgresConnection {
        try await PostgresConnection.connect(configuration(change), deadline: soon())
    }

    /// Runs `body` with a connection that is closed afterwards.
    @LoopActor
    static func withConnection(
        _ change: (inout PostgresConfiguration) -> Void = { _ in },
        _ body: (PostgresConnection, PostgresFixture) async throws -> Void
    ) async throws {
        let fixture = try await make()
        let connection = try await fixture.connect(change)
        defer { connection.close() }
        try await body(connection, fixture)
    }
}

/// Far enough away that only a hang reaches it.
@LoopActor
func soon() -> Deadline { .after(.seconds(30), from: Loop.now) }

@LoopActor
func after(_ duration: Duration) -> Deadline { .after(duration, from: Loop.now) }

private let threads = BlockingPool(limits: .init(threadsMax: 4, queuedMax: 1000))

/// Runs blocking work on a thread of its own.
func offLoop<Value: Sendable>(_ work: @escaping @Sendable () throws -> Value) async throws -> Value
{
    try await threads.run(deadline: .never, work)
}

/// The error that `body` throws, as a `PostgresError`.
@LoopActor
func postgresError(
    _ body: () async throws -> Void
) async -> PostgresError? {
    do {
        try await body()
        return nil
    } catch {
        return error as? PostgresError
    }
}
