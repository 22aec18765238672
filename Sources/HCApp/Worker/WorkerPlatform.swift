import HCClinic
import HCCore
import HCCrypto
import HCHTTP
import HCIO
import HCRedis
import HCTenancy

/// What a worker serves clinics with: the directory, the door, the clinic's services and the routes on top.
@LoopActor
final class WorkerPlatform {
    let application: Application<RequestContext>
    private let directory: DirectoryFollower
    private let redis: RedisClient
    /// Reads events, and waits for them: what else is asked of Redis must not stand in line behind it.
    private let eventReader: RedisClient
    /// Takes in what others void of copies, and waits for it.
    private let copyReader: RedisClient
    private let door: TenantDoor
    private let shards: ShardPools
    private let clocks: Clocks
    private let logger: Logger
    private var group: ServiceGroup?
    private var running: Task<Void, Never>?

    /// Hashes that run at once, and that wait: a login storm is refused rather than queued for minutes.
    private static let hashing = BlockingPool.Limits(threadsMax: 2, queuedMax: 64)

    init(
        configuration: AppConfiguration, slot: Int, clocks: Clocks, logger: Logger,
        registry: MetricsRegistry
    ) throws {
        self.clocks = clocks
        self.logger = logger
        let platform = configuration.platform
        let master = try MasterKey.load(path: platform.masterKeyFile)
        let tokens = try TokenKeyRing.load(path: platform.tokenKeyFile)
        let blocking = BlockingPool(limits: WorkerPlatform.hashing)
        let metrics = TenancyMetrics(registry)
        let name = "hc-server worker \(slot)"
        let (startedAt, process) = WorkerPlatform.process(clocks)

        redis = try RedisClient(
            platform.redis, name: "hc-worker-\(slot)", blocking: blocking, logger: logger,
            metrics: registry)
        eventReader = try RedisClient(
            platform.redis, name: "hc-worker-\(slot)-events", blocking: blocking, logger: logger,
            metrics: registry)
        copyReader = try RedisClient(
            platform.redis, name: "hc-worker-\(slot)-copies", blocking: blocking, logger: logger,
            metrics: registry)
        var pools = ShardPoolConfiguration(
            applicationName: ProcessReport.sessionName(name, process), pools: platform.pools,
            conninfo: { try platform.conninfo("shards/\($0).app") })
        pools.replicas = platform.replicas
        pools.metrics = registry
        let shards = ShardPools(pools, logger: logger, metrics: metrics)
        self.shards = shards
        var following = DirectoryConfiguration(
            applicationName: name, file: platform.directoryFile,
            conninfo: { try platform.conninfo("control.router") })
        following.report = { [schemas = shards.schemas] in
            ProcessReport(
                id: process, name: name, host: CurrentProcess.host,
                processIdentifier: CurrentProcess.identifier, shard: schemas.range,
                startedAt: startedAt, refused: schemas.refused)
        }
        directory = DirectoryFollower(
            following, clocks: clocks, logger: logger, metrics: metrics, blocking: blocking)
        let budget = ConnectionBudget(workers: configuration.workerCount, pools: platform.pools)
        door = TenantDoor(
            directory: directory, shards: shards, redis: redis, master: master,
            processes: budget.processes, clocks: clocks, logger: logger, metrics: metrics,
            events: EventFeedSetup(metrics: EventMetrics(registry), reader: eventReader),
            copies: CoherenceSetup(metrics: CoherenceMetrics(registry), reader: copyReader),
            cache: CacheSetup(platform.cache, metrics: CacheMetrics(registry)))

        let services = ClinicServices(
            ClinicDependencies(
                clocks: clocks, blockingPool: blocking, secrets: try ClinicSecrets(tokens: tokens),
                logger: logger), metrics: registry)
        door.events?.audience = services.events
        let socketMetrics = WebSocketMetrics(registry)
        let sockets = WebSocketEndpoint(
            Routes.eventSockets, metrics: socketMetrics, clocks: clocks,
            onFailure: { error in
                logger.error("a socket's handler failed", [("error", .string("\(error)"))])
            })
        let conformance =
            platform.servesConformance ? Conformance(metrics: socketMetrics, clocks: clocks) : nil
        let observation = ObservationMiddleware(logger: logger, clocks: clocks, registry: registry)
        let admission = AdmissionMiddleware(
            limits: configuration.admission, registry: registry, now: clocks.monotonic())
        let compression = CompressionMetrics(registry)
        let directory = directory
        let crossOrigin = CrossOriginMiddleware<RequestContext>(registry: registry) {
            request, context in
            // Whose clinic it is may not be known yet, or be nobody's: the map says it in memory.
            if let origins = context.withTenant({ $0.tenant.origins }) {
                return CrossOriginPolicy(origins: origins)
            }
            guard request.headers.contains(.origin),
                let record = directory.snapshot?.find(host: request.host), record.isServed
            else { return nil }
            return CrossOriginPolicy(origins: record.origins)
        }
        let router = Routes.all(
            services, clocks: clocks, sockets: sockets,
            assets: try configuration.assetsDirectory.map {
                try AssetCatalog(directory: $0, mount: AppConfiguration.assetsMount)
            }, conformance: conformance)
        application = Application(
            router,
            middleware: [
                observation, crossOrigin, admission,
                CompressionMiddleware(EncoderPool(), metrics: compression),
                RevalidationMiddleware(),
                TenantMiddleware(door: door),
                AccessMiddleware(auth: services.auth, routes: router.routes),
                ReadAfterMiddleware(),
                RequestDecodingMiddleware(metrics: compression),
            ],
            makeContext: { _, match in RequestContext(match: match) },
            problem: { error, request, context in
                if let problem = ErrorResponses.problem(for: error) { return problem }
                logger.error(
                    "request failed",
                    [
                        ("requestId", .string(request.id.description)),
                        ("route", .string(context.match.route?.name ?? "none")),
                        ("error", .string("\(error)")),
                    ])
                return .internalError
            })
    }

    /// Gets the first map and starts what follows it.
    /// - Returns: where the map came from.
    /// - Throws: `TenancyError.directoryUnavailable` when there is neither a control database nor a map on disk.
    func start(directoryDeadline: Deadline) async throws -> String {
        let origin = try await directory.load(deadline: directoryDeadline)
        redis.start()
        eventReader.start()
        copyReader.start()
        let sweeper: [any Service] = door.sweeper.map { [$0] } ?? []
        let group = ServiceGroup(
            door.services + sweeper + [shards.reporter, shards.schemas], logger: logger)
        self.group = group
        running = Loop.shared.spawn {
            do {
                try await group.run()
            } catch {
                // The group ends only when it is told to; a service that ends by itself ends the worker.
                preconditionFailure("a service of the worker ended: \(error)")
            }
        }
        return origin.rawValue
    }

    func stop() async {
        await door.coherence?.leave()
        await directory.leave(
            deadline: .after(WorkerPlatform.farewellPatience, from: clocks.monotonic()))
        group?.shutDown()
        await running?.value
        await shards.shutDown(deadline: .after(.seconds(2), from: clocks.monotonic()))
        redis.close()
        eventReader.close()
        copyReader.close()
    }

    /// What a worker's start needs of files, tried before anything is opened.
    nonisolated static func checkFiles(_ configuration: AppConfiguration) throws {
        _ = try MasterKey.load(path: configuration.platform.masterKeyFile)
        _ = try TokenKeyRing.load(path: configuration.platform.tokenKeyFile)
        if let directory = configuration.assetsDirectory {
            try AssetCatalog.check(directory: directory, mount: AppConfiguration.assetsMount)
        }
        _ = try PlatformTLS.load(configuration.platform, now: Clocks.system.now())
    }

    /// The application, behind the redirect to TLS where the profile asks for it.
    func responder(_ platform: PlatformConfiguration) -> any HTTPResponder {
        guard platform.profile == .production else { return application }
        return SecureRedirect(
            application, baseDomain: platform.baseDomain,
            port: platform.tls?.publicPort ?? platform.server.tlsPort
        ) { [directory] host in directory.snapshot?.find(host: host) != nil }
    }

    /// Adds what is known only here.
    func append(to snapshot: inout MetricsSnapshot) { door.appendTenantUse(to: &snapshot) }

    var isServing: Bool { directory.snapshot != nil && shards.schemas.isServing }

    /// Waits until there is a shard that this program can serve.
    func untilServing() async throws { try await shards.schemas.untilServing() }

    /// What is not served, and why.
    var refusals: WorkerMessage.Refusals {
        WorkerMessage.Refusals(
            control: directory.refusal.map { "\($0)" },
            shards: shards.schemas.refused.map { (id: $0.shard.text, reason: "\($0.refusal)") })
    }

    private static let farewellPatience = Duration.seconds(1)

    /// Since when this process is there, and how it is called in the control database.
    private static func process(_ clocks: Clocks) -> (startedAt: Timestamp, id: UUID) {
        var random = SystemRandom()
        let startedAt = clocks.now()
        return (startedAt, UUID.v7(at: startedAt, using: &random))
    }
}
