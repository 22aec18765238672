import HCCore
import HCTesting
import Testing

@testable import HCIO

/// A server that a test can break, and the connections to it.
@LoopActor private final class FakeServer {
    struct Down: Error, Equatable {}

    var isUp = true
    /// When set, opening waits for it.
    var door: Gate?
    var isCheckable = true
    private(set) var opened: [FakeConnection] = []

    func connect(_ deadline: Deadline) async throws -> FakeConnection {
        if let door { try await door.wait(until: deadline) }
        guard isUp else { throw Down() }
        let connection = FakeConnection(self)
        opened.append(connection)
        return connection
    }

    func pool(_ configuration: PoolConfiguration, metrics: PoolMetrics? = nil) -> Pool<
        FakeConnection
    > {
        Pool(
            name: "fake", configuration: configuration, metrics: metrics,
            random: SeededRandom(seed: 1)
        ) { try await self.connect($0) }
    }
}

@LoopActor private final class FakeConnection: PoolResource {
    private let server: FakeServer
    private(set) var isClosed = false
    private(set) var checks = 0
    private(set) var isBroken = false
    var onClose: (@LoopActor () -> Void)?

    init(_ server: FakeServer) { self.server = server }

    var isUsable: Bool { !isClosed && !isBroken }

    func markBroken() { isBroken = true }

    func check(deadline: Deadline) async throws {
        checks += 1
        guard server.isCheckable else { throw FakeServer.Down() }
    }

    func close() { isClosed = true }

    /// The server went away.
    func drop() {
        isClosed = true
        onClose?()
    }
}

@Suite(.onLoop) @LoopActor struct PoolTests {
    private struct Failure: Error, Equatable {}

    @Test("a resource is opened once and lent again; errors of the body give it back too")
    func reuse() async throws {
        let server = FakeServer()
        let pool = server.pool(.init(hardLimit: 2))
        let first = try await pool.withLease(deadline: .soon) { ObjectIdentifier($0) }
        await #expect(throws: Failure()) {
            try await pool.withLease(deadline: .soon) { _ in throw Failure() }
        }
        let second = try await pool.withLease(deadline: .soon) { ObjectIdentifier($0) }
        #expect(first == second)
        #expect(server.opened.count == 1)
        #expect(pool.statistics.idle == 1 && pool.statistics.active == 0)
        await pool.shutDown(deadline: .soon)
        #expect(server.opened[0].isClosed)
    }

    @Test("a resource that the body broke is closed, and the next one gets another")
    func broken() async throws {
        let server = FakeServer()
        let pool = server.pool(.init(hardLimit: 1))
        try await pool.withLease(deadline: .soon) { $0.markBroken() }
        #expect(server.opened[0].isClosed)
        try await pool.withLease(deadline: .soon) { #expect(!$0.isClosed) }
        #expect(server.opened.count == 2)
    }

    @Test("a resource whose server went away is replaced, at rest and while it is out")
    func dropped() async throws {
        let server = FakeServer()
        let pool = server.pool(.init(softLimit: 1, hardLimit: 1))
        try await pool.withLease(deadline: .soon) { $0.drop() }
        try await pool.withLease(deadline: .soon) { #expect(!$0.isClosed) }
        server.opened[1].drop()
        try await pool.withLease(deadline: .soon) { #expect(!$0.isClosed) }
        #expect(server.opened.count == 3)
    }

    @Test("leases are served in the order of asking; nobody has a resource beside another")
    func fairness() async throws {
        let server = FakeServer()
        let pool = server.pool(.init(hardLimit: 1))
        var order: [Int] = []
        var lent = 0
        let tasks = (0..<20).map { number in
            Loop.shared.spawn {
                await #expect(throws: Never.self) {
                    try await pool.withLease(deadline: .soon) { _ in
                        lent += 1
                        #expect(lent == 1)
                        await Task.yield()
                        order.append(number)
                        lent -= 1
                    }
                }
            }
        }
        for task in tasks { await task.value }
        #expect(order == Array(0..<20))
        #expect(server.opened.count == 1)
    }

    @Test(
        "who waits too long is told so, and that nothing was begun; who is cancelled leaves the queue"
    )
    func waiting() async throws {
        let server = FakeServer()
        let pool = server.pool(.init(hardLimit: 1, waitersMax: 1))
        let release = Gate()
        let holder = Loop.shared.spawn {
            await #expect(throws: Never.self) {
                try await pool.withLease(deadline: .soon) { _ in await release.wait() }
            }
        }
        let error = await #expect(throws: PoolError.self) {
            try await pool.withLease(deadline: .after(.milliseconds(1), from: Loop.now)) {
                _ in Issue.record("there was nothing to lend")
            }
        }
        #expect(error?.code == .deadlineExceeded)
        #expect(pool.statistics.waiting == 0)
        let cancelled = Loop.shared.spawn {
            await #expect(throws: CancellationError.self) {
                try await pool.withLease(deadline: .soon) { _ in }
            }
        }
        #expect(pool.statistics.waiting == 1)
        let refused = await #expect(throws: PoolError.self) {
            try await pool.withLease(deadline: .soon) { _ in }
        }
        #expect(refused?.code == .queueFull)
        cancelled.cancel()
        await cancelled.value
        #expect(pool.statistics.waiting == 0)
        release.open()
        await holder.value
        #expect(pool.statistics.idle == 1)
    }

    @Test("a lease given to somebody who was cancelled in the same tick goes to the next")
    func grantedTooLate() async throws {
        let server = FakeServer()
        let pool = server.pool(.init(hardLimit: 1))
        let release = Gate()
        let holder = Loop.shared.spawn {
            await #expect(throws: Never.self) {
                try await pool.withLease(deadline: .soon) { _ in await release.wait() }
            }
        }
        let late = Loop.shared.spawn {
            await #expect(throws: CancellationError.self) {
                try await pool.withLease(deadline: .soon) { _ in }
            }
        }
        var wasServed = false
        let next = Loop.shared.spawn {
            await #expect(throws: Never.self) {
                try await pool.withLease(deadline: .soon) { _ in wasServed = true }
            }
        }
        // Its wait is over, but it has not run yet when the resource comes back.
        release.open()
        late.cancel()
        for task in [holder, late, next] { await task.value }
        #expect(wasServed)
        #expect(pool.statistics.idle == 1 && pool.statistics.active == 0)
    }

    @Test("when nothing can be opened the circuit opens; when the server is back, so is the pool")
    func circuit() async throws {
        let server = FakeServer()
        server.isUp = false
        let registry = MetricsRegistry()
        let pool = server.pool(
            .init(
                softLimit: 1, hardLimit: 4, failuresUntilOpen: 2,
                backoffInitial: .milliseconds(1), backoffMaximum: .milliseconds(2)),
            metrics: PoolMetrics(registry, pool: "fake"))
        let refused = await #expect(throws: PoolError.self) {
            try await pool.withLease(deadline: .soon) { _ in }
        }
        #expect(refused?.code == .circuitOpen)
        #expect((refused?.retryAfter ?? .zero) > .zero)
        #expect(refused?.cause is FakeServer.Down)
        server.isUp = true
        // Something is kept warm, so the pool comes back by itself.
        try await Loop.shared.wait { pool.statistics.idle > 0 }
        try await pool.withLease(deadline: .soon) { #expect($0.isUsable) }
        let text = render(registry)
        #expect(text.contains("hc_pool_circuit_openings_total{pool=\"fake\"}"))
        #expect(text.contains("hc_pool_idle{pool=\"fake\"} 1"))
    }

    @Test("a try that takes too long fails, and the next one is made")
    func slowConnect() async throws {
        let server = FakeServer()
        server.door = Gate()
        let pool = server.pool(
            .init(
                hardLimit: 1, connectTimeout: .milliseconds(2), failuresUntilOpen: 1000,
                backoffInitial: .milliseconds(1), backoffMaximum: .milliseconds(1)))
        let lease = Loop.shared.spawn {
            await #expect(throws: Never.self) { try await pool.withLease(deadline: .soon) { _ in } }
        }
        try await Loop.shared.wait { pool.statistics.connectFailures >= 2 }
        server.door = nil
        await lease.value
        #expect(server.opened.count == 1)
    }

    @Test("resources at rest are checked, and dead ones replaced")
    func keepAlive() async throws {
        let server = FakeServer()
        let pool = server.pool(
            .init(softLimit: 1, hardLimit: 1, keepAliveAfter: .milliseconds(1)))
        pool.start()
        try await Loop.shared.wait { (server.opened.first?.checks ?? 0) >= 2 }
        #expect(server.opened.count == 1)
        server.isCheckable = false
        try await Loop.shared.wait { server.opened.count >= 2 }
        #expect(server.opened[0].isClosed)
        server.isCheckable = true
        try await pool.withLease(deadline: .soon) { #expect($0.isUsable) }
        await pool.shutDown(deadline: .soon)
    }

    @Test("shutting down while a resource is being opened gives that up")
    func shutDownWhileConnecting() async throws {
        let server = FakeServer()
        server.door = Gate()
        let pool = server.pool(.init(softLimit: 1, hardLimit: 1))
        pool.start()
        #expect(pool.statistics.connecting == 1)
        await pool.shutDown(deadline: .soon)
        #expect(pool.state == .shutDown && server.opened.isEmpty)
        let refused = await #expect(throws: PoolError.self) {
            try await pool.withLease(deadline: .soon) { _ in }
        }
        #expect(refused?.code == .shutDown)
    }

    @Test("shutting down waits for what is out; after the deadline it is closed under its user")
    func shutDownWhileLent() async throws {
        let server = FakeServer()
        let pool = server.pool(.init(hardLimit: 1))
        let release = Gate()
        let user = Loop.shared.spawn {
            await #expect(throws: Never.self) {
                try await pool.withLease(deadline: .soon) { connection in
                    await release.wait()
                    #expect(connection.isClosed)
                }
            }
        }
        while server.opened.isEmpty { await Task.yield() }
        await pool.shutDown(deadline: .after(.milliseconds(1), from: Loop.now))
        #expect(pool.state == .shuttingDown)
        release.open()
        await user.value
        #expect(pool.state == .shutDown)
    }
}
