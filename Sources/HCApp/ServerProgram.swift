import CLinux
import HCCore
import HCIO
import HCTenancy

/// `hc-server`: the supervisor, or one of its workers when started with `--worker SLOT`.
package enum ServerProgram {
    private static let usage = """
        hc-server: serves the clinics of an HC platform.

        Usage: hc-server [--help]

        The configuration is the file named by HC_CONFIG, else .local/hc.json; HC_PORT, HC_OPS_PORT,
        HC_WORKERS and others win over it. SIGHUP reads the configuration again and replaces the workers one by
        one without losing a request; SIGUSR2 replaces the program too, by the one that now lies at the path it
        was started from; SIGTERM answers what was accepted and stops; a second SIGTERM does not wait.

        Exit status: 0 stopped as asked, 1 cannot start or failed, 2 usage.

        """

    package static func main() -> Never {
        let arguments = Array(CommandLine.arguments.dropFirst())
        // A core dump would hold keys and patients' data (man 2 setrlimit).
        hc_disable_core_dumps()
        Loop.shared.adopt(blocking: signals)
        ProcessImage.setName("hc-server")
        do {
            try FaultPoint.arm(
                ProcessEnvironment.current["HC_FAULT"] ?? "", perform: FaultActions.perform)
        } catch {
            refuse("HC_FAULT: \(error)")
        }
        if arguments.first == WorkerProgram.argument, arguments.count == 2,
            let slot = Int(arguments[1])
        {
            runWorker(slot: slot)
        }
        if arguments == [Supervisor.checkArgument] { runUpgradeCheck() }
        if arguments.first == Supervisor.adoptArgument, arguments.count == 2,
            let descriptor = Int32(arguments[1])
        {
            runSupervisor(inherited: descriptor)
        }
        if arguments == ["--help"] {
            print(usage, terminator: "")
            exit(0)
        }
        guard arguments.isEmpty else {
            writeError("hc-server: unknown argument '\(arguments[0])'; see 'hc-server --help'")
            exit(2)
        }
        runSupervisor()
    }

    private static let signals = [SIGTERM, SIGINT, SIGHUP, SIGUSR2]

    // MARK: The supervisor

    /// - Parameter inherited: the descriptor of what the program that ran in this process before has left.
    private static func runSupervisor(inherited: Int32? = nil) -> Never {
        LoopActor.assumeIsolated {
            do {
                let supervisor = try makeSupervisor(inherited)
                watchSignals { signal in
                    switch signal {
                    case SIGHUP: supervisor.hangup()
                    case SIGUSR2: supervisor.upgradeRequested()
                    default: supervisor.terminate()
                    }
                }
                start {
                    try await supervisor.run()
                    supervisor.logger.notice("stopped")
                }
            } catch {
                refuse("\(error)")
            }
            Loop.shared.run()
        }
        exit(0)
    }

    @LoopActor
    private static func makeSupervisor(_ inherited: Int32?) throws -> Supervisor {
        let state = try inherited.map { descriptor in
            defer { OwnedDescriptor(descriptor).close() }
            return try UpgradeState(
                MemoryFile.read(descriptor, bytesMax: Supervisor.stateBytesMax))
        }
        if state != nil { try FaultPoint.reach("upgrade.after-replace") }
        let environment = ProcessEnvironment.current
        let snapshot: ConfigurationSnapshot
        let path: String
        if let state {
            snapshot = try ConfigurationSnapshot(
                source: state.configurationFile, inherited: state.configuration)
            path = state.path
        } else {
            let file = PlatformConfiguration.path(environment: environment)
            snapshot = try ConfigurationSnapshot(source: file, bytes: AppConfiguration.read(file))
            path = try ProcessImage.startPath()
        }
        let configuration = try snapshot.validate(environment: environment)
        try WorkerPlatform.checkFiles(configuration)
        let logger = makeLogger(configuration, process: "supervisor")
        let sockets = try ListeningSockets(configuration, inherited: state?.sockets ?? [])
        let supervisor = try Supervisor(
            program: .current(path: path), configuration: snapshot, sockets: sockets,
            limits: configuration.supervisor,
            environment: environment.map { "\($0.key)=\($0.value)" }.sorted(), clocks: .system,
            adopting: state, logger: logger,
            makeLogger: { makeLogger($0, process: "supervisor") })
        logger.notice(
            "serving",
            [
                ("port", .integer(configuration.platform.server.port)),
                ("workers", .integer(sockets.slotCount)),
            ])
        return supervisor
    }

    /// A supervisor wants to know whether this program could take over from it: everything that could go wrong then
    /// is tried now.
    private static func runUpgradeCheck() -> Never {
        LoopActor.assumeIsolated {
            do {
                guard
                    try ParentProcess.dieWithParent(
                        signal: SIGKILL, parent: ParentProcess.identifier)
                else { exit(1) }
                let state = try UpgradeState(
                    MemoryFile.read(
                        Supervisor.CheckDescriptor.state, bytesMax: Supervisor.stateBytesMax))
                let configuration = try AppConfiguration.load(
                    MemoryFile.read(
                        Supervisor.CheckDescriptor.configuration,
                        bytesMax: PlatformConfiguration.bytesMax),
                    source: state.configurationFile, environment: ProcessEnvironment.current)
                try WorkerPlatform.checkFiles(configuration)
                try ListeningSockets.check(configuration, inherited: state.sockets)
                try MemoryFile.write(
                    Array(state.answer.utf8), to: Supervisor.CheckDescriptor.answer)
            } catch {
                refuse("\(error)")
            }
        }
        exit(0)
    }

    // MARK: A worker

    private static func runWorker(slot: Int) -> Never {
        // The supervisor's death is ours: nobody would replace us or read our heartbeats. One that died before
        // this line has closed our channel, which means the same.
        do {
            _ = try ParentProcess.dieWithParent(signal: SIGTERM, parent: ParentProcess.identifier)
            try ResourceUsage.raiseOpenFilesLimit()
        } catch {
            refuse("\(error)")
        }
        let configuration = loadInherited()
        let logger = makeLogger(configuration, process: "worker-\(slot)")
        LoopActor.assumeIsolated {
            Loop.shared.takeAllTasks()
            let worker: WorkerProgram
            do {
                worker = try WorkerProgram(
                    configuration: configuration, slot: slot, clocks: .system, logger: logger)
            } catch {
                refuse("\(error)")
            }
            watchSignals { signal in
                // SIGHUP and SIGUSR2 are for the supervisor; a terminal sends the first to the whole group.
                if signal != SIGHUP && signal != SIGUSR2 { worker.stop() }
            }
            start {
                await Loop.shared.proveAllTasksRunHere()
                try await worker.run()
            }
            Loop.shared.run()
        }
        exit(0)
    }

    // MARK: Both

    /// What the supervisor has given us.
    private static func loadInherited() -> AppConfiguration {
        let environment = ProcessEnvironment.current
        do {
            let file = OwnedDescriptor(WorkerProgram.configurationDescriptor)
            return try AppConfiguration.load(
                MemoryFile.read(file.rawValue, bytesMax: PlatformConfiguration.bytesMax),
                source: PlatformConfiguration.path(environment: environment),
                environment: environment)
        } catch {
            refuse("\(error)")
        }
    }

    @LoopActor
    private static func watchSignals(_ action: @escaping @LoopActor (Int32) -> Void) {
        do {
            try Signals.watch(signals, action)
        } catch {
            refuse("\(error)")
        }
    }

    /// Runs the program's one task and ends the process with it.
    @LoopActor
    private static func start(_ body: @escaping @LoopActor () async throws -> Void) {
        Loop.shared.spawn {
            do {
                try await body()
                LogOutput.flush()
                exit(0)
            } catch {
                refuse("\(error)")
            }
        }
    }

    private static func makeLogger(_ configuration: AppConfiguration, process: String) -> Logger {
        Logger(level: configuration.logLevel, clocks: .system, sink: LogOutput.write)
            .with([("process", .string(process)), ("pid", .integer(Int(getpid())))])
    }

    private static func refuse(_ reason: String) -> Never {
        LogOutput.flush()
        writeError("hc-server: \(reason)")
        exit(1)
    }

    private static func writeError(_ text: String) {
        let bytes = Array((text + "\n").utf8)
        _ = bytes.withUnsafeBytes { write(2, $0.baseAddress, $0.count) }
    }
}
