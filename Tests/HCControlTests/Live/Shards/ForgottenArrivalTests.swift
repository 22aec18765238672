import HCCore
import HCIO
import HCPostgres
import HCTenancy
import HCTesting
import Testing

@testable import HCControl

/// A clinic comes to `s2`, whose standby hears nothing any more at some time of it, and takes over later.
@Suite("A server that took over has forgotten that a clinic came", .serialized, .onLoop)
@LoopActor
struct ForgottenArrivalTests {
    /// A ground whose servers have standbys.
    private func withStandbys(
        _ body: @LoopActor (MoveGround, _ standby: Conninfo) async throws -> Void
    ) async throws {
        let services = try await offLoop {
            try LocalServices(shards: 2, servers: 2, replicas: true)
        }
        try await withMoveGround(own: services) { ground in
            try await ground.recordSchemas()
            let standby = try services.replica(
                of: ground.shards[1], role: "superuser", beside: "s2")
            try await body(ground, standby)
        }
    }

    /// The standby of `s2` has everything that is there now, and hears nothing from here on.
    ///
    /// - Parameter isKnown: it has a slot, so that what was left behind is kept for it.
    private func cutOff(
        _ standby: Conninfo, _ ground: MoveGround, isKnown: Bool = true
    ) async throws {
        let position = try await ground.psql(
            ground.shards[1].superuser, "SELECT pg_current_wal_insert_lsn()")
        while try await ground.psql(
            standby, "SELECT pg_last_wal_replay_lsn() >= '\(position)'") != "t"
        {}
        try await ground.psql(standby, "ALTER SYSTEM SET primary_conninfo = ''")
        try await ground.psql(standby, "SELECT pg_reload_conf()")
        while try await ground.psql(standby, "SELECT count(*) FROM pg_stat_wal_receiver") != "0" {}
        guard !isKnown else { return }
        let server = ground.shards[1]
        try await ground.untilTrue(
            server,
            "SELECT NOT active FROM pg_replication_slots WHERE slot_name = 'hc_replica'")
        try await ground.psql(server.superuser, "SELECT pg_drop_replication_slot('hc_replica')")
    }

    private func takeOver(_ standby: Conninfo, _ ground: MoveGround) async throws {
        try await ground.psql(standby, "SELECT pg_promote()")
        try ground.lead(2, to: standby)
    }

    private func reconcile(
        _ ground: MoveGround, dryRun: Bool = false
    ) async throws -> ShardReconciliation.Result {
        try await ShardReconciliation("s2", plane: ground.plane()).run(
            isNewSystem: false, reason: "test", dryRun: dryRun)
    }

    private func write(_ names: String..., on shard: ShardDatabase, _ ground: MoveGround)
        async throws
    {
        for name in names {
            try await ground.psql(
                shard.superuser,
                """
                INSERT INTO practitioner (tenant_id, id, name)
                VALUES ('\(MoveGround.sunrise)', gen_random_uuid(), '\(name)')
                """)
        }
    }

    private func count(_ name: String, on shard: ShardDatabase, _ ground: MoveGround) async throws
        -> String
    {
        try await ground.psql(
            shard.superuser,
            "SELECT count(*) FROM practitioner WHERE tenant_id = '\(MoveGround.sunrise)' AND name = '\(name)'"
        )
    }

    /// Until the point, where the process dies.
    private func die(_ point: String, _ body: @LoopActor () async throws -> Void) async throws {
        try FaultPoint.arm("\(point)=fail", perform: { _ in })
        await #expect(throws: FaultPointFailure.self) { try await body() }
        FaultPoint.disarm()
    }

    @Test("while the move soaks, the former shard serves it again with what it was told since")
    func soaking() async throws {
        try await withStandbys { ground, standby in
            try await cutOff(standby, ground)
            #expect(try await ground.begin(ground.plane()).run().state == .soaking)
            try await write("since", on: ground.shards[1], ground)
            while try await count("since", on: ground.shards[0], ground) != "1" {}
            try await takeOver(standby, ground)
            let preview = try await reconcile(ground, dryRun: true)
            #expect(preview.recalls.map(\.clinic) == ["sunrise"] && preview.lost == [])
            #expect(try await ground.places().contains("sunrise s2 2 serving"))
            let result = try await reconcile(ground)
            #expect(result.outcome == "reconciled" && result.lost == [] && result.waiting == [])
            #expect(result.recalls.map(\.clinic) == ["sunrise"] && result.waysBack == [])
            #expect(try await ground.wrongs(servedBy: "s1", epoch: 3) == [])
            #expect(try await count("since", on: ground.shards[0], ground) == "1")
            #expect(try await reconcile(ground).outcome == "unchanged")
        }
    }

    @Test("a command that dies on the way is given again")
    func twice() async throws {
        try await withStandbys { ground, standby in
            try await cutOff(standby, ground)
            #expect(try await ground.begin(ground.plane()).run().state == .soaking)
            try await takeOver(standby, ground)
            try await die("recall.reserved") { _ = try await reconcile(ground) }
            #expect(try await ground.places().contains("sunrise s2 2 serving"))
            try await ground.expireLeases()
            #expect(try await reconcile(ground).recalls.map(\.clinic) == ["sunrise"])
            #expect(try await ground.wrongs(servedBy: "s1", epoch: 3) == [])
        }
    }

    @Test("a mover does not open what has lost rows since, and the former shard serves it again")
    func committed() async throws {
        try await withStandbys { ground, standby in
            try await die("move.mirrored") { _ = try await ground.begin(ground.plane()).run() }
            try await cutOff(standby, ground)
            try await write("late", on: ground.shards[0], ground)
            try await die("move.committed") { _ = try await ground.carryOn() }
            #expect(try await count("late", on: ground.shards[1], ground) == "1")
            try await takeOver(standby, ground)
            #expect(try await ground.door(2) == "incoming|1", "it expects the clinic")
            #expect(try await count("late", on: ground.shards[1], ground) == "0")
            let stopped = try await ground.carryOn()
            #expect(stopped.step == .committed && stopped.isForgotten)
            #expect(try await ground.door(2) == "incoming|1", "and nobody is let in")
            let told = await controlFailure {
                _ = try await MoveService(plane: ground.plane()).follow(
                    stopped.id, tell: { _, _ in })
            }
            #expect(told?.code == "arrival-forgotten")
            #expect(
                try await MoveStore(plane: ground.plane()).forsaken() == [],
                "agents let it be for a while")
            let preview = try await reconcile(ground, dryRun: true)
            #expect(preview.waiting.map(\.clinic) == ["sunrise"] && preview.recalls == [])
            let result = try await reconcile(ground)
            #expect(result.recalls.map(\.clinic) == ["sunrise"] && result.lost == [])
            #expect(result.waiting == [], "its move is not asked again")
            #expect(try await ground.wrongs(servedBy: "s1", epoch: 3) == [])
            #expect(try await count("late", on: ground.shards[0], ground) == "1")
        }
    }

    @Test(
        "what came is whole and its former rows are gone: it is opened as it came, and that is told"
    )
    func whole() async throws {
        try await withStandbys { ground, standby in
            try await die("move.committed") {
                _ = try await ground.begin(
                    ground.plane(), MoveOptions(pauseBudget: .seconds(5), soak: .zero)
                ).run()
            }
            try await cutOff(standby, ground, isKnown: false)
            #expect(try await ground.carryOn().state == .done)
            try await write("since", on: ground.shards[1], ground)
            try await takeOver(standby, ground)
            #expect(try await ground.door(2) == "incoming|1")
            let (services, server) = (ground.services, ground.shards[1].superuser)
            func door(_ state: String) -> String {
                "UPDATE hc_tenant SET state = '\(state)' WHERE tenant_id = '\(MoveGround.sunrise)'"
            }
            let absent = door("absent")
            try FaultPoint.arm("reconcile.doors-read=stop@1") { _ in
                do { try services.psql(server, absent) } catch { fatalError("\(error)") }
            }
            let changed = await controlFailure { _ = try await reconcile(ground) }
            FaultPoint.disarm()
            #expect(changed?.code == "door-changed")
            // Where nobody expects it nobody is let in.
            #expect(try await reconcile(ground, dryRun: true).lost.map(\.clinic) == ["sunrise"])
            try await ground.psql(server, door("incoming"))
            let preview = try await reconcile(ground, dryRun: true)
            #expect(preview.arrivals.map(\.clinic) == ["sunrise"])
            #expect(try await ground.door(2) == "incoming|1")
            // The server has again what the move had made and taken down.
            let made = try await ground.leftovers()
            for kind in ["subscription hc_move_", "publication hc_mirror_", "barrier "] {
                #expect(made.contains { $0.hasPrefix("s2 \(kind)") }, "\(made)")
            }
            #expect(preview.remains.map(\.clinic) == ["sunrise"])
            let result = try await reconcile(ground)
            #expect(result.remains.map(\.clinic) == ["sunrise"])
            #expect(try await ground.leftovers() == [])
            #expect(result.lost == [] && result.recalls == [])
            #expect(result.arrivals.map(\.clinic) == ["sunrise"])
            #expect(result.doors.map(\.to) == ["rw at epoch 2"])
            #expect(try await ground.door(2) == "rw|2")
            #expect(try await count("since", on: ground.shards[1], ground) == "0")
            #expect(try await count("P7", on: ground.shards[1], ground) == "1")
            #expect(try await reconcile(ground).outcome == "unchanged")
        }
    }

    @Test("what came is not whole and its former rows are gone: nobody is let in, and it is named")
    func lost() async throws {
        try await withStandbys { ground, standby in
            try await die("move.mirrored") {
                _ = try await ground.begin(
                    ground.plane(), MoveOptions(pauseBudget: .seconds(5), soak: .zero)
                ).run()
            }
            try await cutOff(standby, ground, isKnown: false)
            try await write("late", on: ground.shards[0], ground)
            #expect(try await ground.carryOn().state == .done)
            try await takeOver(standby, ground)
            let result = try await reconcile(ground)
            #expect(result.lost.map(\.clinic) == ["sunrise"])
            let reason = result.lost.first?.reason ?? ""
            #expect(reason.contains("its rows are gone from shard s1"), "\(reason)")
            #expect(reason.contains("restore shard s2 up to"), "\(reason)")
            #expect(result.arrivals == [] && result.recalls == [])
            #expect(try await ground.door(2) == "incoming|1")
        }
    }

    @Test("while nobody can ask the shard that has its rows, nothing is decided")
    func formerAway() async throws {
        try await withStandbys { ground, standby in
            try await die("move.committed") { _ = try await ground.begin(ground.plane()).run() }
            try await cutOff(standby, ground)
            #expect(try await ground.carryOn().state == .soaking)
            try await takeOver(standby, ground)
            try ground.lose(1)
            let waiting = try await reconcile(ground)
            #expect(waiting.lost.map(\.clinic) == ["sunrise"] && waiting.arrivals == [])
            #expect(try await ground.door(2) == "incoming|1")
            try ground.find(1)
            #expect(try await reconcile(ground).recalls.map(\.clinic) == ["sunrise"])
            #expect(try await ground.wrongs(servedBy: "s1", epoch: 3) == [])
        }
    }

    @Test("rows that were left behind stay while the other server has forgotten what came")
    func purge() async throws {
        try await withStandbys { ground, standby in
            try await cutOff(standby, ground, isKnown: false)
            try await die("move.closing.done") {
                _ = try await ground.begin(
                    ground.plane(), MoveOptions(pauseBudget: .seconds(5), soak: .zero)
                ).run()
            }
            try await takeOver(standby, ground)
            let stopped = try await ground.carryOn()
            #expect(stopped.step == .closing && stopped.isForgotten, "\(stopped.progress.text)")
            #expect(try await count("P7", on: ground.shards[0], ground) == "1")
            #expect(try await reconcile(ground).recalls.map(\.clinic) == ["sunrise"])
            #expect(try await ground.wrongs(servedBy: "s1", epoch: 3) == [])
        }
    }

    @Test("rows that were left behind stay until every standby that is heard of has what came")
    func standbyBehind() async throws {
        try await withStandbys { ground, _ in
            try await die("move.closing") {
                _ = try await ground.begin(
                    ground.plane(), MoveOptions(pauseBudget: .seconds(5), soak: .zero)
                ).run()
            }
            let store = MoveStore(plane: ground.plane())
            let place = try await store.find(named: "sunrise").progress["drainPosition"]?.asString
            func drained(at place: String) async throws {
                try await ground.psql(
                    ground.control.admin,
                    "UPDATE move SET progress = progress || '{\"drainPosition\": \"\(place)\"}'")
            }
            // As if it had not come that far.
            try await drained(at: "FFFF/0")
            let closing = Loop.shared.makeTask { try await ground.carryOn() }
            var reason = ""
            let limit = ground.deadline
            while !reason.contains("a standby of shard s2 to have what came") {
                guard !limit.isExpired(at: Loop.now) else { throw DeadlineExceeded() }
                reason =
                    try await store.find(named: "sunrise").progress["waitingFor"]?.asString ?? ""
                try await Loop.shared.lookAround()
            }
            #expect(try await count("P7", on: ground.shards[0], ground) == "1")
            try await drained(at: try #require(place))
            // It has read the move before: another process reads it anew.
            closing.cancel()
            _ = await closing.result
            #expect(try await ground.carryOn().state == .done)
            #expect(try await ground.wrongs(servedBy: "s2", epoch: 2) == [])
        }
    }

    @Test("rows that were left behind stay while a standby that may lack what came is away")
    func standbyAway() async throws {
        let services = try await offLoop { try LocalServices(shards: 2, servers: 2) }
        try await withMoveGround(own: services) { ground in
            // Of one that has everything up to now, and hears nothing any more; and of one that never came.
            try await ground.psql(
                ground.shards[1].superuser,
                """
                SELECT pg_create_physical_replication_slot('standby_away', true),
                    pg_create_physical_replication_slot('standby_never', false)
                """)
            let mover = try await ground.begin(
                ground.plane(), MoveOptions(pauseBudget: .seconds(5), soak: .zero))
            let running = Loop.shared.makeTask { try await mover.run() }
            let store = MoveStore(plane: ground.plane())
            let limit = ground.deadline
            var move = try await store.find(mover.id)
            var reason = ""
            while !reason.contains("slot standby_away"), !move.state.isOver {
                guard !limit.isExpired(at: Loop.now) else { throw DeadlineExceeded() }
                move = try await store.find(mover.id)
                reason = move.progress["waitingFor"]?.asString ?? ""
            }
            #expect(
                reason.hasPrefix("a standby of shard s2 to have what came: standby with the slot"),
                "\(reason)")
            #expect(try await count("P7", on: ground.shards[0], ground) == "1")
            // It is given up.
            try await ground.psql(
                ground.shards[1].superuser, "SELECT pg_drop_replication_slot('standby_away')")
            #expect(try await running.value.state == .done)
            #expect(try await ground.wrongs(servedBy: "s2", epoch: 2) == [])
        }
    }

    @Test(
        "a door that was changed by hand on the server that it came to is named, and nothing is taken back"
    )
    func byHand() async throws {
        try await withMoveGround { ground in
            try await ground.recordSchemas()
            #expect(try await ground.begin(ground.plane()).run().state == .soaking)
            for state in ["suspended", "absent", "incoming"] {
                try await ground.psql(
                    ground.shards[1].superuser,
                    "UPDATE hc_tenant SET state = '\(state)' WHERE tenant_id = '\(MoveGround.sunrise)'"
                )
            }
            let result = try await reconcile(ground)
            #expect(result.lost.map(\.clinic) == ["sunrise"])
            #expect(result.recalls == [] && result.arrivals == [])
            #expect(try await ground.places().contains("sunrise s2 2 serving"))
        }
    }

    @Test("where a timeline was left is read from its successor's history")
    func history() {
        let text = """
            1\t0/3000148\tno recovery target specified

            2\tA/F0000000\tbefore 2026-01-01

            """
        #expect(MoveArrival.place(of: 1, in: text) == LogPosition(0x3000148))
        #expect(MoveArrival.place(of: 2, in: text) == LogPosition(0xA_F000_0000))
        #expect(MoveArrival.place(of: 3, in: text) == nil)
        #expect(MoveArrival.place(of: 1, in: "1 x") == nil)
    }
}
