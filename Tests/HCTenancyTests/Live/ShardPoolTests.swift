import HCCore
import HCIO
import HCPostgres
import HCTesting
import Testing

@testable import HCTenancy

@Suite("A shard's connections are shared, and given up when nobody waits", .onLoop)
@LoopActor
struct ShardPoolTests {
    nonisolated private static let sleep = Query("SELECT pg_sleep(600), 'hc shard pool test'")
    nonisolated private static let one = Query("SELECT 1")

    private func setTier(_ platform: LivePlatform, _ json: String) async throws {
        try await platform.psql(
            platform.control.admin, "UPDATE tier SET definition = '\(json)' WHERE name = 'basic'")
        _ = try await platform.directory.load(deadline: platform.deadline)
    }

    /// Waits until so many statements sleep in the shard.
    private func waitForSleepers(_ count: Int, _ platform: LivePlatform) async throws {
        let limit = platform.deadline
        while try await platform.psql(
            platform.first.superuser,
            """
            SELECT count(*) FROM pg_stat_activity WHERE datname = current_database()
                AND state = 'active' AND query LIKE '%hc shard pool test%' AND pid <> pg_backend_pid()
            """) != "\(count)\n"
        {
            try #require(!limit.isExpired(at: Loop.now))
        }
    }

    private func waiting(_ platform: LivePlatform) -> (active: Int, waiting: Int) {
        var snapshot = MetricsSnapshot()
        platform.door.appendTenantUse(to: &snapshot)
        func value(_ name: String) -> Int {
            guard
                case .gauge(let value) = snapshot.value(
                    name, labels: [("shard", "s1"), ("tenant", "sunrise")])
            else { return 0 }
            return Int(value)
        }
        return (value("hc_tenant_active"), value("hc_tenant_waiting"))
    }

    @Test("a read whose caller has gone is taken out of the queue, or cancelled on the server")
    func cancelledReads() async throws {
        let platform = try await LivePlatform.make { $0.pools.shardConnectionsMax = 1 }
        let context = try platform.context(LivePlatform.sunrise)
        let deadline = platform.deadline
        let running = Loop.shared.makeTask {
            try await context.read([Self.sleep], deadline: deadline)
        }
        try await waitForSleepers(1, platform)
        let queued = Loop.shared.makeTask {
            try await context.read([Self.sleep], deadline: deadline)
        }
        while waiting(platform).waiting < 1 { try await Loop.shared.sleep(for: .milliseconds(1)) }
        queued.cancel()
        await #expect(throws: TenancyError.cancelled) { try await queued.value }
        #expect(waiting(platform) == (1, 0))
        running.cancel()
        await #expect(throws: TenancyError.cancelled) { try await running.value }
        try await waitForSleepers(0, platform)
        _ = try await context.read([Self.one], deadline: deadline)
        #expect(waiting(platform) == (0, 0))
    }

    @Test("a write whose caller has gone is finished once it was sent")
    func cancelledWrite() async throws {
        let platform = try await LivePlatform.make { $0.pools.shardConnectionsMax = 1 }
        let context = try platform.context(LivePlatform.sunrise)
        let deadline = platform.deadline
        let lock = try platform.services.session(platform.first.superuser)
        _ = try await offLoop {
            try lock.run("BEGIN; LOCK TABLE practitioner IN ACCESS EXCLUSIVE MODE")
        }
        let write = Loop.shared.makeTask {
            try await context.write(
                [LivePlatform.addPractitioner("Kept", to: LivePlatform.sunrise)],
                audit: [LivePlatform.event("create")], deadline: deadline)
        }
        while try await platform.psql(
            platform.first.superuser,
            "SELECT count(*) FROM pg_locks WHERE NOT granted AND database = (SELECT oid FROM pg_database WHERE datname = current_database())"
        ) == "0\n" {}
        write.cancel()
        _ = try await offLoop { try lock.run("COMMIT") }
        _ = try await write.value
        #expect(try await platform.names(LivePlatform.sunrise) == ["Kept"])
        // What was not sent is not begun.
        let late = Loop.shared.makeTask {
            try await context.write(
                [LivePlatform.addPractitioner("Never", to: LivePlatform.sunrise)], audit: [],
                deadline: deadline)
        }
        late.cancel()
        await #expect(throws: TenancyError.cancelled) { try await late.value }
        #expect(try await platform.names(LivePlatform.sunrise) == ["Kept"])
    }

    @Test(
        "a look-up that all who asked for it have left is cancelled; one that somebody wants is not"
    )
    func cancelledLookups() async throws {
        let platform = try await LivePlatform.make()
        let deadline = platform.deadline
        let lookups = platform.door.lookups
        let tasks = (0..<2).map { _ in
            Loop.shared.makeTask {
                try await lookups.find(Self.sleep, in: LivePlatform.sunrise, deadline: deadline)
            }
        }
        try await waitForSleepers(1, platform)
        tasks[0].cancel()
        await #expect(throws: TenancyError.cancelled) { try await tasks[0].value }
        try await waitForSleepers(1, platform)
        tasks[1].cancel()
        await #expect(throws: TenancyError.cancelled) { try await tasks[1].value }
        try await waitForSleepers(0, platform)
        while lookups.activeCount > 0 { try await Loop.shared.sleep(for: .milliseconds(1)) }
    }

    @Test("who has waited as long as the tier allows is refused, and told when to come again")
    func queueTimeout() async throws {
        let platform = try await LivePlatform.make { $0.pools.shardConnectionsMax = 1 }
        try await setTier(
            platform,
            #"{"name":"basic","weight":1,"rates":[{"name":"tenant","scope":"tenant","algorithm":"token-bucket","units":50,"per":"1s","burst":1000}],"safetyReserve":0,"pool":{"inFlightMax":8,"waitingMax":1,"queueTimeout":"20ms","dedicatedConnections":0},"timeouts":{"statement":"30s","lock":"30s","transaction":"30s"},"cache":{"bytesMax":"1MiB","entriesMax":1000},"parkedRequestsMax":64}"#
        )
        let context = try platform.context(LivePlatform.sunrise)
        let deadline = platform.deadline
        let running = Loop.shared.makeTask {
            try await context.read([Self.sleep], deadline: deadline)
        }
        try await waitForSleepers(1, platform)
        let late = await #expect(throws: TenancyError.self) {
            try await context.read([Self.one], deadline: deadline)
        }
        #expect(late?.code == "overloaded")
        #expect(late?.retryAfter.map { $0 >= .seconds(1) && $0 <= .seconds(60) } == true)
        // With the request's own deadline before it, that is what has passed.
        let own = Deadline.after(.milliseconds(5), from: Loop.now)
        await #expect(throws: TenancyError.deadlineExceeded) {
            try await context.read([Self.one], deadline: own)
        }
        running.cancel()
        _ = await running.result
    }

    @Test("a tier's limits hold for the transaction and leave nothing behind")
    func timeouts() async throws {
        let platform = try await LivePlatform.make { $0.pools.shardConnectionsMax = 1 }
        let settings = Query(
            """
            SELECT current_setting('statement_timeout'), current_setting('lock_timeout'),
                current_setting('idle_in_transaction_session_timeout')
            """)
        func tier(_ statement: String, _ lock: String, _ transaction: String) async throws {
            try await setTier(
                platform,
                #"{"name":"basic","weight":1,"rates":[{"name":"tenant","scope":"tenant","algorithm":"token-bucket","units":50,"per":"1s","burst":1000}],"safetyReserve":0,"pool":{"inFlightMax":8,"waitingMax":10,"queueTimeout":"2s","dedicatedConnections":0},"timeouts":{"statement":"\#(statement)","lock":"\#(lock)","transaction":"\#(transaction)"},"cache":{"bytesMax":"1MiB","entriesMax":1000},"parkedRequestsMax":64}"#
            )
        }
        func seen() async throws -> [String] {
            let row = try await platform.context(LivePlatform.sunrise).read(
                [settings], deadline: platform.deadline)[0].single()
            return [try row.text(0), try row.text(1), try row.text(2)]
        }
        try await tier("50ms", "40ms", "7s")
        #expect(try await seen() == ["50ms", "40ms", "7s"])
        await #expect(throws: TenancyError.timeLimitExceeded) {
            try await platform.context(LivePlatform.sunrise).read(
                [Self.sleep], deadline: platform.deadline)
        }
        let lock = try platform.services.session(platform.first.superuser)
        _ = try await offLoop {
            try lock.run("BEGIN; LOCK TABLE practitioner IN ACCESS EXCLUSIVE MODE")
        }
        let error = await #expect(throws: PostgresError.self) {
            _ = try await platform.names(LivePlatform.sunrise)
        }
        #expect(error?.sqlstate == .lockNotAvailable)
        _ = try await offLoop { try lock.run("COMMIT") }
        // A transaction that nobody continues is over after the tier's time, whatever the request's is.
        try await tier("30ms", "30ms", "60ms")
        await #expect(throws: TenancyError.timeLimitExceeded) {
            try await platform.context(LivePlatform.sunrise).transaction(
                .read, deadline: platform.deadline
            ) { transaction in
                while true { _ = try await transaction.execute(Self.one) }
            }
        }
        // The same session, under the usual limits: they are in no statement, and nothing was left of the others.
        let usual = TierTimeouts()
        try await tier(
            "\(usual.statement.inMilliseconds)ms", "\(usual.lock.inMilliseconds)ms",
            "\(usual.transaction.inMilliseconds)ms")
        #expect(try await seen() == ["10s", "2s", "20s"])
    }

    // MARK: Behind a pooler

    private func pooled(sessions: Int) async throws -> (TransactionPooler, LivePlatform) {
        let ground = try await LivePlatform.makeGround()
        let pooler = try await offLoop {
            try TransactionPooler(ground.first.app, sessions: sessions)
        }
        let conninfo = Sensitive("\(pooler.conninfo(ground.first.app))")
        let platform = try await LivePlatform.make(ground) { configuration in
            configuration.pools.transactionPooling = true
            let direct = configuration.conninfo
            configuration.conninfo = { $0 == "first" ? conninfo : try direct($0) }
        }
        return (pooler, platform)
    }

    @Test("two clinics behind a pooler share its sessions and see their own rows only")
    func pooledClinics() async throws {
        let (pooler, platform) = try await pooled(sessions: 2)
        let tenants = [LivePlatform.sunrise, LivePlatform.hillview]
        _ = try await concurrently(40) { number in
            let tenant = tenants[number % 2]
            try await platform.context(tenant).transaction(.write, deadline: platform.deadline) {
                transaction in
                _ = try await transaction.execute(
                    LivePlatform.addPractitioner("\(number)", to: tenant))
                transaction.audit(LivePlatform.event("create"))
            }
            _ = try await platform.context(tenant).readAudited(
                [LivePlatform.allPractitioners], audit: LivePlatform.event(),
                deadline: platform.deadline)
        }
        for (index, tenant) in tenants.enumerated() {
            let names = try await platform.names(tenant)
            #expect(names.count == 20)
            #expect(names.allSatisfy { Int($0).map { $0 % 2 == index } == true })
        }
        withExtendedLifetime(pooler) {}
    }

    @Test("another server behind the pooler is not entered before it is identified")
    func pooledIdentity() async throws {
        let (pooler, platform) = try await pooled(sessions: 1)
        #expect(try await platform.names(LivePlatform.sunrise).isEmpty)
        // As if the pooler had gone over to a server that was started at another time.
        try await platform.shards.withConnection(
            to: ShardID("s1"), deadline: platform.deadline
        ) { $0.serverStart = .epoch }
        await #expect(throws: TenancyError.moving(retryAfter: .seconds(1))) {
            try await platform.context(LivePlatform.sunrise).write(
                [LivePlatform.addPractitioner("Lost", to: LivePlatform.sunrise)], audit: [],
                deadline: platform.deadline)
        }
        #expect(try await platform.names(LivePlatform.sunrise).isEmpty, "on a connection made anew")
        withExtendedLifetime(pooler) {}
    }

    /// A contract ends the sessions of who does not report himself; those to a pooler it cannot see.
    @Test("behind a pooler each transaction looks whether the shard is for newer programs by now")
    func pooledSchema() async throws {
        let (pooler, platform) = try await pooled(sessions: 1)
        #expect(try await platform.names(LivePlatform.sunrise).isEmpty)
        let ground = platform.ground
        let close =
            "UPDATE hc_schema SET serves_from = 1000 WHERE version = (SELECT max(version) FROM hc_schema)"
        _ = try await offLoop { try ground.services.psql(ground.first.owner, close) }
        // The first is refused by the shard, and its connection given up; with the next one the ledger was read.
        for refusal in [
            TenancyError.moving(retryAfter: .seconds(1)),
            .schemaUnsupported(retryAfter: .seconds(5)),
        ] {
            await #expect(throws: refusal) {
                try await platform.context(LivePlatform.sunrise).write(
                    [LivePlatform.addPractitioner("Lost", to: LivePlatform.sunrise)], audit: [],
                    deadline: platform.deadline)
            }
        }
        let rows = try await offLoop {
            try ground.services.psql(ground.first.superuser, "SELECT count(*) FROM practitioner")
        }
        #expect(rows == "0\n")
        withExtendedLifetime(pooler) {}
    }
}
