import HCCore
import HCHTTP
import HCIO
import HCTenancy

/// The operator listener: health, metrics and what clinics use, on its own port, never on the public one. With `ops.clientCA` by TLS,
/// and only for who shows a certificate of those authorities.
@LoopActor
final class OperatorListener {
    private let server: HTTPServer
    private let secure: SecureListener?

    /// Long enough for a request that is on its way.
    private static let idlePatience = Duration.milliseconds(250)
    private static let patience = Duration.seconds(2)

    init(
        _ supervisor: Supervisor, socket: consuming OwnedDescriptor,
        platform: PlatformConfiguration, registry: MetricsRegistry,
        clocks: Clocks, logger: Logger
    ) throws {
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
            RouteDescription(
                .get, "/metrics", name: "metrics", access: .open, mayCompress: true,
                bodyBytesMax: 0)
        ) { _, _ in
            var page = ByteBuffer()
            await supervisor.metricsPage().render(to: &page)
            var response = HTTPResponse(.ok, body: .buffer(page))
            response.headers.append(
                .contentType, "text/plain; version=0.0.4; charset=utf-8" as StaticString)
            return response
        }
        router.add(
            RouteDescription(
                .get, "/tenants/use", name: "tenantUse", access: .open, mayCompress: true,
                bodyBytesMax: 0)
        ) { _, _ in
            var json = JSONWriter()
            json.value(TenantUsePage(await supervisor.metricsPage()).json(at: clocks.monotonic()))
            return .json(json.finish())
        }
        let compression = CompressionMiddleware<OperatorContext>(
            EncoderPool(), metrics: CompressionMetrics(.unread))
        let application = Application(
            router, middleware: [compression], makeContext: { _, _ in OperatorContext() },
            problem: { _, _, _ in .internalError })
        server = HTTPServer(
            HTTPServerConfiguration(), responder: application,
            metrics: HTTPServerMetrics(.unread), clocks: clocks)
        secure = try SecureListener.operators(
            platform, registry: registry, clocks: clocks, logger: logger)
        if let secure {
            try secure.start(server, socket)
        } else {
            try server.listen(on: Listener(socket))
        }
    }

    /// Answers what was asked, and closes.
    func finish(clocks: Clocks) async {
        secure?.stop()
        server.stopAccepting(emptyingQueue: false)
        let now = clocks.monotonic()
        _ = await server.drain(
            idleUntil: .after(OperatorListener.idlePatience, from: now),
            deadline: .after(OperatorListener.patience, from: now))
    }

    func stopAccepting(emptyingQueue: Bool) {
        secure?.stop()
        server.stopAccepting(emptyingQueue: emptyingQueue)
    }
}

/// Nothing is known about a request of an operator but that it came in by the operators' door.
final class OperatorContext: Sendable {}
