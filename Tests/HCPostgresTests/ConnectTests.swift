import HCCore
import HCIO
import HCTesting
import Testing

@testable import HCPostgres

@Suite("connecting", .onLoop) @LoopActor
struct ConnectTests {
    private func failure(
        _ connectionString: String, deadline: Deadline? = nil
    ) async -> PostgresError? {
        await postgresError {
            let configuration = PostgresConfiguration(
                connectionString: Sensitive(connectionString), applicationName: "hc-test")
            try await PostgresConnection.connect(configuration, deadline: deadline ?? soon())
                .close()
        }
    }

    private func expect(
        _ error: PostgresError?, _ expected: PostgresError.ConnectFailure,
        _ location: SourceLocation = #_sourceLocation
    ) {
        guard case .connectFailed(let failure)? = error?.kind else {
            Issue.record("\(String(describing: error))", sourceLocation: location)
            return
        }
        #expect(failure == expected, sourceLocation: location)
    }

    @Test("nobody there")
    func unreachable() async {
        expect(await failure("host=/nowhere user=x dbname=x"), .unreachable)
        expect(await failure("host=127.0.0.1 port=1 user=x dbname=x"), .unreachable)
        expect(await failure("host=name.invalid user=x dbname=x"), .unreachable)
    }

    @Test("a string that is no connection string")
    func invalid() async {
        expect(await failure("not a connection string"), .invalidConfiguration)
        expect(await failure("nonsense=1"), .invalidConfiguration)
    }

    @Test("a database that is not there")
    func unknownDatabase() async throws {
        let fixture = try await PostgresFixture.make()
        expect(
            await failure(fixture.database.superuser.database("nowhere").description),
            .unknownDatabase)
    }

    @Test("a wrong password")
    func wrongPassword() async throws {
        let fixture = try await PostgresFixture.make()
        var conninfo = fixture.database.app
        conninfo["password"] = "wrong"
        expect(await failure(conninfo.description), .authentication)
    }

    @Test(
        "what a server says instead of a welcome",
        arguments: [
            ("57P03", PostgresError.ConnectFailure.startingUp),
            ("53300", .tooManyConnections),
            ("28000", .authentication),
            ("XX000", .other(SQLState("XX000"))),
        ])
    func refused(sqlstate: String, expected: PostgresError.ConnectFailure) async throws {
        let server = try await offLoop { try RefusingServer(sqlstate: sqlstate) }
        expect(await failure("host=\(server.directory) port=5432 user=x dbname=x"), expected)
    }

    @Test("the second of two hosts is tried when the first is not there")
    func twoHosts() async throws {
        let fixture = try await PostgresFixture.make()
        var conninfo = fixture.database.superuser
        conninfo["host"] = "/nowhere,\(conninfo["host"] ?? "")"
        let port = conninfo["port"] ?? "5432"
        conninfo["port"] = "\(port),\(port)"
        #expect(await failure(conninfo.description) == nil)
    }

    @Test("a server that accepts and then says nothing meets the deadline")
    func silent() async throws {
        let fixture = try await PostgresFixture.make()
        let proxy = try await offLoop { try ProtocolProxy(to: fixture.database.superuser) }
        proxy.setFilter { _, _ in .goSilent }
        let error = await failure(
            proxy.conninfo(like: fixture.database.superuser).description,
            deadline: after(.milliseconds(100)))
        guard case .deadlineExceeded? = error?.kind else {
            Issue.record("\(String(describing: error))")
            return
        }
    }
}

@Suite("listening", .onLoop) @LoopActor
struct ListenerTests {
    /// The listener's events, one after the other.
    private final class Events {
        private var waiting: [PostgresListener.Event] = []
        private var waiter: Waiter<Void>?

        @LoopActor
        func add(_ event: PostgresListener.Event) {
            waiting.append(event)
            waiter?.succeed(())
        }

        @LoopActor
        func next() async throws -> PostgresListener.Event {
            while waiting.isEmpty {
                let waiter = Waiter<Void>()
                self.waiter = waiter
                try await waiter.wait(until: soon())
            }
            return waiting.removeFirst()
        }
    }

    @Test("notifications arrive, also after the connection was lost and made again")
    func reconnects() async throws {
        try await PostgresFixture.withConnection { connection, fixture in
            let events = Events()
            var configuration = PostgresListener.Configuration()
            configuration.backoff = Backoff(initial: .milliseconds(1), maximum: .milliseconds(10))
            let listener = PostgresListener(
                fixture.configuration { $0.applicationName = "hc-listener" },
                channels: ["hc_placement", "odd \"name"], configuration: configuration
            ) { events.add($0) }
            let isOver = Waiter<Void>()
            let task = Loop.shared.spawn {
                do {
                    try await listener.run()
                    isOver.succeed(())
                } catch {
                    isOver.fail(error)
                }
            }
            for round in 0..<2 {
                guard case .connected = try await events.next() else {
                    Issue.record("not connected in round \(round)")
                    return
                }
                _ = try await connection.execute(
                    [
                        Query("SELECT pg_notify('hc_placement', $1)", [.text("\(round)")]),
                        Query("SELECT pg_notify('odd \"name', '')"),
                    ], deadline: soon())
                guard case .notification(let first) = try await events.next(),
                    case .notification(let second) = try await events.next()
                else {
                    Issue.record("no notifications in round \(round)")
                    return
                }
                #expect(first.channel == "hc_placement")
                #expect(first.payload == "\(round)")
                #expect(first.processID == connection.processID)
                #expect(second.channel == "odd \"name")
                _ = try await connection.execute(
                    Query(
                        """
                        SELECT pg_terminate_backend(pid) FROM pg_stat_activity
                        WHERE application_name = 'hc-listener' AND datname = current_database()
                        """), deadline: soon())
                guard case .disconnected = try await events.next() else {
                    Issue.record("not told of the loss in round \(round)")
                    return
                }
            }
            task.cancel()
            try await isOver.wait(until: soon())
        }
    }
}
