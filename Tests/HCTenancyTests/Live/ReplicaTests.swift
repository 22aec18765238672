import HCCore
import HCIO
import HCPostgres
import HCTesting
import Testing

@testable import HCTenancy

/// A platform whose first two shards have a replica each, on servers of these suites' own.
@LoopActor
struct ReplicatedPlatform {
    let platform: LivePlatform
    /// Of the replicas, by shard.
    let replicas: [String: Conninfo]

    /// Any time that a test could take: a replica is never late.
    static let patient = PlatformConfiguration.Replicas(
        lagMax: .seconds(3600), sampleInterval: .milliseconds(10))
    static let strict = PlatformConfiguration.Replicas(
        lagMax: .milliseconds(300), sampleInterval: .milliseconds(10))

    /// - Parameter impostor: the first shard's replica is that of another server, which holds a copy of the clinic.
    static func make(
        _ configuration: PlatformConfiguration.Replicas = patient,
        services: LocalServices? = nil, impostor: ShardDatabase? = nil
    ) async throws -> ReplicatedPlatform {
        let services =
            if let services { services } else {
                try await offLoop { try LocalServices.replicated() }
            }
        let ground = try await LivePlatform.makeGround(services)
        var conninfos: [String: Conninfo] = [:]
        conninfos["first.r1"] =
            if let impostor {
                try services.replica(of: impostor, beside: "s2")
            } else {
                try services.replica(of: ground.first)
            }
        // Both shards are on the first server.
        conninfos["second.r1"] = try services.replica(of: ground.second)
        _ = try await offLoop {
            try services.psql(
                ground.control.admin,
                """
                INSERT INTO replica (shard_id, name, dsn_ref)
                VALUES ('s1', 'r1', 'first.r1'), ('s2', 'r1', 'second.r1')
                """)
        }
        let replicas = conninfos
        let platform = try await LivePlatform.make(ground) {
            $0.replicas = configuration
            let primary = $0.conninfo
            $0.conninfo = { reference in
                if let replica = replicas[reference] { return Sensitive("\(replica)") }
                return try primary(reference)
            }
        }
        return ReplicatedPlatform(platform: platform, replicas: replicas)
    }

    var deadline: Deadline { platform.deadline }

    /// One request's view, of nobody in particular.
    func request(
        _ tenant: TenantID = LivePlatform.sunrise, after token: String? = nil
    ) throws -> TenantContext {
        let context = try platform.context(tenant)
        context.setReader(session: nil, after: token)
        return context
    }

    func names(
        _ context: TenantContext, from target: ReadTarget = .replica
    ) async throws -> [String] {
        let rows = try await context.read(
            [LivePlatform.allPractitioners], from: target, deadline: deadline)
        return try rows[0].rows.map { try $0.text(0) }
    }

    /// Reads that a replica answered.
    var replicaReads: Int { reads(of: "r1") }
    var primaryReads: Int { reads(of: "primary") }

    private func reads(of target: String) -> Int {
        let family = platform.registry.snapshot().families["hc_replica_reads_total"]
        return (family?.samples ?? [:]).reduce(0) { sum, sample in
            guard sample.key["target"] == target, case .counter(let count) = sample.value else {
                return sum
            }
            return sum + Int(count)
        }
    }

    func fallbacks(_ reason: ReplicaMetrics.Fallback) -> Int {
        let family = platform.registry.snapshot().families["hc_replica_fallbacks_total"]
        return (family?.samples ?? [:]).reduce(0) { sum, sample in
            guard sample.key["reason"] == reason.rawValue, case .counter(let count) = sample.value
            else { return sum }
            return sum + Int(count)
        }
    }

    /// Reads until the condition holds; a test in which it never does fails.
    ///
    /// - Parameter code: of a refusal after which the read is made again.
    @discardableResult
    func read(
        _ tenant: TenantID = LivePlatform.sunrise, from target: ReadTarget = .replica,
        retrying code: String? = nil, until isDone: ([String]) -> Bool
    ) async throws -> [String] {
        let limit = deadline
        while true {
            var found: [String] = []
            do {
                found = try await names(try request(tenant), from: target)
                if isDone(found) { return found }
            } catch let error as TenancyError where error.code == code {
                // A breaker that is open refuses without a wait: the loop would never come to its timers.
                try await Loop.shared.lookAround()
            }
            guard !limit.isExpired(at: Loop.now) else {
                throw FixtureError("still \(found) after \(replicaReads) reads of the replica")
            }
        }
    }

    /// Reads until a replica answers.
    func readUntilReplica(_ tenant: TenantID = LivePlatform.sunrise) async throws {
        let before = replicaReads
        try await read(tenant) { _ in replicaReads > before }
    }

    func add(_ name: String, _ context: TenantContext) async throws {
        try await context.write(
            [LivePlatform.addPractitioner(name, to: context.id)],
            audit: [LivePlatform.event("create")], deadline: deadline)
    }

    /// Stops the replay of the log on the first server's replica, of all its databases.
    func pause() async throws {
        try await onReplica("SELECT pg_wal_replay_pause()")
        // Asked for is not done.
        let state = "SELECT pg_get_wal_replay_pause_state()"
        while try await onReplica(state) != "paused\n" {}
    }

    func resume() async throws { try await onReplica("SELECT pg_wal_replay_resume()") }

    @discardableResult
    func onReplica(_ sql: String) async throws -> String {
        let (services, first) = (platform.services, platform.first)
        return try await offLoop {
            try services.psql(services.replica(of: first, role: "superuser"), sql)
        }
    }

    /// Runs `body` while the replica stands still, and lets it go on whatever comes.
    func whilePaused(_ body: () async throws -> Void) async throws {
        try await pause()
        do {
            try await body()
        } catch {
            try await resume()
            throw error
        }
        try await resume()
    }
}

@Suite("Reading from replicas", .onLoop, .serialized)
@LoopActor
struct ReplicaTests {
    @Test(
        "hc_enter lets readers in on a hot standby, and row-level security keeps clinics apart there"
    )
    func standby() async throws {
        let replicated = try await ReplicatedPlatform.make()
        try await replicated.add("Dr Sunrise", try replicated.request())
        try await replicated.add("Dr Hillview", try replicated.request(LivePlatform.hillview))
        let found = try await replicated.read {
            $0 == ["Dr Sunrise"] && replicated.replicaReads > 0
        }
        #expect(found == ["Dr Sunrise"])
        try await replicated.readUntilReplica(LivePlatform.hillview)
        #expect(
            try await replicated.names(try replicated.request(LivePlatform.hillview)) == [
                "Dr Hillview"
            ])
        #expect(replicated.fallbacks(.refused) == 0)
    }

    @Test("who asks for the primary, or has no request of its own, is answered by the primary")
    func primaries() async throws {
        let replicated = try await ReplicatedPlatform.make()
        try await replicated.readUntilReplica()
        let before = replicated.replicaReads
        _ = try await replicated.names(try replicated.request(), from: .primary)
        _ = try await replicated.names(try replicated.request(), from: .primaryUnlessLost)
        _ = try await replicated.names(try replicated.platform.context(LivePlatform.sunrise))
        #expect(replicated.replicaReads == before)
    }

    @Test("a writer finds what it wrote, at once, however far behind the replica is")
    func ownWrites() async throws {
        let replicated = try await ReplicatedPlatform.make()
        try await replicated.readUntilReplica()
        try await replicated.whilePaused {
            let request = try replicated.request()
            try await replicated.add("Dr Own", request)
            #expect(try await replicated.names(request) == ["Dr Own"], "in the same request")
            let token = try #require(await request.finishReading(deadline: replicated.deadline))
            let next = try replicated.request(after: token)
            #expect(try await replicated.names(next) == ["Dr Own"], "in the next one, by the token")
            #expect(replicated.fallbacks(.behind) == 2)
            // Who has no token may see the past.
            let before = replicated.replicaReads
            #expect(try await replicated.names(try replicated.request()) == [])
            #expect(replicated.replicaReads == before + 1)
        }
        // Replayed: now the replica has it, and answers.
        let token = try #require(try await tokenOfWrite("Dr Late", replicated))
        let before = replicated.replicaReads
        let limit = replicated.deadline
        while replicated.replicaReads == before, !limit.isExpired(at: Loop.now) {
            let found = try await replicated.names(try replicated.request(after: token))
            #expect(found == ["Dr Late", "Dr Own"])
        }
        #expect(replicated.replicaReads > before)
    }

    private func tokenOfWrite(
        _ name: String, _ replicated: ReplicatedPlatform
    ) async throws -> String? {
        let request = try replicated.request()
        try await request.transaction(.write, deadline: replicated.deadline) { transaction in
            _ = try await transaction.execute(LivePlatform.addPractitioner(name, to: request.id))
            transaction.audit(LivePlatform.event("create"))
        }
        return await request.finishReading(deadline: replicated.deadline)
    }

    @Test("a token that is another clinic's, or no token, makes the primary answer")
    func foreignToken() async throws {
        let replicated = try await ReplicatedPlatform.make()
        try await replicated.readUntilReplica()
        let token = try #require(try await tokenOfWrite("Dr One", replicated))
        let before = replicated.replicaReads
        for text in [token + "x", "nonsense", ""] {
            _ = try await replicated.names(try replicated.request(after: text))
        }
        _ = try await replicated.names(try replicated.request(LivePlatform.hillview, after: token))
        #expect(replicated.replicaReads == before)
        #expect(replicated.fallbacks(.unknown) == 4)
    }

    @Test(
        "a replica that stands still is read no longer than the bound, and again when it has caught up"
    )
    func lag() async throws {
        let replicated = try await ReplicatedPlatform.make(ReplicatedPlatform.strict)
        try await replicated.readUntilReplica()
        try await replicated.whilePaused {
            try await replicated.add("Dr Elsewhere", try replicated.request())
            // Without a bound the replica would answer for ever that there is nobody.
            try await replicated.read { $0 == ["Dr Elsewhere"] }
            #expect(replicated.fallbacks(.lagging) > 0)
            let before = replicated.replicaReads
            for _ in 0..<20 {
                #expect(try await replicated.names(try replicated.request()) == ["Dr Elsewhere"])
            }
            #expect(replicated.replicaReads == before)
        }
        try await replicated.readUntilReplica()
    }

    @Test("a replica that is less far than it was sampled is found out by its answer")
    func judged() async throws {
        let replicated = try await ReplicatedPlatform.make()
        try await replicated.readUntilReplica()
        try await replicated.whilePaused {
            let token = try #require(try await tokenOfWrite("Dr Own", replicated))
            let reader = try #require(replicated.platform.shards.replicas(of: ShardID("s1")))
            let before = replicated.replicaReads
            // In one tick with the choice: no sample comes between.
            reader.sampled("r1", LogPosition(.max - 1), now: Loop.now)
            #expect(
                try await replicated.names(try replicated.request(after: token)) == ["Dr Own"])
            #expect(replicated.replicaReads == before)
            #expect(replicated.fallbacks(.behind) == 1)
        }
    }

    @Test("a server of another cluster is not read from, whatever it says")
    func impostor() async throws {
        let services = try await offLoop { try LocalServices.replicated() }
        let tenant = LivePlatform.sunrise
        let clone = try await offLoop {
            let clone = try services.makeShardDatabase(beside: "s2")
            try services.psql(
                clone.superuser,
                """
                INSERT INTO hc_tenant VALUES ('\(tenant)', 1, 'rw');
                INSERT INTO practitioner (tenant_id, id, name)
                VALUES ('\(tenant)', gen_random_uuid(), 'Dr Impostor');
                -- Further than the log of the other server will get.
                \(String(repeating: "SELECT pg_switch_wal(), txid_current();", count: 20))
                """)
            return clone
        }
        let replicated = try await ReplicatedPlatform.make(impostor: clone)
        try await replicated.add("Dr Real", try replicated.request())
        // Every connection and every sample of it is a refusal.
        try await replicated.read { names in
            #expect(names == ["Dr Real"])
            return replicated.platform.metrics.identityRefusals.value >= 5
        }
        #expect(replicated.replicaReads == 0)
    }

    @Test(
        "a clinic that left is read at its old place no longer than the bound, and not by those who know better"
    )
    func moved() async throws {
        let replicated = try await ReplicatedPlatform.make(ReplicatedPlatform.strict)
        let platform = replicated.platform
        let reader = try await ReplicatedPlatform.makeSecond(beside: replicated)
        try await reader.readUntilReplica()
        try await replicated.whilePaused {
            try await platform.moveSunrise()
            try await platform.directory.refresh(deadline: replicated.deadline)
            let request = try replicated.request()
            try await replicated.add("Dr New Place", request)
            let token = try #require(await request.finishReading(deadline: replicated.deadline))
            // The reader's map is from before the move; the old place's replica still lets it in.
            #expect(reader.platform.directory.snapshot?.find(LivePlatform.sunrise)?.epoch == 1)
            let found = try await reader.names(try reader.request(after: token))
            #expect(
                found == ["Dr New Place"],
                "the token is of a newer epoch: the primary knows of the move")
        }
    }

    @Test("with an old map and no token the old place answers within the bound only")
    func movedWithoutToken() async throws {
        let replicated = try await ReplicatedPlatform.make(ReplicatedPlatform.strict)
        let platform = replicated.platform
        let reader = try await ReplicatedPlatform.makeSecond(beside: replicated)
        try await reader.readUntilReplica()
        try await replicated.whilePaused {
            try await platform.moveSunrise()
            try await platform.directory.refresh(deadline: replicated.deadline)
            try await replicated.add("Dr New Place", try replicated.request())
            try await reader.read { $0 == ["Dr New Place"] }
        }
    }

    @Test(
        "a replica to which the clinic has not come yet is not believed: the primary is asked, and no map read anew"
    )
    func notYetThere() async throws {
        let replicated = try await ReplicatedPlatform.make()
        let platform = replicated.platform
        try await replicated.readUntilReplica(LivePlatform.lakeside)
        try await replicated.whilePaused {
            try await platform.moveSunrise()
            try await platform.directory.refresh(deadline: replicated.deadline)
            let polls = platform.directory.pollCount
            #expect(try await replicated.names(try replicated.request()) == [])
            #expect(replicated.fallbacks(.refused) == 1)
            #expect(platform.directory.pollCount == polls)
            #expect(
                platform.metrics.refusedMoved.value == 0,
                "refusals of a replica are not counted as the shard's")
        }
    }

    @Test("what a replica cannot do for its caller the primary does, and its word counts")
    func statementErrors() async throws {
        let replicated = try await ReplicatedPlatform.make()
        try await replicated.readUntilReplica()
        let error = await #expect(throws: PostgresError.self) {
            try await replicated.request().read(
                [Query("SELECT 1 / (length(current_user) - length(current_user))")], from: .replica,
                deadline: replicated.deadline)
        }
        #expect(error?.sqlstate == .divisionByZero)
        #expect(error?.queryIndex == 0)
        #expect(replicated.fallbacks(.refused) == 1)
        try await replicated.readUntilReplica()
    }

    @Test("the map's word on a replica counts at once: closed, opened again, removed")
    func registry() async throws {
        let replicated = try await ReplicatedPlatform.make()
        let platform = replicated.platform
        try await replicated.readUntilReplica()
        try await platform.psql(platform.control.admin, "UPDATE replica SET state = 'closed'")
        try await platform.directory.refresh(deadline: replicated.deadline)
        let before = replicated.replicaReads
        for _ in 0..<10 { _ = try await replicated.names(try replicated.request()) }
        #expect(replicated.replicaReads == before)
        try await platform.psql(
            platform.control.admin, "UPDATE replica SET state = 'open', weight = 5")
        try await platform.directory.refresh(deadline: replicated.deadline)
        try await replicated.readUntilReplica()
        try await platform.psql(platform.control.admin, "DELETE FROM replica")
        try await platform.directory.refresh(deadline: replicated.deadline)
        let request = try replicated.request()
        try await replicated.add("Dr Alone", request)
        #expect(
            await request.finishReading(deadline: replicated.deadline) == nil,
            "nobody could miss it")
    }

    @Test("the map on disk has the replicas too")
    func file() async throws {
        let replicated = try await ReplicatedPlatform.make()
        let map = try #require(replicated.platform.directory.snapshot)
        let path = try TemporaryFile.path("directory")
        defer {
            TemporaryFile.remove("\(path).lock")
            TemporaryFile.remove(path)
        }
        #expect(try DirectoryFile.replace(path, with: map))
        let read = try DirectoryFile.read(path)
        #expect(
            read.find(ShardID("s1"))?.replicas == [ReplicaRecord(name: "r1", reference: "first.r1")]
        )
        #expect(read.differences(from: map) == [])
        #expect(Set(read.shardRecords) == Set(map.shardRecords))
    }
}

extension ReplicatedPlatform {
    /// Another process on the same ground.
    static func makeSecond(beside first: ReplicatedPlatform) async throws -> ReplicatedPlatform {
        let replicas = first.replicas
        let platform = try await LivePlatform.make(first.platform.ground) {
            $0.replicas = strict
            let primary = $0.conninfo
            $0.conninfo = { reference in
                if let replica = replicas[reference] { return Sensitive("\(replica)") }
                return try primary(reference)
            }
        }
        return ReplicatedPlatform(platform: platform, replicas: replicas)
    }
}
