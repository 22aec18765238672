import HCCore
import HCIO
import HCTesting

@testable import HCHTTP

/// A server on a port of its own, whose timeouts are checked when the test says so if it has a manual clock.
@LoopActor
final class ServerFixture {
    let server: HTTPServer
    let metrics: HTTPServerMetrics
    let address: SocketAddress
    let clock: ManualClock?

    init(
        clock: ManualClock? = nil,
        configuration: HTTPServerConfiguration = HTTPServerConfiguration(),
        responder: any HTTPResponder
    ) throws {
        self.clock = clock
        metrics = HTTPServerMetrics(MetricsRegistry())
        server = HTTPServer(
            configuration, responder: responder, metrics: metrics,
            clocks: clock?.clocks ?? .system)
        let listener = try Listener(try Listener.bind(.loopback(port: 0)))
        address = .loopback(port: listener.localAddress?.port ?? 0)
        try server.listen(on: listener)
    }

    convenience init(
        clock: ManualClock? = nil,
        configuration: HTTPServerConfiguration = HTTPServerConfiguration(),
        _ respond: @escaping @LoopActor (HTTPRequest) async throws -> HTTPResponse
    ) throws {
        try self.init(
            clock: clock, configuration: configuration, responder: ClosureResponder(respond))
    }

    /// Serves a stream that no listener accepted.
    func serve(
        _ stream: any ByteStream, from address: SocketAddress = .loopback(port: 9),
        using wireProtocol: HTTPWireProtocol = .http1
    ) {
        guard case .admitted(let pass) = server.gate.admit(address, by: .plain) else {
            preconditionFailure("there is room")
        }
        server.serve(stream, pass, using: wireProtocol)
    }

    func connect(reading: Bool = true) async throws -> RawClient {
        try await RawClient.connect(address, reading: reading)
    }

    /// One request on a connection of its own.
    func send(_ text: String) async throws -> RawAnswer? {
        let client = try await connect()
        client.send(text)
        defer { client.close() }
        return try await client.answer()
    }

    func advance(by duration: Duration) {
        clock?.advance(by: duration)
        server.checkTimeouts()
    }

    /// To be called at the end of a test, so that the loop holds nothing of it.
    func stop() async {
        server.stopAccepting(emptyingQueue: false)
        _ = await server.drain(
            idleUntil: Deadline(Loop.now), deadline: Deadline(Loop.now))
    }
}

@LoopActor
final class ClosureResponder: HTTPResponder {
    private let respond: @LoopActor (HTTPRequest) async throws -> HTTPResponse

    init(_ respond: @escaping @LoopActor (HTTPRequest) async throws -> HTTPResponse) {
        self.respond = respond
    }

    func answer(_ request: HTTPRequest) -> HTTPAnswer {
        .pending { await self.run(request) }
    }

    private func run(_ request: HTTPRequest) async -> HTTPResponse {
        do {
            return try await respond(request)
        } catch let problem as Problem {
            return problem.response(for: request.id)
        } catch {
            return Problem.internalError.response(for: request.id)
        }
    }
}

/// A gate that a handler waits at until the test opens it.
@LoopActor
final class Gate {
    private var waiters: [Waiter<Void>] = []
    private(set) var isOpen = false
    private(set) var arrivedCount = 0
    private var arrival: (count: Int, waiter: Waiter<Void>)?

    func pass() async throws {
        arrivedCount += 1
        if let arrival, arrivedCount >= arrival.count { arrival.waiter.succeed(()) }
        guard !isOpen else { return }
        let waiter = Waiter<Void>()
        waiters.append(waiter)
        try await waiter.wait(until: .after(RawClient.patience, from: Loop.now))
    }

    func open() {
        isOpen = true
        for waiter in waiters { waiter.succeed(()) }
        waiters = []
    }

    /// Waits until so many have come to the gate.
    func arrivals(_ count: Int) async throws {
        guard arrivedCount < count else { return }
        let waiter = Waiter<Void>()
        arrival = (count, waiter)
        try await waiter.wait(until: .after(RawClient.patience, from: Loop.now))
    }
}
