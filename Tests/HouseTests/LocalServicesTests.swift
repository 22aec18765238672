import HCTesting
import Testing

/// The fixtures that other suites stand on.
@Suite("Local services")
struct LocalServicesTests {
    @Test("PostgreSQL and Redis come back after a kill, with what was committed")
    func restartAfterKill() throws {
        let services = try LocalServices(shards: 2, servers: 2)
        let shard = try services.makeShardDatabase(beside: "s2")
        try services.psql(
            shard.owner,
            "INSERT INTO hc_tenant VALUES ('018f0000-0000-7000-8000-00000000000a', 1, 'rw');")
        try services.killPostgres(server: 2)
        try services.killRedis()
        try services.restart()
        #expect(try services.psql(shard.owner, "SELECT count(*) FROM hc_tenant;") == "1\n")
        #expect(try ping(services.redisSocket, services.redisPassword) == "PONG\n")
        #expect(try services.conninfo("shards/s1.app")["port"] == "5432")
        #expect(try services.conninfo("shards/s2.app")["port"] == "5433")
    }

    @Test("secrets are for their owner's eyes")
    func secretsArePrivate() throws {
        let services = try LocalServices.shared()
        let others = try Subprocess.run(
            "/usr/bin/find", [services.secretsDirectory, "-perm", "/077"])
        #expect(others.isEmpty)
    }

    @Test("a Redis of a test's own is killed, started, suspended and resumed")
    func ownRedis() throws {
        let redis = try RedisServer()
        #expect(try ping(redis.socket, redis.password) == "PONG\n")
        try redis.kill()
        #expect(throws: FixtureError.self) { try ping(redis.socket, redis.password) }
        try redis.start()
        #expect(try ping(redis.socket, redis.password) == "PONG\n")
        try redis.suspend()
        try redis.resume()
        #expect(try ping(redis.socket, redis.password) == "PONG\n")
    }

    @Test("connection strings are read and written with any character in them")
    func conninfoIsQuoted() throws {
        var conninfo = try Conninfo(#"host='/tmp/a b' port=5432  password='it\'s \\ here' user=x"#)
        #expect(conninfo["host"] == "/tmp/a b")
        #expect(conninfo["password"] == #"it's \ here"#)
        #expect(conninfo["user"] == "x")
        conninfo["dbname"] = "o'clock"
        #expect(try Conninfo(conninfo.description)["dbname"] == "o'clock")
        #expect(try Conninfo(conninfo.description)["password"] == #"it's \ here"#)
        #expect(throws: FixtureError.self) { try Conninfo("host='x") }
    }

    private func ping(_ socket: String, _ password: String) throws -> String {
        try Subprocess.run(
            "/usr/bin/redis-cli", ["-s", socket, "ping"],
            environment: ["REDISCLI_AUTH": password])
    }
}
