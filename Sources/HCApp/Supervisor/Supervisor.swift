import CLinux
import HCCore
import HCHTTP
import HCIO
import HCTenancy

/// Carries out what `SupervisorStateMachine` decides: spawns workers on their listening sockets, listens to their
/// heartbeats, signals them, and answers the operator listener. `Supervisor+Upgrade` replaces its program.
@LoopActor
final class Supervisor {
    /// What the supervisor knows of one worker process.
    final class Worker {
        let slot: Int
        let generation: Int
        let child: ChildProcess
        var channel: WorkerChannel?
        var heartbeat: WorkerMessage.Heartbeat?
        /// Its last metrics: counters of a worker that died must not vanish from the totals.
        var metrics: MetricsSnapshot?
        /// In the order in which they were started or taken over.
        var number = 0

        init(slot: Int, generation: Int, child: ChildProcess) {
            self.slot = slot
            self.generation = generation
            self.child = child
        }
    }

    /// What the workers were started with before, kept until the first of the new ones is ready.
    enum Fallback {
        case configuration(ConfigurationSnapshot)
        case program(ProgramFile, ConfigurationSnapshot)
    }

    /// The program that runs. A worker that is started is of it too, whatever lies at its path by now.
    let program: ProgramFile
    let environment: [String]
    private(set) var logger: Logger
    private let makeLogger: @LoopActor (AppConfiguration) -> Logger
    let clocks: Clocks
    var configuration: ConfigurationSnapshot
    var fallback: Fallback?
    private(set) var sockets: ListeningSockets
    var machine: SupervisorStateMachine
    private(set) var workers: [Int32: Worker] = [:]
    private var workerCount = 0
    private let isAdopted: Bool

    var upgrade = UpgradeStateMachine()
    var upgradeCheck: ChildProcess?
    var candidate: (program: ProgramFile, configuration: ConfigurationSnapshot)?
    private var operations: OperatorListener?

    /// Totals of workers that are gone, and of programs that ran in this process before.
    private var retired = MetricsSnapshot()
    private var metricsRound = MetricsRound()
    let metrics: SupervisorMetrics
    private let finished = Waiter<Void>()

    /// How long one worker may take to send its metrics before the page is made without them.
    private static let metricsPatience = Duration.seconds(1)
    private static let tickInterval = Duration.milliseconds(100)

    /// - Parameters:
    ///   - sockets: owned by the supervisor for its whole life.
    ///   - limits: of the validated configuration.
    ///   - state: what the program that ran in this process before has left.
    init(
        program: ProgramFile, configuration: ConfigurationSnapshot, sockets: ListeningSockets,
        limits: SupervisorStateMachine.Limits, environment: [String], clocks: Clocks,
        adopting state: UpgradeState? = nil, logger: Logger,
        makeLogger: @escaping @LoopActor (AppConfiguration) -> Logger
    ) throws {
        self.program = program
        self.configuration = configuration
        self.sockets = sockets
        self.environment = environment
        self.logger = logger
        self.makeLogger = makeLogger
        self.clocks = clocks
        isAdopted = state != nil
        metrics = SupervisorMetrics()
        if let state {
            machine = SupervisorStateMachine(
                adopting: state.workers.map(\.member), slots: sockets.slotCount,
                generation: state.generation, limits: limits, now: clocks.monotonic())
            retired = state.totals
            for worker in state.workers { try adopt(worker) }
            fallback = try state.previous.map { previous in
                .program(
                    try ProgramFile(path: state.path, descriptor: OwnedDescriptor(previous.file)),
                    try ConfigurationSnapshot(
                        source: configuration.source, inherited: previous.configuration))
            }
        } else {
            machine = SupervisorStateMachine(slots: sockets.slotCount, limits: limits)
        }
    }

    /// Returns when every worker has left after SIGTERM.
    func run() async throws {
        try openOperations()
        if isAdopted {
            logger.notice(
                "program replaced",
                [
                    ("file", .string(program.path)), ("identity", .string("\(program.identity)")),
                    ("workers", .integer(workers.count)),
                ])
            metrics.upgrades[.replaced]?.increment()
            perform(machine.resume(now: clocks.monotonic()))
        } else {
            perform(machine.start())
        }
        scheduleTick()
        try await finished.wait(until: .never)
        operations?.stopAccepting(emptyingQueue: true)
    }

    // MARK: Signals

    /// SIGHUP: reads the configuration again and replaces the workers by some that have it. One that is not valid
    /// changes nothing.
    func hangup() {
        guard machine.isRunning else { return }
        let validated: AppConfiguration
        do {
            let snapshot = try readConfiguration()
            validated = try snapshot.validate(environment: ProcessEnvironment.current)
            try WorkerPlatform.checkFiles(validated)
            // New workers would not have a certificate that the present ones still hold.
            let problems = PlatformTLS.problems(validated.platform, now: clocks.now())
            guard problems.isEmpty else { throw PlatformTLS.Refusal(problems: problems) }
            let before = try configuration.validate(environment: ProcessEnvironment.current)
            let operations = before.platform.operations != validated.platform.operations
            for setting in try sockets.stale(validated) + (operations ? ["ops.clientCA"] : []) {
                logger.warning(
                    "setting takes effect with the next start", [("setting", .string(setting))])
            }
            if fallback == nil { fallback = .configuration(configuration) }
            configuration = snapshot
        } catch {
            metrics.configurationRefusals.increment()
            logger.error("configuration refused, nothing changes", [("error", .string("\(error)"))])
            return
        }
        logger = makeLogger(validated)
        machine.limits = validated.supervisor
        logger.notice("rolling the workers")
        perform(machine.hangup(now: clocks.monotonic()))
    }

    /// SIGTERM and SIGINT.
    func terminate() {
        logger.notice("draining the workers")
        perform(upgrade.terminated())
        if machine.isRunning {
            do {
                try sockets.closeClients()
            } catch {
                // All that is lost is the certainty about who connects in the moment of the end.
                logger.warning("connections may be reset", [("error", .string("\(error)"))])
            }
        }
        perform(machine.terminate(now: clocks.monotonic()))
    }

    func readConfiguration() throws -> ConfigurationSnapshot {
        try ConfigurationSnapshot(
            source: configuration.source,
            bytes: try AppConfiguration.read(configuration.source))
    }

    private func scheduleTick() {
        Loop.shared.schedule(after: Supervisor.tickInterval) { [self] in
            perform(machine.tick(now: clocks.monotonic()))
            perform(upgrade.tick(now: clocks.monotonic()))
            scheduleTick()
        }
    }

    // MARK: Actions

    private func perform(_ actions: [SupervisorStateMachine.Action]) {
        for action in actions {
            switch action {
            case .spawn(let slot): spawn(slot)
            case .drain(let process):
                workers[process]?.child.signal(SIGTERM)
            case .kill(let process, let reason):
                logger.error(
                    "worker killed",
                    [("pid", .integer(Int(process))), ("reason", .string(reason.rawValue))])
                metrics.kills[reason]?.increment()
                workers[process]?.child.signal(SIGKILL)
            case .rollFinished:
                metrics.rolls[.finished]?.increment()
                logger.notice("roll finished", [("generation", .integer(machine.generation))])
            case .rollAbandoned(let isProven):
                metrics.rolls[.abandoned]?.increment()
                logger.error(
                    "roll abandoned: a new worker could not start; the others go on serving",
                    [("generation", .integer(machine.generation))])
                if !isProven { fallBack() }
            case .exit:
                _ = finished.succeed(())
            }
        }
        if machine.isProven { fallback = nil }
    }

    /// Nothing that was started with the present program and configuration has ever been ready.
    private func fallBack() {
        switch fallback {
        case nil: break
        case .configuration(let previous):
            logger.error("the configuration before is in use again")
            configuration = previous
            fallback = nil
        case .program:
            logger.error("putting the program before back")
            perform(upgrade.revertRequested(now: clocks.monotonic()))
        }
    }

    private func spawn(_ slot: Int) {
        do {
            let pair = try OwnedDescriptor.socketPair()
            // The file that this process runs, whatever lies at its path by now (man proc_pid_exe).
            var descriptors = [
                (sockets.descriptor(.http, slot: slot), WorkerProgram.listenerDescriptor),
                (pair.second.rawValue, WorkerProgram.channelDescriptor),
                (configuration.descriptor, WorkerProgram.configurationDescriptor),
            ]
            if let socket = sockets.find(.https, slot: slot) {
                descriptors.append((socket, WorkerProgram.secureListenerDescriptor))
            }
            let child = try ChildProcess.spawn(
                path: "/proc/self/exe",
                arguments: [program.path, WorkerProgram.argument, String(slot)],
                environment: environment, descriptors: descriptors)
            let process = child.processIdentifier
            let worker = Worker(slot: slot, generation: machine.generation, child: child)
            open(worker, OwnedDescriptor(pair.releaseFirst()))
            logger.info(
                "worker started",
                [
                    ("pid", .integer(Int(process))), ("slot", .integer(slot)),
                    ("generation", .integer(machine.generation)),
                ])
            perform(machine.spawned(process: process, slot: slot, now: clocks.monotonic()))
        } catch {
            logger.error(
                "a worker cannot be started",
                [("slot", .integer(slot)), ("error", .string("\(error)"))])
            perform(machine.spawnFailed(slot: slot, now: clocks.monotonic()))
        }
    }

    private func adopt(_ state: UpgradeState.Worker) throws {
        let known = state.member.worker
        let worker = Worker(
            slot: state.member.slot, generation: known.generation,
            child: try ChildProcess.adopt(known.process))
        worker.heartbeat = state.heartbeat
        worker.metrics = state.metrics
        guard state.channel >= 0 else {
            open(worker, nil)
            return
        }
        let socket = OwnedDescriptor(state.channel)
        try socket.setCloseOnExec()
        open(worker, socket, received: state.received, unsent: state.unsent)
    }

    /// Enters a worker in the books: from now on its messages and its end are heard.
    private func open(
        _ worker: Worker, _ socket: consuming OwnedDescriptor?, received: [UInt8] = [],
        unsent: [UInt8] = []
    ) {
        let child = worker.child
        let process = child.processIdentifier
        workerCount += 1
        worker.number = workerCount
        workers[process] = worker
        if let socket {
            let channel = WorkerChannel(
                socket, received: received, unsent: unsent,
                onMessage: { [unowned self] in receive($0, from: process) }, onEnd: {})
            worker.channel = channel
            channel.start()
        }
        Loop.shared.spawn { [self] in
            let status = await child.exit()
            ended(process, status)
        }
    }

    private func ended(_ process: Int32, _ status: ChildProcess.ExitStatus) {
        metrics.exits.increment()
        logger.log(
            status.isSuccess ? .info : .error, "worker ended",
            [("pid", .integer(Int(process))), ("status", .string("\(status)"))])
        if let worker = workers.removeValue(forKey: process) {
            worker.channel?.close()
            if let metrics = worker.metrics { retired.mergeTotals(metrics) }
            metricsRound.left(process)
        }
        perform(machine.exited(process: process, now: clocks.monotonic()))
    }

    private func receive(_ message: WorkerMessage, from process: Int32) {
        guard let worker = workers[process] else { return }
        switch message {
        case .ready:
            logger.info(
                "worker ready", [("pid", .integer(Int(process))), ("slot", .integer(worker.slot))])
            perform(machine.ready(process: process, now: clocks.monotonic()))
        case .heartbeat(let beat):
            worker.heartbeat = beat
            let actions = machine.heartbeat(
                process: process, residentBytes: beat.residentBytes, now: clocks.monotonic())
            if actions.contains(.spawn(slot: worker.slot)) {
                metrics.memoryReplacements.increment()
                logger.warning(
                    "worker above its memory ceiling, a successor takes over",
                    [
                        ("pid", .integer(Int(process))),
                        ("residentBytes", .integer(beat.residentBytes)),
                        ("ceiling", .integer(machine.limits.memoryBytesMax)),
                    ])
            }
            perform(actions)
        case .metrics(let request, let snapshot):
            worker.metrics = snapshot
            metricsRound.arrived(process, request: request)
        case .metricsWanted, .unknown:
            break
        }
    }

    // MARK: The operator listener

    func openOperations() throws {
        let validated = try configuration.validate(environment: ProcessEnvironment.current)
        operations = try OperatorListener(
            self, socket: sockets.duplicate(.operations), platform: validated.platform,
            registry: metrics.registry, clocks: clocks, logger: logger)
    }

    /// Answers what was asked and closes the connections. New ones wait in the socket's queue.
    func closeOperations() async {
        await operations?.finish(clocks: clocks)
        operations = nil
    }

    /// Whether a load balancer may send requests here.
    var isReady: Bool {
        machine.isRunning && machine.readyCount > 0
            && workers.values.contains { $0.heartbeat?.isServing ?? false }
    }

    var status: JSONValue {
        [
            "ready": .bool(isReady),
            "generation": .integer(Int64(machine.generation)),
            "rolling": .bool(machine.isRolling),
            "upgrading": .bool(upgrade.isBusy),
            "workersReady": .integer(Int64(machine.readyCount)),
            "refusals": refusals,
            "workers": .array(
                workers.sorted { $0.key < $1.key }.map { process, worker in
                    [
                        "pid": .integer(Int64(process)), "slot": .integer(Int64(worker.slot)),
                        "generation": .integer(Int64(worker.generation)),
                        "serving": .bool(worker.heartbeat?.isServing ?? false),
                        "residentBytes": .integer(Int64(worker.heartbeat?.residentBytes ?? 0)),
                        "lagMicroseconds": .integer(Int64(worker.heartbeat?.lagMicroseconds ?? 0)),
                        "connections": .integer(Int64(worker.heartbeat?.connections ?? 0)),
                    ]
                }),
        ]
    }

    /// What workers do not serve, and why: nothing of it makes the others' clinics wait.
    private var refusals: JSONValue {
        let known = workers.values.compactMap { $0.heartbeat?.refusals }
        var shards: [String: (reason: String, workers: Int)] = [:]
        for shard in known.flatMap(\.shards) {
            shards[shard.id, default: (shard.reason, 0)].workers += 1
        }
        return [
            "control": known.lazy.compactMap(\.control).first.map { .string($0) } ?? .null,
            "shardCount": .integer(Int64(known.map(\.shardCount).max() ?? 0)),
            "shards": .array(
                shards.sorted { $0.key < $1.key }.map { id, entry in
                    [
                        "id": .string(id), "reason": .string(entry.reason),
                        "workers": .integer(Int64(entry.workers)),
                    ]
                }),
        ]
    }

    /// The metrics of all workers and of the supervisor, as one page.
    func metricsPage() async -> MetricsSnapshot {
        let request = metricsRound.begin(Array(workers.keys))
        for worker in workers.values { worker.channel?.send(.metricsWanted(request: request)) }
        await metricsRound.wait(
            request, until: .after(Supervisor.metricsPatience, from: clocks.monotonic()))
        metrics.generation.set(machine.generation)
        var page = totals
        let inOrder = workers.values.sorted {
            ($0.generation, $0.number) < ($1.generation, $1.number)
        }
        page.merge(
            workers: inOrder.compactMap { worker in
                worker.metrics.map { (slot: worker.slot, metrics: $0) }
            })
        return page
    }

    /// What does not go with the workers that there are.
    var totals: MetricsSnapshot {
        var page = metrics.registry.snapshot()
        page.mergeTotals(retired)
        return page
    }
}
