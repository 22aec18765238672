import CLinux
import HCClinic
import HCCore
import HCCrypto
import HCHTTP
import HCIO
import HCRedis
import HCTenancy

/// One worker process: everything is built here, top to bottom, and torn down in the reverse order.
///
/// It inherits its listening socket and a channel to the supervisor, serves until SIGTERM, drains and exits. A
/// supervisor that is gone (the channel ends) means the same as SIGTERM.
@LoopActor
final class WorkerProgram {
    /// `hc-server --worker SLOT` is how a supervisor starts a worker; nobody else does.
    nonisolated static let argument = "--worker"
    nonisolated static let listenerDescriptor: Int32 = 3
    nonisolated static let channelDescriptor: Int32 = 4
    /// The text that the supervisor has validated, which may be older or newer than the file.
    nonisolated static let configurationDescriptor: Int32 = 5

    /// Open if there is TLS.
    nonisolated static let secureListenerDescriptor: Int32 = 6

    private static let heartbeatInterval = Duration.seconds(1)
    /// What a start waits for the control database before it takes the last good map from disk.
    private static let directoryPatience = Duration.seconds(3)
    private static let deathPatience = Duration.milliseconds(100)
    /// Idle connections may still bring a request for this long while the worker drains.
    private static let idlePatience = Duration.seconds(5)

    private let configuration: AppConfiguration
    private let clocks: Clocks
    private let logger: Logger
    private let registry: MetricsRegistry
    private let stopping = Waiter<Void>()
    private let supervisor = ParentProcess.identifier
    private let platform: WorkerPlatform
    private let server: HTTPServer
    private let secure: SecureListener?
    private var channel: WorkerChannel?
    /// Until there is a shard that can be served.
    private var waiting: Task<Void, any Error>?

    init(configuration: AppConfiguration, slot: Int, clocks: Clocks, logger: Logger) throws {
        self.configuration = configuration
        self.clocks = clocks
        self.logger = logger
        let registry = MetricsRegistry()
        self.registry = registry
        Loop.shared.metrics = LoopMetrics(registry)
        platform = try WorkerPlatform(
            configuration: configuration, slot: slot, clocks: clocks, logger: logger,
            registry: registry)
        var http = configuration.http
        http.apply(configuration.platform.tls)
        server = HTTPServer(
            http, responder: platform.responder(configuration.platform),
            metrics: HTTPServerMetrics(registry), clocks: clocks)
        secure = try SecureListener.clients(
            configuration.platform, http: http, registry: registry, clocks: clocks, logger: logger)
    }

    /// - Returns: when everything that was accepted has been answered.
    func run() async throws {
        let channel = WorkerChannel(
            OwnedDescriptor(WorkerProgram.channelDescriptor),
            onMessage: { [unowned self] in receive($0) },
            onEnd: { [unowned self] in channelEnded() })
        self.channel = channel
        channel.start()

        let origin = try await platform.start(
            directoryDeadline: .after(WorkerProgram.directoryPatience, from: clocks.monotonic()))
        logger.info("directory loaded", [("origin", .string(origin))])
        beat()
        guard try await hasWorkToDo() else { return await platform.stop() }
        try server.listen(on: Listener(OwnedDescriptor(WorkerProgram.listenerDescriptor)))
        try startSecureListener()
        channel.send(.ready)

        try await stopping.wait(until: .never)
        await drain()
    }

    /// A program that knows the schema of no shard takes over from nobody: while it waits, those that serve go on, and a roll
    /// that brought it is abandoned.
    ///
    /// - Returns: false if it was told to stop before.
    private func hasWorkToDo() async throws -> Bool {
        if platform.isServing { return true }
        logger.error("no shard can be served, waiting for one: hc-admin migrate status")
        let waiting = Loop.shared.makeTask { [platform] in try await platform.untilServing() }
        self.waiting = waiting
        defer { self.waiting = nil }
        guard stopping.isPending else { return false }
        do {
            try await waiting.value
            return true
        } catch is CancellationError {
            return false
        }
    }

    /// A supervisor that was started without TLS has no socket for it until it is started anew.
    private func startSecureListener() throws {
        guard let secure else { return }
        guard Listener.isListening(WorkerProgram.secureListenerDescriptor) else {
            logger.warning("no TLS before the next start: there is no socket for it")
            return
        }
        try secure.start(server, OwnedDescriptor(WorkerProgram.secureListenerDescriptor))
    }

    /// SIGTERM, or the end of the supervisor.
    func stop() {
        waiting?.cancel()
        _ = stopping.succeed(())
    }

    /// The supervisor is gone, or does not understand us. In the first case its death is told by a signal too, but a
    /// little later (man PR_SET_PDEATHSIG), and only then is it certain.
    private func channelEnded() {
        Loop.shared.schedule(after: WorkerProgram.deathPatience) { [weak self] in self?.stop() }
    }

    /// A supervisor that lives hands our sockets to a successor, or has ended their queues itself.
    private func stopQueueingIfOrphaned() {
        guard ParentProcess.identifier != supervisor else { return }
        logger.warning("the supervisor is gone")
        do {
            try server.stopQueueing()
        } catch {
            logger.warning("connections may be reset", [("error", .string("\(error)"))])
        }
    }

    private func drain() async {
        logger.notice("draining", [("connections", .integer(server.connectionCount))])
        stopQueueingIfOrphaned()
        // What the kernel has accepted for this socket is ours to answer, or the successor takes it: both are safe.
        server.stopAccepting(emptyingQueue: true)
        let now = clocks.monotonic()
        let cut = await server.drain(
            idleUntil: .after(WorkerProgram.idlePatience, from: now),
            deadline: .after(configuration.drain, from: now))
        secure?.stop()
        if cut > 0 { logger.warning("connections cut at the deadline", [("count", .integer(cut))]) }
        await platform.stop()
        logger.notice("drained")
    }

    private func receive(_ message: WorkerMessage) {
        guard case .metricsWanted(let request) = message else { return }
        channel?.send(.metrics(request: request, snapshot()))
    }

    private func beat() {
        let lag = Loop.shared.takeLag()
        Loop.shared.metrics?.update(lag: lag)
        channel?.send(
            .heartbeat(
                WorkerMessage.Heartbeat(
                    residentBytes: ResourceUsage.residentBytes,
                    lagMicroseconds: Int(max(lag.longestTick, lag.timerLateness).inMicroseconds),
                    connections: server.connectionCount, isServing: platform.isServing,
                    refusals: platform.refusals)))
        Loop.shared.schedule(after: WorkerProgram.heartbeatInterval) { [weak self] in self?.beat() }
    }

    private func snapshot() -> MetricsSnapshot {
        resident.set(ResourceUsage.residentBytes)
        var snapshot = registry.snapshot()
        platform.append(to: &snapshot)
        return snapshot
    }

    private lazy var resident = registry.gauge(
        "hc_process_resident_bytes", "Resident memory of the worker.")
}
