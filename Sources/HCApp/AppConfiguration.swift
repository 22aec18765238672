import HCCore
import HCHTTP
import HCIO
import HCTenancy

/// Everything `hc-server` is told: the platform's configuration and its own sections of the same file.
struct AppConfiguration: Sendable {
    var platform: PlatformConfiguration
    var logLevel: Logger.Level
    var supervisor: SupervisorStateMachine.Limits
    /// Which requests one worker refuses before any work is done.
    var admission: AdmissionControl.Limits
    /// What the public listeners allow.
    var http: HTTPServerConfiguration
    /// How long a draining worker waits for what it has accepted. Below the supervisor's patience.
    var drain: Duration
    /// A directory of static files to serve at `AppConfiguration.assetsMount`; nil: none.
    var assetsDirectory: String?

    /// Where the operators' console is.
    static let assetsMount = "/console/"

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
            let http2 = reader.section("http2")
            var limits = SupervisorStateMachine.Limits()
            limits.memoryBytesMax = http.byteCount(
                "workerMemoryMax", in: 32 << 20...1 << 40, default: limits.memoryBytesMax)
            let drain = http.duration(
                "drain", in: .seconds(1)...(.seconds(600)), default: .seconds(30))
            limits.drain = drain + .seconds(5)
            return (
                level: log.choice("level", default: LogLevelName.info),
                limits: limits,
                admission: admission(http),
                http: protection(http),
                hasAddressLimit: http.json("connectionsPerAddressMax") != nil,
                drain: drain,
                assets: http.optionalString("assets"),
                http2: http2.bool("enabled", default: true),
                cleartext: http2.json("cleartext") == nil ? nil : http2.bool("cleartext")
            )
        }
        var server = own.http
        server.http2IsEnabled = own.http2
        server.http2CleartextIsEnabled = own.cleartext ?? (platform.profile == .local)
        if platform.profile == .local, !own.hasAddressLimit {
            // All local clients share one address.
            server.connectionsPerAddressMax = server.connectionsMax
        }
        return AppConfiguration(
            platform: platform, logLevel: own.level.level, supervisor: own.limits,
            admission: own.admission, http: server, drain: own.drain,
            assetsDirectory: own.assets)
    }

    private static func admission(_ http: ConfigurationReader) -> AdmissionControl.Limits {
        var limits = AdmissionControl.Limits()
        limits.inFlightMax = http.integer(
            "requestsInFlightMax", in: 2...100_000, default: limits.inFlightMax)
        limits.inFlightMin = min(limits.inFlightMin, limits.inFlightMax)
        limits.queueTarget = http.duration(
            "queueTarget", in: .milliseconds(5)...(.seconds(10)), default: limits.queueTarget)
        return limits
    }

    private static func protection(_ http: ConfigurationReader) -> HTTPServerConfiguration {
        var server = HTTPServerConfiguration()
        server.connectionsMax = http.integer(
            "connectionsMax", in: 16...1_000_000, default: server.connectionsMax)
        server.connectionsPerAddressMax = http.integer(
            "connectionsPerAddressMax", in: 1...1_000_000,
            default: server.connectionsPerAddressMax)
        let names = http.strings("trustedProxies", default: [])
        var blocks: [AddressBlock] = []
        for name in names {
            if let block = AddressBlock(name) {
                blocks.append(block)
            } else {
                http.report(
                    "trustedProxies", "'\(name)' is no address and no range of addresses",
                    "write 10.0.0.5, 10.0.0.0/8 or fd00::/8; no bit may be set behind the prefix")
            }
        }
        if blocks.count > TrustedProxies.blocksMax {
            http.report(
                "trustedProxies", "\(blocks.count) are too many",
                "name at most \(TrustedProxies.blocksMax), as ranges")
        }
        server.trustedProxies = TrustedProxies(blocks)
        for name in http.strings("proxyProtocol", default: []) {
            if let listener = HTTPListenerName(rawValue: name) {
                server.proxyProtocol.insert(listener)
            } else {
                let known = HTTPListenerName.allCases.map(\.rawValue).joined(separator: ", ")
                http.report(
                    "proxyProtocol", "'\(name)' is no listener", "name some of: \(known)")
            }
        }
        if !server.proxyProtocol.isEmpty, names.isEmpty {
            http.report(
                "proxyProtocol", "nobody could connect",
                "name the proxies' addresses in http.trustedProxies")
        }
        return server
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
