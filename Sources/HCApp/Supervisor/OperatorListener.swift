import HCCore
import HCHTTP
import HCIO

/// The operator listener: health and metrics, on its own port, never on the public one.
@LoopActor
final class OperatorListener {
    private let server: HTTPServer

    init(_ supervisor: Supervisor, address: SocketAddress, clocks: Clocks) throws {
        var router = Router<OperatorContext>()
        router.add(
            RouteDescription(.get, "/health/live", name: "live", access: .open, bodyBytesMax: 0)
        ) { _, _ in .json(text: #"{"status":"ok"}"#) }
        router.add(
            RouteDescription(.get, "/health/ready", name: "ready", access: .open, bodyBytesMax: 0)
        ) { _, _ in
            var json = JSONWriter()
            json.value(supervisor.status)
            return .json(supervisor.isReady ? .ok : .serviceUnavailable, json.finish())
        }
        router.add(
            RouteDescription(.get, "/metrics", name: "metrics", access: .open, bodyBytesMax: 0)
        ) { _, _ in
            var page = ByteBuffer()
            await supervisor.metrics().render(to: &page)
            var response = HTTPResponse(.ok, body: .buffer(page))
            response.headers.append(
                .contentType, "text/plain; version=0.0.4; charset=utf-8" as StaticString)
            return response
        }
        let application = Application(
            router, middleware: [], makeContext: { _, _ in OperatorContext() },
            problem: { _, _, _ in .internalError })
        server = HTTPServer(
            HTTPServerConfiguration(), responder: application,
            metrics: HTTPServerMetrics(MetricsRegistry()), clocks: clocks)
        try server.listen(on: Listener(Listener.bind(address)))
    }

    func stopAccepting(emptyingQueue: Bool) {
        server.stopAccepting(emptyingQueue: emptyingQueue)
    }
}

/// Nothing is known about a request of an operator but that it came in by the operators' door.
struct OperatorContext: Sendable {}
