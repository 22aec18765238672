import HCCore
import HCHTTP
import HCIO
import HCTenancy

/// The worker's TLS listener, and the certificates that it follows.
@LoopActor
final class SecureListener {
    private let context: TLSContext
    private let follower: TLSCertificateFollower
    private var following: Task<Void, Never>?
    private let logger: Logger

    /// - Returns: nil if the configuration has no TLS.
    init?(
        _ platform: PlatformConfiguration, http: HTTPServerConfiguration, registry: MetricsRegistry,
        clocks: Clocks, logger: Logger
    ) throws {
        guard let tls = platform.tls, let files = try PlatformTLS.load(platform, now: clocks.now())
        else { return nil }
        self.logger = logger
        for problem in files.problems {
            logger.error(
                "certificate refused, its hosts get the default one",
                [
                    ("file", .string(problem.file)), ("problem", .string(problem.problem)),
                    ("remedy", .string(problem.remedy)),
                ])
        }
        context = try TLSContext(
            server: TLSServerConfiguration(
                purpose: "public", certificates: files.certificates,
                applicationProtocols: HTTPServer.applicationProtocols(http), tickets: files.tickets,
                plaintextAnswer: HTTPServer.plaintextAnswer),
            clocks: clocks, metrics: TLSMetrics(registry))
        follower = TLSCertificateFollower(
            files.loading, directory: tls.certificatesDirectory, baseDomain: platform.baseDomain,
            interval: tls.reloadInterval, contexts: [context],
            blocking: BlockingPool(limits: BlockingPool.Limits(threadsMax: 1, queuedMax: 4)),
            clocks: clocks, logger: logger)
    }

    func start(_ server: HTTPServer, _ socket: consuming OwnedDescriptor) throws {
        try server.listen(on: Listener(socket), tls: context)
        following = Loop.shared.spawn { [follower, logger] in
            do {
                try await follower.run()
            } catch is CancellationError {
                return
            } catch {
                logger.error(
                    "certificates are not followed any more", [("error", .string("\(error)"))])
            }
        }
    }

    func stop() {
        following?.cancel()
        following = nil
    }
}

extension HTTPServerConfiguration {
    /// What the platform's section on TLS says about connections.
    mutating func apply(_ tls: PlatformConfiguration.TLS?) {
        guard let tls else { return }
        tlsHandshakeTimeout = tls.handshakeTimeout
        tlsHandshakesMax = tls.handshakesMax
        strictTransportSecurity =
            tls.strictTransportSecurity > .zero ? tls.strictTransportSecurity : nil
    }
}
