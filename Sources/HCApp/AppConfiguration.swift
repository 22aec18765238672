import HCCore
import HCHTTP
import HCIO
import HCTenancy

/// Everything `hc-server` is told: the platform's configuration and its own sections of the same file.
struct AppConfiguration: Sendable {
    var platform: PlatformConfiguration
    var logLevel: Logger.Level
    var supervisor: SupervisorStateMachine.Limits
    /// Requests that are being answered at once in one worker: more are refused before any work is done.
    var requestsInFlightMax: Int
    /// How long a draining worker waits for what it has accepted. Below the supervisor's patience.
    var drain: Duration

    /// Workers when the configuration names no number: one core is left to the databases.
    var workerCount: Int {
        platform.server.workers ?? max(1, CPUQuota.cores() - 1)
    }

    /// The file's content, not looked at.
    static func read(_ file: String) throws(ConfigurationError) -> [UInt8] {
        try PlatformConfiguration.read(file)
    }

    /// - Parameters:
    ///   - bytes: the file's content.
    ///   - source: the file's name, for messages.
    /// - Throws: `ConfigurationError` with every problem of the file.
    static func load(
        _ bytes: [UInt8], source: String, environment: [String: String]
    ) throws(ConfigurationError) -> AppConfiguration {
        let (platform, own) = try PlatformConfiguration.load(
            bytes, source: source, environment: environment
        ) { reader in
            let log = reader.section("log")
            let http = reader.section("http")
            var limits = SupervisorStateMachine.Limits()
            limits.memoryBytesMax = http.byteCount(
                "workerMemoryMax", in: 64 << 20...1 << 40, default: limits.memoryBytesMax)
            let drain = http.duration(
                "drain", in: .seconds(1)...(.seconds(600)), default: .seconds(30))
            limits.drain = drain + .seconds(5)
            return (
                level: log.choice("level", default: LogLevelName.info),
                limits: limits,
                inFlight: http.integer("requestsInFlightMax", in: 1...100_000, default: 2048),
                drain: drain
            )
        }
        return AppConfiguration(
            platform: platform, logLevel: own.level.level, supervisor: own.limits,
            requestsInFlightMax: own.inFlight, drain: own.drain)
    }
}

/// The levels as the configuration names them.
private enum LogLevelName: String, CaseIterable {
    case debug, info, notice, warning, error

    var level: Logger.Level {
        switch self {
        case .debug: .debug
        case .info: .info
        case .notice: .notice
        case .warning: .warning
        case .error: .error
        }
    }
}
