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
        HC_WORKERS and others win over it. SIGHUP replaces the workers one by one without losing a request;
        SIGTERM answers what was accepted and stops; a second SIGTERM does not wait.

        Exit status: 0 stopped as asked, 1 cannot start or failed, 2 usage.

        """

    package static func main() -> Never {
        let arguments = Array(CommandLine.arguments.dropFirst())
        // A core dump would hold keys and patients' data (man 2 setrlimit).
        hc_disable_core_dumps()
        Loop.shared.adopt(blocking: [SIGTERM, SIGINT, SIGHUP])
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

    // MARK: The supervisor

    private static func runSupervisor() -> Never {
        let configuration = load()
        let logger = makeLogger(configuration, process: "supervisor")
        checkKeys(configuration)
        let server = configuration.platform.server
        LoopActor.assumeIsolated {
            let sockets = openSockets(configuration)
            let supervisor = Supervisor(
                configuration: configuration, sockets: sockets, executable: ownPath(),
                environment: ProcessEnvironment.current.map { "\($0.key)=\($0.value)" }.sorted(),
                logger: logger, clocks: .system)
            let operations = openOperations(supervisor, configuration, logger)
            logger.notice(
                "serving",
                [("port", .integer(server.port)), ("workers", .integer(sockets.count))])
            watchSignals { signal in
                signal == SIGHUP ? supervisor.hangup() : supervisor.terminate()
            }
            start {
                try await supervisor.run()
                operations.stopAccepting(emptyingQueue: true)
                logger.notice("stopped")
            }
            Loop.shared.run()
        }
        exit(0)
    }

    /// One socket per slot, all on one port: the kernel spreads connections over them (SO_REUSEPORT).
    @LoopActor
    private static func openSockets(_ configuration: AppConfiguration) -> [Int32] {
        let server = configuration.platform.server
        guard let port = UInt16(exactly: server.port),
            let address = SocketAddress(host: server.bindAddress, port: port)
        else {
            refuse(
                "server.bindAddress: '\(server.bindAddress)' is no address: write one such as 127.0.0.1"
            )
        }
        refuseForeignPort(address, setting: "server.port (HC_PORT)")
        var sockets: [Int32] = []
        for _ in 0..<configuration.workerCount {
            do throws(SystemError) {
                sockets.append(try Listener.bind(address, sharesPort: true).take())
            } catch {
                refuse(
                    "cannot listen on \(address): \(error): \(advice(error, "server.port (HC_PORT)"))"
                )
            }
        }
        return sockets
    }

    /// SO_REUSEPORT would let us share the port with another server of the same user, and each would get half of
    /// the connections: a plain socket finds out first.
    @LoopActor
    private static func refuseForeignPort(_ address: SocketAddress, setting: String) {
        do throws(SystemError) {
            _ = try Listener.bind(address)
        } catch {
            refuse("cannot listen on \(address): \(error): \(advice(error, setting))")
        }
    }

    private static func advice(_ error: SystemError, _ setting: String) -> String {
        switch error.errno {
        case EADDRINUSE: "stop the program that has the port, or choose another with \(setting)"
        case EACCES: "ports below 1024 need a privilege: choose another with \(setting)"
        default: "check the address"
        }
    }

    @LoopActor
    private static func openOperations(
        _ supervisor: Supervisor, _ configuration: AppConfiguration, _ logger: Logger
    ) -> OperatorListener {
        let server = configuration.platform.server
        guard let port = UInt16(exactly: server.opsPort),
            let address = SocketAddress(host: server.bindAddress, port: port)
        else { refuse("server.opsPort: \(server.opsPort) is no port") }
        do {
            return try OperatorListener(supervisor, address: address, clocks: .system)
        } catch {
            refuse(
                "cannot listen on \(address): \(error): choose another port with server.opsPort (HC_OPS_PORT)"
            )
        }
    }

    /// What a worker would refuse is refused before anything is opened.
    private static func checkKeys(_ configuration: AppConfiguration) {
        do {
            try WorkerPlatform.checkKeys(configuration)
        } catch {
            refuse("\(error)")
        }
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
        let configuration = load()
        let logger = makeLogger(configuration, process: "worker-\(slot)")
        LoopActor.assumeIsolated {
            let worker: WorkerProgram
            do {
                worker = try WorkerProgram(
                    configuration: configuration, slot: slot, clocks: .system, logger: logger)
            } catch {
                refuse("\(error)")
            }
            watchSignals { signal in
                // SIGHUP goes to the supervisor; a terminal sends it to the whole group.
                if signal != SIGHUP { worker.stop() }
            }
            start { try await worker.run() }
            Loop.shared.run()
        }
        exit(0)
    }

    // MARK: Both

    private static func load() -> AppConfiguration {
        let environment = ProcessEnvironment.current
        do {
            return try AppConfiguration.load(
                file: PlatformConfiguration.path(environment: environment), environment: environment
            )
        } catch {
            refuse("\(error)")
        }
    }

    @LoopActor
    private static func watchSignals(_ action: @escaping @LoopActor (Int32) -> Void) {
        do {
            try Signals.watch([SIGTERM, SIGINT, SIGHUP], action)
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
                LogOutput.standardError.flush()
                exit(0)
            } catch {
                refuse("\(error)")
            }
        }
    }

    private static func makeLogger(_ configuration: AppConfiguration, process: String) -> Logger {
        Logger(level: configuration.logLevel, clocks: .system) { LogOutput.standardError.write($0) }
            .with([("process", .string(process)), ("pid", .integer(Int(getpid())))])
    }

    /// The program's file. A roll starts what is there then: a new release.
    private static func ownPath() -> String {
        var buffer = [UInt8](repeating: 0, count: 4096)
        let count = buffer.withUnsafeMutableBytes { bytes in
            bytes.withMemoryRebound(to: CChar.self) { text in
                text.baseAddress.map { readlink("/proc/self/exe", $0, text.count) } ?? 0
            }
        }
        guard count > 0 else { refuse("cannot find the program's own file") }
        return String(decoding: buffer[..<count], as: UTF8.self)
    }

    private static func refuse(_ reason: String) -> Never {
        LogOutput.standardError.flush()
        writeError("hc-server: \(reason)")
        exit(1)
    }

    private static func writeError(_ text: String) {
        let bytes = Array((text + "\n").utf8)
        _ = bytes.withUnsafeBytes { write(2, $0.baseAddress, $0.count) }
    }
}
