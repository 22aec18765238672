import CLinux
import HCCore
import HCHTTP
import HCIO

/// Carries out what `SupervisorStateMachine` decides: spawns workers on their listening sockets, listens to their
/// heartbeats, signals them, and answers the operator listener.
@LoopActor
final class Supervisor {
    /// What the supervisor knows of one worker process.
    private final class Worker {
        let slot: Int
        let child: ChildProcess
        var channel: WorkerChannel?
        var heartbeat: WorkerMessage.Heartbeat?
        /// Its last metrics: counters of a worker that died must not vanish from the totals.
        var metrics: MetricsSnapshot?

        init(slot: Int, child: ChildProcess) {
            self.slot = slot
            self.child = child
        }
    }

    private let configuration: AppConfiguration
    private let executable: String
    private let environment: [String]
    private let logger: Logger
    private let clocks: Clocks
    private let sockets: [Int32]
    private var machine: SupervisorStateMachine
    private var workers: [Int32: Worker] = [:]
    private var retired = MetricsSnapshot()
    private var metricsRound = MetricsRound()
    private let registry: MetricsRegistry
    private let restarts: Counter
    private let kills: [SupervisorStateMachine.KillReason: Counter]
    private let finished = Waiter<Void>()

    /// How long one worker may take to send its metrics before the page is made without them.
    private static let metricsPatience = Duration.seconds(1)

    /// - Parameter sockets: the listening sockets, one per slot; owned by the supervisor for its whole life.
    init(
        configuration: AppConfiguration, sockets: [Int32], executable: String,
        environment: [String],
        logger: Logger, clocks: Clocks
    ) {
        self.configuration = configuration
        self.sockets = sockets
        self.executable = executable
        self.environment = environment
        self.logger = logger
        self.clocks = clocks
        machine = SupervisorStateMachine(slots: sockets.count, limits: configuration.supervisor)
        let registry = MetricsRegistry()
        self.registry = registry
        restarts = registry.counter(
            "hc_supervisor_worker_exits_total", "Worker processes that ended, for any reason.")
        kills = Dictionary(
            uniqueKeysWithValues: SupervisorStateMachine.KillReason.allCases.map { reason in
                (
                    reason,
                    registry.counter(
                        "hc_supervisor_worker_kills_total",
                        "Worker processes killed by the supervisor.",
                        labels: [("reason", reason.rawValue)])
                )
            })
    }

    /// Returns when every worker has left after SIGTERM.
    func run() async throws {
        perform(machine.start())
        scheduleTick()
        try await finished.wait(until: .never)
    }

    func hangup() {
        logger.notice("rolling the workers")
        perform(machine.hangup(now: clocks.monotonic()))
    }

    func terminate() {
        logger.notice("draining the workers")
        perform(machine.terminate(now: clocks.monotonic()))
    }

    private func scheduleTick() {
        Loop.shared.schedule(after: .milliseconds(100)) { [self] in
            perform(machine.tick(now: clocks.monotonic()))
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
                kills[reason]?.increment()
                workers[process]?.child.signal(SIGKILL)
            case .exit:
                _ = finished.succeed(())
            }
        }
    }

    private func spawn(_ slot: Int) {
        do {
            let pair = try OwnedDescriptor.socketPair()
            let child = try ChildProcess.spawn(
                path: executable, arguments: [executable, WorkerProgram.argument, String(slot)],
                environment: environment,
                descriptors: [
                    (sockets[slot], WorkerProgram.listenerDescriptor),
                    (pair.second.rawValue, WorkerProgram.channelDescriptor),
                ])
            let process = child.processIdentifier
            let worker = Worker(slot: slot, child: child)
            workers[process] = worker
            let channel = WorkerChannel(
                OwnedDescriptor(pair.releaseFirst()),
                onMessage: { [unowned self] in receive($0, from: process) }, onEnd: {})
            worker.channel = channel
            channel.start()
            logger.info(
                "worker started", [("pid", .integer(Int(process))), ("slot", .integer(slot))])
            perform(machine.spawned(process: process, slot: slot, now: clocks.monotonic()))
            Loop.shared.spawn { [self] in
                let status = await child.exit()
                ended(process, status)
            }
        } catch {
            logger.error(
                "a worker cannot be started",
                [("slot", .integer(slot)), ("error", .string("\(error)"))])
            perform(machine.spawnFailed(slot: slot, now: clocks.monotonic()))
        }
    }

    private func ended(_ process: Int32, _ status: ChildProcess.ExitStatus) {
        restarts.increment()
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
            perform(
                machine.heartbeat(
                    process: process, residentBytes: beat.residentBytes, now: clocks.monotonic()))
        case .metrics(let request, let snapshot):
            worker.metrics = snapshot
            metricsRound.arrived(process, request: request)
        case .metricsWanted:
            break
        }
    }

    // MARK: The operator listener

    /// Whether a load balancer may send requests here.
    var isReady: Bool {
        machine.readyCount > 0 && workers.values.contains { $0.heartbeat?.isServing ?? false }
    }

    var status: JSONValue {
        [
            "ready": .bool(isReady),
            "workersReady": .integer(Int64(machine.readyCount)),
            "workers": .array(
                workers.sorted { $0.key < $1.key }.map { process, worker in
                    [
                        "pid": .integer(Int64(process)), "slot": .integer(Int64(worker.slot)),
                        "serving": .bool(worker.heartbeat?.isServing ?? false),
                        "residentBytes": .integer(Int64(worker.heartbeat?.residentBytes ?? 0)),
                        "lagMicroseconds": .integer(Int64(worker.heartbeat?.lagMicroseconds ?? 0)),
                        "connections": .integer(Int64(worker.heartbeat?.connections ?? 0)),
                    ]
                }),
        ]
    }

    /// The metrics of all workers and of the supervisor, as one page.
    func metrics() async -> MetricsSnapshot {
        let request = metricsRound.begin(Array(workers.keys))
        for worker in workers.values { worker.channel?.send(.metricsWanted(request: request)) }
        await metricsRound.wait(
            request, until: .after(Supervisor.metricsPatience, from: clocks.monotonic()))
        var page = registry.snapshot()
        page.mergeTotals(retired)
        for worker in workers.values {
            guard let metrics = worker.metrics else { continue }
            page.merge(metrics, worker: String(worker.slot))
        }
        return page
    }
}

/// Requests for metrics that are under way, and whose answers they wait for.
@LoopActor
private final class MetricsRound {
    private struct Round {
        var missing: Set<Int32>
        let waiter: Waiter<Void>
    }

    private var rounds: [Int: Round] = [:]
    private var next = 1

    nonisolated init() {}

    func begin(_ processes: [Int32]) -> Int {
        let request = next
        next += 1
        rounds[request] = Round(missing: Set(processes), waiter: Waiter())
        settle(request)
        return request
    }

    func arrived(_ process: Int32, request: Int) {
        rounds[request]?.missing.remove(process)
        settle(request)
    }

    func left(_ process: Int32) {
        for request in rounds.keys {
            rounds[request]?.missing.remove(process)
            settle(request)
        }
    }

    /// Ends at the deadline also without the last answers: a stuck worker must not hide the others.
    func wait(_ request: Int, until deadline: Deadline) async {
        guard let waiter = rounds[request]?.waiter else { return }
        do {
            try await waiter.wait(until: deadline)
        } catch {
            // The deadline or a cancellation: what has arrived is what there is.
        }
        rounds[request] = nil
    }

    private func settle(_ request: Int) {
        guard let round = rounds[request], round.missing.isEmpty else { return }
        _ = round.waiter.succeed(())
    }
}
