import HCCore
import HCHTTP
import HCIO
import HCTenancy

/// A TLS listener with its context, and the certificate files that it follows.
@LoopActor
final class SecureListener {
    private let context: TLSContext
    private let follower: TLSCertificateFollower
    private var following: Task<Void, Never>?
    private let logger: Logger

    private init(
        _ files: PlatformTLS, _ configuration: TLSServerConfiguration,
        _ platform: PlatformConfiguration, _ tls: PlatformConfiguration.TLS,
        metrics: TLSMetrics, clocks: Clocks, logger: Logger
    ) throws {
        self.logger = logger
        for problem in files.problems {
            logger.error(
                "certificate refused, its hosts get the default one",
                [
                    ("file", .string(problem.file)), ("problem", .string(problem.problem)),
                    ("remedy", .string(problem.remedy)),
                ])
        }
        context = try TLSContext(server: configuration, clocks: clocks, metrics: metrics)
        follower = TLSCertificateFollower(
            files.loading, directory: tls.certificatesDirectory, baseDomain: platform.baseDomain,
            interval: tls.reloadInterval, contexts: [context],
            blocking: BlockingPool(limits: BlockingPool.Limits(threadsMax: 1, queuedMax: 4)),
            clocks: clocks, logger: logger)
    }

    /// The clients' door.
    /// - Returns: nil if the configuration has no TLS.
    static func clients(
        _ platform: PlatformConfiguration, http: HTTPServerConfiguration, registry: MetricsRegistry,
        clocks: Clocks, logger: Logger
    ) throws -> SecureListener? {
        guard let tls = platform.tls, let files = try PlatformTLS.load(platform, now: clocks.now())
        else { return nil }
        return try SecureListener(
            files,
            TLSServerConfiguration(
                purpose: "clients", certificates: files.certificates,
                applicationProtocols: HTTPServer.applicationProtocols(http), tickets: files.tickets,
                plaintextAnswer: HTTPServer.plaintextAnswer(at:)),
            platform, tls, metrics: TLSMetrics(registry), clocks: clocks, logger: logger)
    }

    /// The operators' door: each connection shows its certificate, no session is resumed.
    /// - Returns: nil if operators need no certificate; they come without TLS then.
    static func operators(
        _ platform: PlatformConfiguration, registry: MetricsRegistry, clocks: Clocks, logger: Logger
    ) throws -> SecureListener? {
        guard let tls = platform.tls, let files = try PlatformTLS.load(platform, now: clocks.now()),
            let authority = files.operators
        else { return nil }
        return try SecureListener(
            files,
            TLSServerConfiguration(
                purpose: "operators", certificates: files.certificates,
                applicationProtocols: ["http/1.1"], clientAuthority: authority,
                plaintextAnswer: HTTPServer.plaintextAnswer(at:)),
            platform, tls, metrics: TLSMetrics(registry, listener: "operators"), clocks: clocks,
            logger: logger)
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
