import HCCore
import HCTesting
import Testing

@testable import HCTenancy

@Suite("Platform configuration")
struct ConfigurationTests {
    private func read(
        _ text: String, environment: [String: String] = [:]
    ) throws -> PlatformConfiguration {
        let path = try TemporaryFile.path("hc.json")
        defer { TemporaryFile.remove(path) }
        try TemporaryFile.write(Array(text.utf8), to: path)
        return try PlatformConfiguration.load(file: path, environment: environment)
    }

    private let least = """
        "stateDirectory":"/var/lib/hc","secretsDirectory":"/etc/hc","masterKeyFile":"/etc/hc/master.key",
        "tokenKeyFile":"/etc/hc/token.key","redis":{"socket":"/run/hc/redis.sock"}
        """

    @Test("the least that must be said, and the defaults")
    func defaults() throws {
        let configuration = try read("{\(least)}")
        #expect(configuration.baseDomain == "localhost")
        #expect(configuration.server.port == 8080)
        #expect(configuration.server.workers == nil)
        #expect(configuration.publicURL == "http://127.0.0.1:8080")
        #expect(configuration.directoryFile == "/var/lib/hc/directory.last-good")
    }

    @Test(
        "a base domain is labels of a hostname",
        arguments: [
            ("localhost", true), ("clinics.example-1.org", true), ("bad domain\"", false),
            ("a..b", false), (".a", false), ("a.", false), ("-a.b", false), ("Example.org", false),
            ("", false),
        ])
    func domains(text: String, isDomain: Bool) {
        #expect(PlatformConfiguration.isDomain(text) == isDomain)
    }

    @Test("the environment wins, and sections of programs are left alone")
    func environment() throws {
        let configuration = try read(
            #"{\#(least),"http":{"anything":1},"server":{"port":8081}}"#,
            environment: ["HC_PORT": "9000", "HC_WORKERS": "3", "HC_STATE": "/tmp/x"])
        #expect(configuration.server.port == 9000)
        #expect(configuration.server.workers == 3)
        #expect(configuration.stateDirectory == "/tmp/x")
    }

    @Test("all problems are told together, each with what to do")
    func problems() throws {
        let error = #expect(throws: ConfigurationError.self) {
            try read(
                """
                {"baseDomain":".Example.org","secretsDirectory":5,"masterKeyFile":"k","redis":{},
                "server":{"port":99999,"opsPort":8080},"pools":{"shardConnectionsMax":2,"shardConnectionsMin":3},
                "colour":"red","publicURL":"ftp://x"}
                """)
        }
        let paths = (error?.problems ?? []).map(\.path)
        for path in [
            "baseDomain", "stateDirectory", "secretsDirectory", "tokenKeyFile", "redis.socket",
            "server.port", "pools.shardConnectionsMin", "colour", "publicURL",
        ] {
            #expect(paths.contains(path), "\(path)")
        }
        #expect((error?.problems ?? []).allSatisfy { !$0.remedy.isEmpty })
    }

    @Test("TLS is there when it is named, and always in production")
    func tls() throws {
        #expect(try read("{\(least)}").tls == nil)
        let local = try #require(try read("{\(least),\"tls\":{}}").tls)
        #expect(local.certificatesDirectory == "/etc/hc/tls")
        #expect(local.ticketKeyFile == "/etc/hc/tickets.key")
        #expect(local.publicPort == 8443)
        #expect(local.strictTransportSecurity == .seconds(300))
        let production = try #require(
            try read("{\(least),\"profile\":\"production\",\"server\":{\"tlsPort\":443}}").tls)
        #expect(production.publicPort == 443)
        #expect(production.strictTransportSecurity == .seconds(31_536_000))
    }

    @Test(
        "settings of TLS that do not go together are problems",
        arguments: [
            (#""ops":{"clientCA":"/x"}"#, "ops.clientCA"),
            (#""tls":{"ticketPeriod":"1m","ticketLifetime":"7d"}"#, "tls.ticketLifetime"),
            (#""tls":{"certificates":"/x"}"#, "tls.certificates"),
        ])
    func tlsProblems(_ section: String, _ path: String) {
        let error = #expect(throws: ConfigurationError.self) { try read("{\(least),\(section)}") }
        #expect(error?.problems.map(\.path) == [path])
    }

    @Test("a file that cannot be read is a configuration error with a remedy")
    func missingFile() {
        let error = #expect(throws: ConfigurationError.self) {
            try PlatformConfiguration.load(file: "/nonexistent/hc.json")
        }
        #expect(error?.problems.count == 1)
        #expect(error?.problems.first?.remedy.contains("HC_CONFIG") == true)
    }

    @Test("pods are said in one place, and this machine is the fleet unless told otherwise")
    func fleet() throws {
        #expect(
            try read("{\(least)}").fleet
                == .init(pods: 1, workersPerPod: nil, jobsPerPod: 0, commands: 2))
        let configuration = try read(
            #"{\#(least),"server":{"workers":3},"fleet":{"pods":20,"jobsPerPod":1}}"#)
        #expect(configuration.fleet.workersPerPod == 3)
        #expect(configuration.pools.instances == 20)
        #expect(ConnectionBudget(workers: 3, pools: configuration.pools).processes == 60)
        #expect(try read(#"{\#(least),"pools":{"instances":7}}"#).fleet.pods == 7)
        for section in [
            #""pools":{"instances":7},"fleet":{"pods":8}"#,
            #""server":{"workers":3},"fleet":{"workersPerPod":4}"#,
            #""fleet":{"pods":0}"#,
        ] {
            #expect(throws: ConfigurationError.self, "\(section)") {
                try read("{\(least),\(section)}")
            }
        }
    }
}
