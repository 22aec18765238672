import HCCore
import HCIO
import HCTesting
import Testing

@testable import HCControl
@testable import HCTenancy

@Suite("The doctor looks at Redis", .onLoop)
@LoopActor
struct DoctorTests {
    /// What it says of a Redis with these settings.
    private func findings(_ settings: [String]) async throws -> [Doctor.Finding] {
        let threads = BlockingPool()
        let server = try await threads.run(deadline: .after(.seconds(30), from: Loop.now)) {
            try RedisServer(password: "", settings: settings)
        }
        let configuration = try PlatformConfiguration.load(
            Array(
                """
                {"stateDirectory":"/tmp","secretsDirectory":"/tmp","masterKeyFile":"/tmp/master.key",
                 "tokenKeyFile":"/tmp/token.key","redis":{"socket":"\(server.socket)"}}
                """.utf8), source: "test", sections: { _ in }
        ).platform
        let plane = ControlPlane(
            configuration: configuration, clocks: .system, operatorName: "test", progress: { _ in })
        let doctor = Doctor(plane: plane, catalog: MigrationCatalog(control: [], shard: []))
        let findings = try await doctor.redis()
        await plane.close()
        return findings
    }

    @Test("a Redis that evicts nothing is well")
    func noEviction() async throws {
        #expect(try await findings(["maxmemory 64mb"]).isEmpty)
        #expect(try await findings(["rename-command CONFIG \"\""]).isEmpty, "INFO says it too")
    }

    @Test(
        "a Redis that may evict keys is a failure, with what to do about it",
        arguments: ["allkeys-lru", "volatile-ttl"], [[], ["rename-command CONFIG \"\""]])
    func eviction(_ policy: String, _ settings: [String]) async throws {
        let found = try await findings(["maxmemory 64mb", "maxmemory-policy \(policy)"] + settings)
        #expect(found.map(\.verdict) == [.failed])
        let detail = try #require(found.first?.detail)
        #expect(
            detail.contains(policy) && detail.contains("CONFIG SET maxmemory-policy noeviction"))
    }

    @Test("where nobody may ask, that is said, and how to find out")
    func refused() async throws {
        let found = try await findings([
            "maxmemory-policy allkeys-lru", "rename-command CONFIG \"\"",
            "rename-command INFO \"\"",
        ])
        #expect(found.map(\.verdict) == [.warning])
        #expect(found.first?.detail.contains("could not be checked") == true)
    }

    @Test("a Redis that is not there is a warning: clinics go on without it")
    func away() async throws {
        let configuration = try PlatformConfiguration.load(
            Array(
                """
                {"stateDirectory":"/tmp","secretsDirectory":"/tmp","masterKeyFile":"/tmp/master.key",
                 "tokenKeyFile":"/tmp/token.key","redis":{"socket":"/tmp/hc-no-such-redis"}}
                """.utf8), source: "test", sections: { _ in }
        ).platform
        let plane = ControlPlane(
            configuration: configuration, clocks: .system, operatorName: "test", progress: { _ in })
        let doctor = Doctor(plane: plane, catalog: MigrationCatalog(control: [], shard: []))
        let found = try await doctor.redis()
        #expect(found.map(\.verdict) == [.warning])
        #expect(found.first?.detail.contains("local share") == true)
        await plane.close()
    }
}
