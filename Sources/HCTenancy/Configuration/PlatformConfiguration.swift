package import HCCore
package import HCIO

/// What every program of the platform must know: where things are, and how many connections it may hold.
///
/// One JSON file, `hc.json`; a few settings can be overridden by the environment. Sections that belong to one
/// program (`programSections`) are read by that program.
package struct PlatformConfiguration: Sendable {
    package enum Profile: String, CaseIterable, Sendable {
        case local
        case production
    }

    package struct Redis: Sendable, Equatable {
        package enum Address: Sendable, Equatable {
            case socket(String)
            case host(String, port: Int)
        }

        package var address: Address
        /// Nil: no password.
        package var passwordFile: String?
    }

    package struct Pools: Sendable, Equatable {
        /// Connections that one process holds to one shard at most.
        package var shardConnectionsMax: Int
        /// Connections that it keeps open when there is nothing to do.
        package var shardConnectionsMin: Int
        /// Transactions that wait for a connection to one shard, in one process. Half of it is the most that one clinic
        /// can have, for as many as wait must be able to come still.
        package var shardQueueMax: Int
        package var idleTimeout: Duration
        /// Connections of a shard that processes leave to operators, movers and backups.
        package var shardReserve: Int
        /// Machines or pods that run workers: what the budget of a shard is divided by, times workers.
        package var instances: Int
        /// The shards' connection strings lead to a pooler in transaction mode (PgBouncer): statements are then parsed
        /// each time, and nothing is left in a session. Those of owners, movers and the control database never do.
        package var transactionPooling = false
    }

    package struct Server: Sendable, Equatable {
        package var bindAddress: String
        package var port: Int
        package var tlsPort: Int
        package var opsPort: Int
        /// Nil: one less than the machine has cores, at least one.
        package var workers: Int?
    }

    /// What runs, for the sums of `config check`.
    package struct Fleet: Sendable, Equatable {
        package var pods: Int
        /// Nil: as many as this machine starts.
        package var workersPerPod: Int?
        package var jobsPerPod: Int
        /// Commands of operators that run at once.
        package var commands: Int
    }

    package var profile: Profile
    /// Clinics answer at `<slug>.<base domain>`.
    package var baseDomain: String
    /// What a process may lose and make again: the last good directory, sockets.
    package var stateDirectory: String
    package var secretsDirectory: String
    package var migrationsDirectory: String
    package var tenantsDirectory: String
    package var masterKeyFile: String
    package var tokenKeyFile: String
    package var redis: Redis
    package var pools: Pools
    package var fleet: Fleet
    package var replicas: Replicas
    package var cache: CacheConfiguration
    package var server: Server
    /// Nil: there is no TLS listener. The production profile always has one.
    package var tls: TLS?
    package var operations: Operations
    /// Where a request from this machine reaches the public listener: for smoke requests.
    package var publicURL: String
    /// Whether every host also has the routes that conformance clients talk to; never in production.
    package var servesConformance: Bool

    /// Environment variables that win over the file.
    package static let overrides: [(variable: String, path: String)] = [
        ("HC_BASE_DOMAIN", "baseDomain"),
        ("HC_STATE", "stateDirectory"),
        ("HC_PORT", "server.port"),
        ("HC_TLS_PORT", "server.tlsPort"),
        ("HC_OPS_PORT", "server.opsPort"),
        ("HC_WORKERS", "server.workers"),
        ("HC_PUBLIC_URL", "publicURL"),
        ("HC_CONFORMANCE", "conformance"),
    ]

    /// Sections of single programs: known, and none of this room's business.
    package static let programSections = ["http", "http2", "log", "sessions"]

    /// Where the file is: `HC_CONFIG`, else `.local/hc.json`.
    package static func path(environment: [String: String]) -> String {
        environment["HC_CONFIG"].flatMap { $0.isEmpty ? nil : $0 } ?? ".local/hc.json"
    }

    /// Reads and validates the file.
    ///
    /// - Parameter sections: reads what a program has of its own in the same file; its problems are reported
    ///   with ours.
    /// - Throws: `ConfigurationError` listing all problems.
    package static func load<Sections>(
        file: String, environment: [String: String] = [:],
        sections: (ConfigurationReader) -> Sections
    ) throws(ConfigurationError) -> (platform: PlatformConfiguration, sections: Sections) {
        let bytes = try read(file)
        return try load(bytes, source: file, environment: environment, sections: sections)
    }

    /// The content of the file, not looked at.
    package static func read(_ file: String) throws(ConfigurationError) -> [UInt8] {
        do {
            return try Files.read(file, bytesMax: bytesMax)
        } catch {
            throw ConfigurationError(
                source: file,
                problems: [
                    ConfigurationProblem(
                        path: file, problem: "\(error)",
                        remedy: "name the file with HC_CONFIG; deploy/local/up writes one")
                ])
        }
    }

    package static let bytesMax = 1 << 20

    /// Validates the content of a file that was read before.
    ///
    /// - Parameter source: the file's name, for messages.
    package static func load<Sections>(
        _ bytes: [UInt8], source: String, environment: [String: String] = [:],
        sections: (ConfigurationReader) -> Sections
    ) throws(ConfigurationError) -> (platform: PlatformConfiguration, sections: Sections) {
        let reader = try ConfigurationReader.parse(
            bytes, source: source, environment: environment, overrides: overrides)
        let platform = PlatformConfiguration(reader)
        let own = sections(reader)
        try reader.finish()
        return (platform, own)
    }

    package static func load(
        file: String, environment: [String: String] = [:]
    ) throws(ConfigurationError) -> PlatformConfiguration {
        try load(file: file, environment: environment, sections: { _ in }).platform
    }

    /// Good only if the reader's `finish()` does not throw.
    package init(_ reader: ConfigurationReader) {
        profile = reader.choice("profile", default: .local)
        baseDomain = reader.string("baseDomain", default: "localhost")
        if !PlatformConfiguration.isDomain(baseDomain) {
            reader.report(
                "baseDomain", "is no domain that hosts can end with",
                "write it in lower case, without dots at its ends, such as clinics.example")
        }
        stateDirectory = reader.string("stateDirectory")
        secretsDirectory = reader.string("secretsDirectory")
        migrationsDirectory = reader.string("migrationsDirectory", default: "migrations")
        tenantsDirectory = reader.string("tenantsDirectory", default: "tenants")
        masterKeyFile = reader.string("masterKeyFile")
        tokenKeyFile = reader.string("tokenKeyFile")
        redis = Redis(reader.section("redis"))
        server = Server(reader.section("server"))
        pools = Pools(reader.section("pools"))
        fleet = Fleet(reader.section("fleet"), pools: pools, server: server)
        // One number, whichever section says it.
        pools.instances = fleet.pods
        replicas = Replicas(reader.section("replicas"))
        cache = CacheConfiguration(reader.section("cache"))
        tls = nil
        if let section = reader.optionalSection("tls")
            ?? (profile == .production ? reader.section("tls") : nil)
        {
            tls = TLS(section, profile, secrets: secretsDirectory, port: server.tlsPort)
        }
        operations = Operations(
            clientAuthorityFile: reader.section("ops").optionalString("clientCA"))
        if operations.clientAuthorityFile != nil, tls == nil {
            reader.report(
                "ops.clientCA", "needs the server's own certificates",
                "add the section \"tls\": { }, or remove ops.clientCA")
        }
        publicURL = reader.string("publicURL", default: "http://127.0.0.1:\(server.port)")
        if !publicURL.hasPrefix("http://") && !publicURL.hasPrefix("https://") {
            reader.report("publicURL", "is no URL", "write http://host:port or https://host")
        }
        servesConformance = reader.bool("conformance", default: false)
        if servesConformance, profile == .production {
            reader.report(
                "conformance", "is on, and would show requests to whoever asks",
                "leave it out in production, or set it to 0")
        }
        for name in PlatformConfiguration.programSections { _ = reader.json(name) }
    }

    /// Labels of lower-case letters, digits and inner hyphens (RFC 1123 2.1); the rest is left to the slug.
    static func isDomain(_ text: String) -> Bool {
        guard text.utf8.count <= 200 else { return false }
        return text.split(separator: ".", omittingEmptySubsequences: false).allSatisfy { label in
            (1...63).contains(label.utf8.count) && label.first != "-" && label.last != "-"
                && label.utf8.allSatisfy {
                    (0x61...0x7A).contains($0) || (0x30...0x39).contains($0) || $0 == 0x2D
                }
        }
    }

    /// A libpq connection string out of its file, which holds a password.
    package static func conninfo(file: String) throws(Files.FileError) -> Sensitive<String> {
        let bytes = try Files.read(file, bytesMax: 16384)
        let text = String(decoding: bytes, as: UTF8.self)
        return Sensitive(text.split(whereSeparator: \.isNewline).joined(separator: " "))
    }

    /// Connection string of `control.<role>` or `shards/<reference>.<role>`.
    package func conninfo(_ name: String) throws(Files.FileError) -> Sensitive<String> {
        try PlatformConfiguration.conninfo(file: "\(secretsDirectory)/\(name).conninfo")
    }

    package var directoryFile: String { "\(stateDirectory)/\(DirectoryFile.name)" }
}

extension PlatformConfiguration.Redis {
    init(_ reader: ConfigurationReader) {
        let host = reader.optionalString("host")
        let port = reader.integer("port", in: 1...65535, default: 6379)
        if let host {
            address = .host(host, port: port)
            if reader.optionalString("socket") != nil {
                reader.report("socket", "is set together with host", "keep one of them")
            }
        } else {
            address = .socket(reader.string("socket"))
        }
        passwordFile = reader.optionalString("passwordFile")
    }
}

extension PlatformConfiguration.Server {
    init(_ reader: ConfigurationReader) {
        bindAddress = reader.string("bindAddress", default: "127.0.0.1")
        port = reader.integer("port", in: 1...65535, default: 8080)
        tlsPort = reader.integer("tlsPort", in: 1...65535, default: 8443)
        opsPort = reader.integer("opsPort", in: 1...65535, default: 9464)
        // 0 means "as many as the machine has cores, less one".
        let count = reader.integer("workers", in: 0...1024, default: 0)
        workers = count == 0 ? nil : count
        if Set([port, tlsPort, opsPort]).count != 3 {
            reader.report(
                "opsPort", "port, tlsPort and opsPort are not three different ports",
                "give each its own")
        }
    }
}

extension PlatformConfiguration.Fleet {
    init(
        _ reader: ConfigurationReader, pools: PlatformConfiguration.Pools,
        server: PlatformConfiguration.Server
    ) {
        pods = reader.integer("pods", in: 1...10_000, default: pools.instances)
        if pods != pools.instances, pools.instances != 1 {
            reader.report(
                "pods", "is not what pools.instances says", "write one of the two only")
        }
        let workers = reader.integer("workersPerPod", in: 0...1024, default: server.workers ?? 0)
        workersPerPod = workers == 0 ? nil : workers
        if let workersPerPod, let own = server.workers, workersPerPod != own {
            reader.report(
                "workersPerPod", "is not what server.workers says", "write one of the two only")
        }
        jobsPerPod = reader.integer("jobsPerPod", in: 0...1024, default: 0)
        commands = reader.integer("commands", in: 0...100, default: 2)
    }
}

extension PlatformConfiguration.Pools {
    init(_ reader: ConfigurationReader) {
        shardConnectionsMax = reader.integer("shardConnectionsMax", in: 1...1000, default: 8)
        shardConnectionsMin = reader.integer("shardConnectionsMin", in: 0...1000, default: 1)
        shardQueueMax = reader.integer("shardQueueMax", in: 1...100_000, default: 4096)
        idleTimeout = reader.duration(
            "idleTimeout", in: .seconds(1)...(.seconds(86400)), default: .seconds(300))
        shardReserve = reader.integer("shardReserve", in: 0...1000, default: 10)
        instances = reader.integer("instances", in: 1...10_000, default: 1)
        transactionPooling = reader.bool("transactionPooling", default: false)
        if shardConnectionsMin > shardConnectionsMax {
            reader.report(
                "shardConnectionsMin", "is above shardConnectionsMax",
                "write at most \(shardConnectionsMax)")
        }
    }
}
