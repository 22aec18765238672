import CLinux
import Glibc
import Synchronization

/// Real PostgreSQL and Redis servers for tests, started by `deploy/local/services`.
///
/// `LocalServices.shared()` starts one set per test process on first use, or uses those of the
/// directory that `HC_TEST_SERVICES` names. `init(…)` gives a test its own set, which it may kill.
/// The servers hang on a pipe of this process: however it ends, they end and their files go.
///
/// All calls block; do not make them on a loop's thread.
package final class LocalServices: Sendable {
    /// The directory that was given to `deploy/local/services`; `secrets` in it are what HC reads.
    package let directory: String

    /// The process that stops the servers when our end of its input closes; nil for servers of others.
    private let holder: Subprocess?
    private let options: [String]
    private let numberOfDatabases = Atomic<Int>(0)
    private let templates = Mutex<[String: String]>([:])

    private static let sharedServices = Mutex<LocalServices?>(nil)

    /// The servers of this test process.
    package static func shared() throws -> LocalServices {
        try sharedServices.withLock { services in
            if let services { return services }
            let started: LocalServices
            if let directory = environmentVariable("HC_TEST_SERVICES") {
                started = LocalServices(startedIn: directory)
            } else {
                started = try LocalServices()
            }
            services = started
            return started
        }
    }

    private static let replicatedServices = Mutex<LocalServices?>(nil)

    /// Two servers with a replica each, for the suites of this process that read from replicas. They go with the
    /// process; the others do not pay for them.
    package static func replicated() throws -> LocalServices {
        try replicatedServices.withLock { services in
            if let services { return services }
            let started = try LocalServices(shards: 2, servers: 2, replicas: true)
            services = started
            return started
        }
    }

    /// Starts servers of the caller's own in a new directory: about a second and a half, and another for replicas.
    package init(shards: Int = 2, servers: Int = 1, replicas: Bool = false) throws {
        var template = Array("/tmp/hc-test-XXXXXX".utf8CString)
        guard mkdtemp(&template) != nil else { throw FixtureError("mkdtemp failed") }
        directory = String(
            decoding: template.dropLast().map { UInt8(bitPattern: $0) }, as: UTF8.self)
        // As root, the servers run as another user, who must pass through.
        guard chmod(directory, 0o711) == 0 else { throw FixtureError("chmod failed") }
        options =
            ["--shards", String(shards), "--servers", String(servers), "--fsync", "off"]
            + (replicas ? ["--replicas", "1"] : [])
        let log = directory + "/start.log"
        let child = try Subprocess(
            Repository.path("deploy/local/services"), ["hold", directory] + options,
            errorOutput: .file(log))
        guard try child.readLine() == "ready" else {
            throw FixtureError(
                "the services did not start: \(try Repository.contents(of: log))")
        }
        holder = child
    }

    private init(startedIn directory: String) {
        self.directory = directory
        options = []
        holder = nil
    }

    deinit {
        holder?.closeInput()
        // The servers' end is part of the test that owned them; its failure is seen in the next start.
        _ = try? holder?.wait()
    }

    /// Where HC finds connection strings: `control.admin.conninfo`, `shards/s1.app.conninfo`, ….
    package var secretsDirectory: String { directory + "/secrets" }

    // MARK: Databases

    /// The connection string in a file of the secrets: `conninfo("shards/s1.app")`.
    package func conninfo(_ name: String) throws -> Conninfo {
        try Conninfo(Repository.contents(of: "\(secretsDirectory)/\(name).conninfo"))
    }

    /// A new database with the schema of a shard, on the server of the shard `beside`.
    package func makeShardDatabase(beside shard: String = "s1") throws -> ShardDatabase {
        let superuser = try conninfo("shards/\(shard).superuser")
        let name = try makeDatabase(
            from: "migrations/shard", at: superuser, for: "hc_app, hc_mover, hc_owner")
        return ShardDatabase(
            database: TestDatabase(name: name, superuser: superuser, psql: try psqlPath()),
            owner: try conninfo("shards/\(shard).owner").database(name),
            app: try conninfo("shards/\(shard).app").database(name),
            mover: try conninfo("shards/\(shard).mover").database(name))
    }

    /// How the replica of the server of the shard `beside` is reached, in a database that was made there; `role` is
    /// `app` or `superuser`.
    package func replica(
        of database: ShardDatabase, role: String = "app", beside shard: String = "s1"
    ) throws -> Conninfo {
        try conninfo("shards/\(shard).r1.\(role)").database(database.database.name)
    }

    /// A new database with the schema of the control database.
    package func makeControlDatabase() throws -> ControlDatabase {
        let superuser = try conninfo("control.superuser")
        let name = try makeDatabase(
            from: "migrations/control", at: superuser, for: "hc_control, hc_router, hc_owner")
        return ControlDatabase(
            database: TestDatabase(name: name, superuser: superuser, psql: try psqlPath()),
            owner: try conninfo("control.owner").database(name),
            admin: try conninfo("control.admin").database(name),
            router: try conninfo("control.router").database(name))
    }

    /// A new empty database that `hc_owner` owns and every role may enter: for drivers and migrations.
    package func makeEmptyDatabase(beside shard: String = "s1") throws -> ShardDatabase {
        let superuser = try conninfo("shards/\(shard).superuser")
        let name = uniqueName()
        try createDatabase(
            name, template: "template0", at: superuser,
            for: "hc_app, hc_mover, hc_owner, hc_control, hc_router")
        return ShardDatabase(
            database: TestDatabase(name: name, superuser: superuser, psql: try psqlPath()),
            owner: try conninfo("shards/\(shard).owner").database(name),
            app: try conninfo("shards/\(shard).app").database(name),
            mover: try conninfo("shards/\(shard).mover").database(name))
    }

    /// Runs SQL in psql and returns rows as lines with `|` between the columns.
    @discardableResult
    package func psql(_ conninfo: Conninfo, _ sql: String) throws -> String {
        try Subprocess.run(
            psqlPath(), ["-XqAt", "-v", "ON_ERROR_STOP=1"], environment: conninfo.environment,
            input: sql)
    }

    /// A psql that stays connected: for tests in which sessions wait for each other.
    package func session(_ conninfo: Conninfo) throws -> SQLSession {
        try SQLSession(psql: psqlPath(), conninfo)
    }

    // MARK: Redis

    /// The Redis that all tests of the process share: use keys of your own and do not flush it.
    package var redisSocket: String {
        get throws { try Repository.line(of: secretsDirectory + "/redis.socket") }
    }

    package var redisPassword: String {
        get throws { try Repository.line(of: secretsDirectory + "/redis.password") }
    }

    // MARK: Faults, for servers of one's own

    /// Kills a PostgreSQL server with SIGKILL, as a power failure would.
    package func killPostgres(server number: Int = 1) throws {
        try kill(Repository.line(of: "\(dataDirectory)/postgres-\(number)/postmaster.pid"))
    }

    package func killReplica(server number: Int = 1) throws {
        try kill(Repository.line(of: "\(dataDirectory)/postgres-\(number)-replica/postmaster.pid"))
    }

    package func killRedis() throws {
        try kill(Repository.line(of: "\(dataDirectory)/redis/pid"))
    }

    /// Starts the servers that do not run.
    package func restart() throws {
        try Subprocess.run(
            Repository.path("deploy/local/services"), ["start", directory] + options)
    }

    /// The files of the servers, in which tests look for what must not be there.
    package var dataDirectory: String {
        get throws { try Repository.line(of: directory + "/services/place") }
    }

    private func kill(_ identifier: String) throws {
        guard holder != nil else { throw FixtureError("shared servers are not killed") }
        guard let identifier = pid_t(identifier), Glibc.kill(identifier, SIGKILL) == 0 else {
            throw FixtureError("process \(identifier) cannot be killed")
        }
    }

    // MARK: Making databases

    private func psqlPath() throws -> String { try program("psql") }

    /// One of PostgreSQL's own programs, of the servers' version.
    package func program(_ name: String) throws -> String {
        try "\(Repository.line(of: directory + "/services/bin"))/\(name)"
    }

    private func uniqueName() -> String {
        let number = numberOfDatabases.add(1, ordering: .relaxed).newValue
        return "hc_test_\(getpid())_\(number)"
    }

    private func makeDatabase(
        from migrations: String, at superuser: Conninfo, for roles: String
    ) throws -> String {
        let template = try templates.withLock { templates in
            let key = "\(migrations) \(superuser["port"] ?? "")"
            if let template = templates[key] { return template }
            let template = try makeTemplate(migrations, at: superuser, for: roles)
            templates[key] = template
            return template
        }
        let name = uniqueName()
        try createDatabase(name, template: template, at: superuser, for: roles)
        return name
    }

    /// A database with all migrations and their ledger, which new databases are copied from.
    private func makeTemplate(
        _ migrations: String, at superuser: Conninfo, for roles: String
    ) throws -> String {
        let name = uniqueName()
        try createDatabase(name, template: "template0", at: superuser, for: roles)
        for file in try Repository.migrations(in: migrations) {
            let ledger = """
                INSERT INTO hc_schema (version, name, checksum, fingerprint)
                VALUES (\(file.version), '\(file.name)', '\(file.checksum)', hc_schema_fingerprint());
                """
            try psql(
                superuser.database(name),
                file.isTransactional
                    ? "BEGIN; SET LOCAL ROLE hc_owner;\n\(file.sql)\n\(ledger) COMMIT;"
                    : "SET ROLE hc_owner;\n\(file.sql)\n;\(ledger)")
        }
        try psql(superuser, "ALTER DATABASE \(name) WITH ALLOW_CONNECTIONS false;")
        return name
    }

    private func createDatabase(
        _ name: String, template: String, at superuser: Conninfo, for roles: String
    ) throws {
        try psql(
            superuser.database("postgres"),
            """
            CREATE DATABASE \(name) OWNER hc_owner TEMPLATE \(template);
            REVOKE ALL ON DATABASE \(name) FROM PUBLIC;
            GRANT CONNECT ON DATABASE \(name) TO \(roles);
            """)
    }
}

/// A database that is dropped with the last reference to it, whoever is connected.
package final class TestDatabase: Sendable {
    package let name: String
    package let superuser: Conninfo
    private let psql: String

    fileprivate init(name: String, superuser: Conninfo, psql: String) {
        self.name = name
        self.superuser = superuser.database(name)
        self.psql = psql
    }

    fileprivate func on(_ superuser: Conninfo) -> TestDatabase {
        TestDatabase(name: name, superuser: superuser, psql: psql)
    }

    deinit {
        // The server may have been killed by the test: then its directory goes, and the database with it.
        _ = try? Subprocess.run(
            psql, ["-Xq"], environment: superuser.database("postgres").environment,
            input: "DROP DATABASE \(name) WITH (FORCE);")
    }
}

/// A shard database of a test and the connection strings of its roles. Keep it while it is in use.
package struct ShardDatabase: Sendable {
    package let database: TestDatabase
    package let owner: Conninfo
    package let app: Conninfo
    package let mover: Conninfo

    package var superuser: Conninfo { database.superuser }

    /// The same database where another server has it: a replica that was promoted.
    package func on(_ server: Conninfo) -> ShardDatabase {
        func led(_ conninfo: Conninfo) -> Conninfo {
            var led = conninfo
            led["host"] = server["host"]
            led["port"] = server["port"]
            return led
        }
        return ShardDatabase(
            database: database.on(led(database.superuser)), owner: led(owner), app: led(app),
            mover: led(mover))
    }
}

/// A control database of a test and the connection strings of its roles. Keep it while it is in use.
package struct ControlDatabase: Sendable {
    package let database: TestDatabase
    package let owner: Conninfo
    package let admin: Conninfo
    package let router: Conninfo

    package var superuser: Conninfo { database.superuser }
}
