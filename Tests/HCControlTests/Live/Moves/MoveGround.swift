import CLinux
import HCCore
import HCCrypto
import HCIO
import HCPostgres
import HCTenancy
import HCTesting
import Synchronization
import Testing

@testable import HCControl

/// A platform of a test's own with two shards on two servers, one clinic that is moved and one that is not.
@LoopActor
final class MoveGround {
    nonisolated static let sunrise = tenant("018f0000-0000-7000-8000-00000000000a")
    nonisolated static let lakeside = tenant("018f0000-0000-7000-8000-00000000000b")

    nonisolated private static func tenant(_ text: String) -> TenantID {
        guard let id = TenantID(text) else { preconditionFailure("no id") }
        return id
    }

    nonisolated private static let sharedServices = Mutex<LocalServices?>(nil)

    nonisolated let services: LocalServices
    nonisolated let control: ControlDatabase
    /// `s1` and `s2`.
    private(set) var shards: [ShardDatabase]
    private let directory: String
    nonisolated var masterKeyFile: String { "\(directory)/master.key" }
    private let configuration: PlatformConfiguration
    private var planes: [ControlPlane] = []
    private var patients = 0

    /// - Parameter own: servers of the test's own; nil: those that these tests share.
    static func make(patients: Int = 300, own: LocalServices? = nil) async throws -> MoveGround {
        let (services, control, shards) = try await offLoop {
            let services = try sharedServices.withLock { shared in
                if let own { return own }
                if let shared { return shared }
                let made = try LocalServices(shards: 2, servers: 2)
                shared = made
                return made
            }
            return (
                services, try services.makeControlDatabase(),
                [
                    try services.makeShardDatabase(beside: "s1"),
                    try services.makeShardDatabase(beside: "s2"),
                ]
            )
        }
        let ground = try MoveGround(services, control, shards)
        ground.patients = patients
        try await ground.populate(patients)
        return ground
    }

    private init(
        _ services: LocalServices, _ control: ControlDatabase, _ shards: [ShardDatabase]
    ) throws {
        self.services = services
        self.control = control
        self.shards = shards
        var template = Array("/tmp/hc-move-XXXXXX".utf8CString)
        guard mkdtemp(&template) != nil else { throw FixtureError("mkdtemp failed") }
        let path = String(
            decoding: template.dropLast().map { UInt8(bitPattern: $0) }, as: UTF8.self)
        directory = path
        guard mkdir("\(path)/shards", 0o700) == 0 else { throw FixtureError("mkdir failed") }
        func write(_ name: String, _ text: String) throws {
            try Files.replace("\(path)/\(name)", with: Array(text.utf8), mode: 0o600)
        }
        try write("control.admin.conninfo", "\(control.admin)")
        try write("control.router.conninfo", "\(control.router)")
        for (number, shard) in shards.enumerated() {
            let name = "shards/s\(number + 1)"
            try write("\(name).owner.conninfo", "\(shard.owner)")
            try write("\(name).app.conninfo", "\(shard.app)")
            try write("\(name).mover.conninfo", "\(shard.mover)")
            try write("\(name).superuser.conninfo", "\(shard.superuser)")
        }
        try write("master.key", Hex.encode((0..<32).map { _ in UInt8.random(in: .min ... .max) }))
        try write("redis.password", try services.redisPassword)
        configuration = try PlatformConfiguration.load(
            Array(
                """
                {"stateDirectory":"\(path)","secretsDirectory":"\(path)",
                 "masterKeyFile":"\(path)/master.key","tokenKeyFile":"\(path)/token.key",
                 "redis":{"socket":"\(try services.redisSocket)","passwordFile":"\(path)/redis.password"}}
                """.utf8), source: "test", sections: { _ in }
        ).platform
    }

    var deadline: Deadline { .after(.seconds(60), from: Loop.now) }

    /// From here on the files of a shard (1 or 2) lead to another server, which has its database and its roles.
    func lead(_ number: Int, to server: Conninfo) throws {
        shards[number - 1] = shards[number - 1].on(server)
        try find(number)
    }

    /// The files of a shard lead to it.
    func find(_ number: Int) throws {
        let shard = shards[number - 1]
        for (role, conninfo) in [
            ("owner", shard.owner), ("app", shard.app), ("mover", shard.mover),
            ("superuser", shard.superuser),
        ] {
            try write("\(conninfo)", toFileOf: number, role)
        }
    }

    /// The files of a shard lead to a database of its server that there is not.
    func lead(_ number: Int, toDatabase name: String) throws {
        let shard = shards[number - 1]
        for (role, conninfo) in [
            ("owner", shard.owner), ("app", shard.app), ("mover", shard.mover),
            ("superuser", shard.superuser),
        ] {
            try write("\(conninfo.database(name))", toFileOf: number, role)
        }
    }

    /// A file of a replica of a shard that leads to the shard itself.
    ///
    /// - Returns: its reference.
    func addReplicaFile(of number: Int) throws -> String {
        try Files.replace(
            "\(directory)/shards/s\(number).r1.app.conninfo",
            with: Array("\(shards[number - 1].app)".utf8), mode: 0o600)
        return "s\(number).r1"
    }

    /// The files of a shard lead to where no server is.
    func lose(_ number: Int) throws {
        for role in ["owner", "app", "mover", "superuser"] {
            try write("host=\(directory) dbname=none", toFileOf: number, role)
        }
    }

    /// The control database is away: its connections end, and its file leads to no server. Returns at once.
    nonisolated func loseControl() throws {
        try Files.replace(
            "\(directory)/control.admin.conninfo",
            with: Array("host=\(directory) dbname=none".utf8),
            mode: 0o600)
        try services.psql(
            control.superuser,
            """
            SELECT pg_terminate_backend(pid) FROM pg_stat_activity
            WHERE datname = current_database() AND pid <> pg_backend_pid()
            """)
    }

    nonisolated func findControl() throws {
        try Files.replace(
            "\(directory)/control.admin.conninfo", with: Array("\(control.admin)".utf8), mode: 0o600
        )
    }

    private func write(_ conninfo: String, toFileOf number: Int, _ role: String) throws {
        try Files.replace(
            "\(directory)/shards/s\(number).\(role).conninfo", with: Array(conninfo.utf8),
            mode: 0o600)
    }

    /// As another process would have it.
    func plane(_ name: String = "operator", clocks: Clocks = .system) -> ControlPlane {
        let plane = ControlPlane(
            configuration: configuration, clocks: clocks, operatorName: name, progress: { _ in })
        planes.append(plane)
        return plane
    }

    func close() async {
        for plane in planes { await plane.close() }
        let (services, shards, directory) = (services, shards, directory)
        do {
            try await offLoop {
                for shard in shards {
                    // What a broken test leaves would keep the log, and the database, for ever.
                    try services.psql(
                        shard.superuser,
                        """
                        DO $$ DECLARE one record; BEGIN
                            FOR one IN SELECT subname FROM pg_subscription
                                WHERE subdbid = (SELECT oid FROM pg_database WHERE datname = current_database())
                            LOOP
                                EXECUTE format('ALTER SUBSCRIPTION %I DISABLE', one.subname);
                                EXECUTE format('ALTER SUBSCRIPTION %I SET (slot_name = NONE)', one.subname);
                                EXECUTE format('DROP SUBSCRIPTION %I', one.subname);
                            END LOOP;
                        END $$;
                        """)
                }
                for shard in shards {
                    try services.psql(
                        shard.superuser,
                        """
                        SELECT pg_terminate_backend(active_pid) FROM pg_replication_slots
                        WHERE database = current_database() AND active;
                        SELECT pg_drop_replication_slot(slot_name) FROM pg_replication_slots
                        WHERE database = current_database() AND NOT active;
                        """)
                }
                _ = try Subprocess.run("/bin/rm", ["-rf", directory])
            }
        } catch {
            print("the ground was not left clean: \(error)")
        }
    }

    // MARK: What is there

    private func populate(_ patients: Int) async throws {
        let master = try MasterKey.load(path: "\(directory)/master.key")
        let (services, control, shards) = (services, control, shards)
        try await offLoop {
            func identity(_ shard: ShardDatabase) throws -> String {
                try services.psql(
                    shard.superuser,
                    """
                    SELECT quote_literal(system_identifier::text) || ', ' || timeline_id || ', '
                        || (SELECT oid FROM pg_database WHERE datname = current_database()) || ', '
                        || quote_literal(current_database())
                    FROM pg_control_system(), pg_control_checkpoint()
                    """)
            }
            var sql = """
                INSERT INTO tier (name, definition) VALUES ('basic',
                    '{"name":"basic","unitsPerSecond":50,"burstUnits":1000,"pool":{"queueTimeout":"30s"}}');
                INSERT INTO shard (id, dsn_ref, system_id, timeline, database_oid, database_name) VALUES
                    ('s1', 's1', \(try identity(shards[0]))), ('s2', 's2', \(try identity(shards[1])));

                """
            let (sunrise, lakeside) = (MoveGround.sunrise, MoveGround.lakeside)
            for (tenant, slug) in [(sunrise, "sunrise"), (lakeside, "lakeside")] {
                sql += """
                    INSERT INTO tenant (id, slug, name, tier, state)
                    VALUES ('\(tenant)', '\(slug)', '\(slug)', 'basic', 'active');
                    INSERT INTO placement (tenant_id, shard_id, state) VALUES ('\(tenant)', 's1', 'serving');
                    INSERT INTO domain (host, tenant_id, kind, verified_at)
                    VALUES ('\(slug).localhost', '\(tenant)', 'platform', now());

                    """
                for key in try WrappedKey.makeSet(for: tenant, master: master) {
                    sql += """
                        INSERT INTO tenant_key
                            (tenant_id, purpose, version, master_key_id, wrapping_version, wrapped)
                        VALUES ('\(tenant)', '\(key.purpose.rawValue)', \(key.version),
                            \(key.masterKeyID.map { "'\($0)'" } ?? "NULL"),
                            \(key.wrappingVersion.map { "\($0)" } ?? "NULL"),
                            decode('\(Hex.encode(key.wrapped))', 'hex'));

                        """
                }
            }
            try services.psql(control.admin, sql)
            for tenant in [MoveGround.sunrise, MoveGround.lakeside] {
                try services.psql(
                    shards[0].superuser,
                    """
                    INSERT INTO hc_tenant VALUES ('\(tenant)', 1, 'rw');
                    INSERT INTO clinic (tenant_id, name) VALUES ('\(tenant)', 'Clinic');
                    INSERT INTO practitioner (tenant_id, id, name)
                        SELECT '\(tenant)', gen_random_uuid(), 'P' || n FROM generate_series(1, \(patients)) n;
                    INSERT INTO audit_event
                        (tenant_id, id, at, actor_kind, action, entity, outcome, request_id)
                        SELECT '\(tenant)', gen_random_uuid(), now(), 'system', 'read', 'patient', 'success', 'r' || n
                        FROM generate_series(1, \(patients)) n;
                    """)
            }
        }
    }

    /// Rows as lines, without the last line's end.
    @discardableResult
    func psql(_ conninfo: Conninfo, _ sql: String) async throws -> String {
        let services = services
        let text = try await offLoop { try services.psql(conninfo, sql) }
        return text.last == "\n" ? String(text.dropLast()) : text
    }

    /// Asks again and again, within a bound.
    func untilTrue(_ shard: ShardDatabase, _ sql: String) async throws {
        let limit = deadline
        while try await psql(shard.superuser, sql) != "t" {
            guard !limit.isExpired(at: Loop.now) else { throw DeadlineExceeded() }
        }
    }

    // MARK: Moves

    /// Writes a move to `s2` down, as the command does.
    func begin(
        _ plane: ControlPlane, to shard: String = "s2",
        _ options: MoveOptions = MoveOptions(pauseBudget: .seconds(5))
    ) async throws -> Mover {
        let plan = try await MovePreflight(plane: plane).plan("sunrise", to: shard, options)
        return try await MoveService(plane: plane).begin(plan, reason: "test", tell: { _, _ in })
    }

    /// A move whose process died behind its verification, claimed by one that the test plays.
    func takeVerified() async throws -> (
        plane: ControlPlane, store: MoveStore, registry: ShardRegistry, move: Move
    ) {
        try FaultPoint.arm("move.verified=fail", perform: { _ in })
        let mover = try await begin(self.plane())
        await #expect(throws: FaultPointFailure.self) { try await mover.run() }
        FaultPoint.disarm()
        try await expireLeases()
        let plane = self.plane()
        let store = MoveStore(plane: plane)
        let id = try await store.find(named: "sunrise").id
        let move = try #require(try await store.claim(id, owner: "one process"))
        return (plane, store, ShardRegistry(plane: plane), move)
    }

    /// The lease of a process that is gone has run out.
    func expireLeases() async throws {
        try await psql(control.admin, "UPDATE move SET lease_until = now() - interval '1 s'")
    }

    /// Another process takes the last move of the clinic over and carries it on.
    func carryOn() async throws -> Move {
        try await expireLeases()
        let plane = plane("successor")
        let move = try await MoveStore(plane: plane).find(named: "sunrise")
        guard
            let mover = try await MoveService(plane: plane).take(move.id, tell: { _, _ in })
        else { throw FixtureError("nobody may take the move") }
        return try await mover.run()
    }

    /// Ends the connection over which a shard sends its changes, as the end of its server would.
    func breakStream(publisher: ShardDatabase) async throws {
        var ended = ""
        while ended.isEmpty {
            ended = try await psql(
                publisher.superuser,
                """
                SELECT pg_terminate_backend(active_pid) FROM pg_replication_slots
                WHERE database = current_database() AND active AND slot_name LIKE 'hc_%'
                """)
        }
    }

    /// Waits until a shard has put a stream off.
    func awaitStopped(subscriber: ShardDatabase) async throws {
        var stopped = "0"
        while stopped == "0" {
            stopped = try await psql(
                subscriber.superuser,
                """
                SELECT count(*) FROM pg_subscription WHERE NOT subenabled
                    AND subdbid = (SELECT oid FROM pg_database WHERE datname = current_database())
                """)
        }
    }

    /// A server has removed the log that slots of the name (LIKE) keep, as where they would have filled its disk. It goes on
    /// to do so: for servers of the test's own.
    func loseLog(of slots: String, on shard: ShardDatabase) async throws {
        try await psql(shard.superuser, "ALTER SYSTEM SET max_slot_wal_keep_size = '1MB'")
        try await psql(shard.superuser, "SELECT pg_reload_conf()")
        let limit = deadline
        while try await psql(
            shard.superuser,
            "SELECT bool_and(wal_status = 'lost') FROM pg_replication_slots WHERE slot_name LIKE '\(slots)'"
        ) != "t" {
            guard !limit.isExpired(at: Loop.now) else { throw DeadlineExceeded() }
            try await psql(
                shard.superuser,
                "SELECT pg_logical_emit_message(false, 'test', 'x'), pg_switch_wal()")
            try await psql(shard.superuser, "CHECKPOINT")
        }
    }

    /// Another process takes the last move over, and is given up on if that comes to no end.
    func carryOnWithinBounds() async throws -> Move {
        let end = Waiter<Void>()
        let running = Loop.shared.makeTask { () async throws -> Move in
            defer { end.succeed(()) }
            return try await self.carryOn()
        }
        do {
            try await end.wait(until: deadline)
        } catch is DeadlineExceeded {
            running.cancel()
        }
        return try await running.value
    }

    /// What is wrong, in words; empty when the clinic is served by one shard and nothing of a move is left over.
    ///
    /// - Parameter soaks: the stream of the way back stands.
    func wrongs(servedBy shard: String, epoch: Int, soaks: Bool = false) async throws -> [String] {
        var wrongs: [String] = []
        let placement = try await psql(
            control.admin,
            "SELECT shard_id, epoch, state FROM placement WHERE tenant_id = '\(Self.sunrise)'")
        if placement != "\(shard)|\(epoch)|serving" { wrongs.append("placement \(placement)") }
        for (number, database) in shards.enumerated() {
            let name = "s\(number + 1)"
            let door = try await psql(
                database.superuser,
                "SELECT state, epoch FROM hc_tenant WHERE tenant_id = '\(Self.sunrise)'")
            if name == shard {
                if door != "rw|\(epoch)" { wrongs.append("\(name) is \(door)") }
            } else if door.hasPrefix("rw") || door.hasPrefix("ro") {
                wrongs.append("\(name) is \(door) too")
            }
            let objects = try await psql(
                database.superuser,
                """
                SELECT 'slot ' || slot_name FROM pg_replication_slots WHERE database = current_database()
                UNION ALL SELECT 'subscription ' || subname FROM pg_subscription
                    WHERE subdbid = (SELECT oid FROM pg_database WHERE datname = current_database())
                UNION ALL SELECT 'publication ' || pubname FROM pg_publication
                """)
            for line in objects.split(separator: "\n") where !(soaks && line.contains("hc_mirror"))
            {
                wrongs.append("\(name) has \(line)")
            }
            if !soaks {
                let rest = try await psql(
                    database.superuser, "SELECT count(*) FROM hc_barrier")
                if rest != "0" { wrongs.append("\(name) has \(rest) barriers") }
                if name != shard {
                    let rows = try await psql(
                        database.superuser,
                        """
                        SELECT (SELECT count(*) FROM practitioner WHERE tenant_id = '\(Self.sunrise)')
                            + (SELECT count(*) FROM audit_event WHERE tenant_id = '\(Self.sunrise)')
                            + (SELECT count(*) FROM clinic WHERE tenant_id = '\(Self.sunrise)')
                        """)
                    if rows != "0" { wrongs.append("\(name) has \(rows) rows") }
                }
            }
        }
        let records = try await psql(
            control.admin,
            "SELECT count(*) FROM move_object WHERE dropped_at IS NULL AND NOT (\(soaks) AND name LIKE 'hc_mirror%')"
        )
        if records != "0" { wrongs.append("\(records) cleanup records") }
        let neighbour = try await psql(
            shards[0].superuser,
            """
            SELECT state || ' ' || (SELECT count(*) FROM practitioner WHERE tenant_id = '\(Self.lakeside)')
            FROM hc_tenant WHERE tenant_id = '\(Self.lakeside)'
            """)
        if neighbour != "rw \(patients)" { wrongs.append("the neighbour is \(neighbour)") }
        return wrongs
    }
}

/// Runs `body` on a ground of its own.
@LoopActor
func withMoveGround(
    patients: Int = 300, own: LocalServices? = nil,
    _ body: @LoopActor (MoveGround) async throws -> Void
) async throws {
    let ground = try await MoveGround.make(patients: patients, own: own)
    do {
        try await body(ground)
    } catch {
        await ground.close()
        throw error
    }
    await ground.close()
}

/// Writers and readers of the clinic that is moved, with a ledger of what was acknowledged.
@LoopActor
final class MoveLoad {
    private let context: @LoopActor () throws -> TenantContext
    private let deadline: @LoopActor () -> Deadline
    private var tasks: [Task<Void, any Error>] = []
    private var isStopping = false
    private(set) var acknowledged: Set<UUID> = []
    private(set) var tried: Set<UUID> = []
    private(set) var failures: [String] = []

    /// - Parameter plane: of its own: its map is a router's.
    static func start(_ ground: MoveGround, writers: Int = 3) async throws -> MoveLoad {
        let plane = ground.plane("clinic")
        let context = try await plane.context(tenant: MoveGround.sunrise)
        let load = MoveLoad({ context }, { ground.deadline })
        for _ in 0..<writers { load.tasks.append(Loop.shared.makeTask { try await load.write() }) }
        // Not before all have written.
        try await Loop.shared.wait { load.acknowledged.count >= writers * 2 }
        return load
    }

    private init(
        _ context: @escaping @LoopActor () throws -> TenantContext,
        _ deadline: @escaping @LoopActor () -> Deadline
    ) {
        self.context = context
        self.deadline = deadline
    }

    private func write() async throws {
        while !isStopping {
            // All over the table, as search tokens are.
            let id = UUID(high: .random(in: 0 ... .max), low: .random(in: 0 ... .max))
            tried.insert(id)
            do {
                let context = try context()
                try await context.write(
                    [
                        Query(
                            "INSERT INTO practitioner (tenant_id, id, name) VALUES ($1, $2, 'ledger')",
                            [.id(context.id), .uuid(id)])
                    ], audit: [], deadline: deadline())
                acknowledged.insert(id)
                let seen = try await context.read(
                    [
                        Query(
                            "SELECT count(*) FROM practitioner WHERE tenant_id = $1 AND id = $2",
                            [.id(context.id), .uuid(id)])
                    ], deadline: deadline())[0].single().int(0)
                if seen != 1 { failures.append("a write is not read") }
            } catch {
                failures.append("\(error)")
                return
            }
        }
    }

    func stop() async throws {
        isStopping = true
        for task in tasks { try await task.value }
    }

    /// What was acknowledged and is not there, or is there and was never asked for.
    func lost(on shard: ShardDatabase, _ ground: MoveGround) async throws -> Int {
        let rows = try await ground.psql(
            shard.superuser,
            "SELECT id FROM practitioner WHERE tenant_id = '\(MoveGround.sunrise)' AND name = 'ledger'"
        )
        let there = rows.split(separator: "\n").compactMap { UUID(String($0)) }
        return acknowledged.subtracting(there).count + Set(there).subtracting(tried).count
            + there.count - Set(there).count
    }
}
