import HCCore
import HCIO
import HCPostgres
import HCTenancy
import HCTesting
import Testing

@testable import HCControl

@Suite("A server that took over is made a shard", .serialized, .onLoop)
@LoopActor
struct ShardReconciliationTests {
    private func reconcile(
        _ ground: MoveGround, isNewSystem: Bool = false, dryRun: Bool = false
    ) async throws -> ShardReconciliation.Result {
        try await ShardReconciliation("s1", plane: ground.plane()).run(
            isNewSystem: isNewSystem, reason: "test", dryRun: dryRun)
    }

    private func door(_ ground: MoveGround, _ tenant: TenantID) async throws -> String {
        try await ground.psql(
            ground.shards[0].superuser,
            "SELECT state, epoch FROM hc_tenant WHERE tenant_id = '\(tenant)'")
    }

    /// By a router that has the newest map.
    private func practitioners(_ ground: MoveGround, _ tenant: TenantID) async throws -> Int {
        let context = try await ground.plane().context(tenant: tenant)
        return try await context.read(
            [Query("SELECT count(*) FROM practitioner WHERE tenant_id = $1", [.id(tenant)])],
            deadline: .after(.seconds(5), from: Loop.now))[0].single().int(0)
    }

    @Test(
        "a standby that lacks the last fence serves nobody before, and not the clinic that moved after"
    )
    func failover() async throws {
        let services = try await offLoop {
            try LocalServices(shards: 2, servers: 2, replicas: true)
        }
        try await withMoveGround(own: services) { ground in
            try await ground.recordSchemas()
            let replica = try services.replica(of: ground.shards[0], role: "superuser")
            let position = try await ground.psql(
                ground.shards[0].superuser, "SELECT pg_current_wal_insert_lsn()")
            while try await ground.psql(
                replica, "SELECT pg_last_wal_replay_lsn() >= '\(position)'") != "t"
            {}
            // From here on it hears nothing.
            try await ground.psql(replica, "ALTER SYSTEM SET primary_conninfo = ''")
            try await ground.psql(replica, "SELECT pg_reload_conf()")
            while try await ground.psql(replica, "SELECT count(*) FROM pg_stat_wal_receiver") != "0"
            {}
            #expect(try await ground.begin(ground.plane()).run().state == .soaking)
            try await ground.psql(replica, "SELECT pg_promote()")
            try ground.lead(1, to: replica)
            #expect(try await door(ground, MoveGround.sunrise) == "rw|1", "it lacks the fence")
            await #expect(throws: TenancyError.self) {
                try await practitioners(ground, MoveGround.lakeside)
            }
            let refused = await controlFailure {
                _ = try await MovePreflight(plane: ground.plane()).plan("lakeside", to: "s2")
            }
            #expect(refused?.message.contains("timeline 2") == true)

            let preview = try await reconcile(ground, dryRun: true)
            #expect(preview.outcome == "would-reconcile")
            #expect(
                preview.doors == [
                    .init(clinic: "sunrise", from: "rw at epoch 1", to: "moved to s2 at epoch 2")
                ])
            #expect(try await door(ground, MoveGround.sunrise) == "rw|1")

            let result = try await reconcile(ground)
            #expect(result.outcome == "reconciled" && result.lost == [])
            #expect(result.waysBack.map(\.clinic) == ["sunrise"])
            #expect(try await ground.leftovers().filter { !$0.contains(" barrier ") } == [])
            #expect(try await door(ground, MoveGround.sunrise) == "moved|2")
            #expect(
                try await ground.psql(
                    ground.control.admin, "SELECT timeline FROM shard WHERE id = 's1'") == "2")
            #expect(
                try await ground.psql(
                    ground.control.admin,
                    "SELECT detail ->> 'doors' FROM operator_audit WHERE action = 'shard.reconcile'"
                )
                    == "1")
            #expect(try await practitioners(ground, MoveGround.lakeside) == 300)
            #expect(try await practitioners(ground, MoveGround.sunrise) == 300)
            // A router that has not heard of the move.
            await #expect(throws: FixtureError.self) {
                try await ground.psql(
                    ground.shards[0].app, "SELECT hc_enter('\(MoveGround.sunrise)', 1, 'w')")
            }
            let revert = await controlFailure {
                _ = try await MoveService(plane: ground.plane()).revert(
                    "sunrise", reason: nil, tell: { _, _ in })
            }
            #expect(revert?.code == "way-back-lost")
            #expect(try await reconcile(ground).outcome == "unchanged")
            let over = try await MoveService(plane: ground.plane()).finalize(
                "sunrise", reason: nil, tell: { _, _ in }
            ).run()
            #expect(over.state == .done, "\(over.progress.text)")
            #expect(try await ground.wrongs(servedBy: "s2", epoch: 2) == [])
        }
    }

    @Test("while a move is before its commit point it is refused; when that is aborted it is not")
    func unsettled() async throws {
        try await withMoveGround { ground in
            try await ground.recordSchemas()
            try FaultPoint.arm("move.fenced=fail", perform: { _ in })
            let mover = try await ground.begin(ground.plane())
            await #expect(throws: FaultPointFailure.self) { try await mover.run() }
            FaultPoint.disarm()
            try await ground.psql(
                ground.control.admin, "UPDATE shard SET system_id = '1' WHERE id = 's1'")
            let refusal = await controlFailure {
                _ = try await reconcile(ground, isNewSystem: true)
            }
            #expect(refusal?.code == "moves-unsettled")
            #expect(refusal?.message.contains("hc-admin move abort sunrise") == true)
            #expect(try await door(ground, MoveGround.sunrise) == "fenced|1")
            try await ground.psql(ground.control.admin, "UPDATE move SET state = 'aborting'")
            let aborting = await controlFailure {
                _ = try await reconcile(ground, isNewSystem: true)
            }
            #expect(aborting?.code == "moves-unsettled")
            try await ground.psql(ground.control.admin, "UPDATE move SET state = 'running'")
            try await ground.expireLeases()
            let aborted = try await MoveService(plane: ground.plane()).abort(
                "sunrise", reason: nil, tell: { _, _ in })
            #expect(aborted.state == .aborted)
            #expect(try await reconcile(ground, isNewSystem: true).outcome == "reconciled")
            #expect(try await ground.wrongs(servedBy: "s1", epoch: 1) == [])
        }
    }

    @Test("a door that a move has closed since it was looked at stays closed")
    func closedMeanwhile() async throws {
        try await withMoveGround { ground in
            try await ground.recordSchemas()
            let (services, origin) = (ground.services, ground.shards[0].superuser)
            try await ground.psql(
                origin,
                "UPDATE hc_tenant SET state = 'ro' WHERE tenant_id = '\(MoveGround.sunrise)'")
            try FaultPoint.arm("reconcile.doors-read=stop@1") { _ in
                do {
                    try services.psql(
                        origin,
                        """
                        UPDATE hc_tenant SET state = 'draining', attempt = attempt + 1
                        WHERE tenant_id = '\(MoveGround.sunrise)'
                        """)
                } catch {
                    fatalError("\(error)")
                }
            }
            let refusal = await controlFailure { _ = try await reconcile(ground) }
            FaultPoint.disarm()
            #expect(refusal?.code == "door-changed")
            #expect(try await door(ground, MoveGround.sunrise) == "draining|1")
        }
    }

    @Test("a move that was begun since the moves were looked at is not broken into")
    func begunMeanwhile() async throws {
        try await withMoveGround { ground in
            try await ground.recordSchemas()
            let (services, admin) = (ground.services, ground.control.admin)
            try FaultPoint.arm("move.handed-over=fail", perform: { _ in })
            let mover = try await ground.begin(ground.plane())
            await #expect(throws: FaultPointFailure.self) { try await mover.run() }
            try await ground.psql(admin, "UPDATE move SET state = 'done'")
            try FaultPoint.arm("reconcile.moves-settled=stop@1") { _ in
                do {
                    try services.psql(admin, "UPDATE move SET state = 'running'")
                } catch {
                    fatalError("\(error)")
                }
            }
            let refusal = await controlFailure { _ = try await reconcile(ground) }
            FaultPoint.disarm()
            #expect(refusal?.code == "moves-unsettled")
            #expect(try await door(ground, MoveGround.sunrise) == "handover|1")
            #expect(try await ground.carryOn().state == .soaking)
            #expect(try await ground.wrongs(servedBy: "s2", epoch: 2, soaks: true) == [])
        }
    }

    @Test("a move that has passed its commit point is carried on first")
    func pastCommit() async throws {
        try await withMoveGround { ground in
            try await ground.recordSchemas()
            try FaultPoint.arm("move.committed.done=fail", perform: { _ in })
            let mover = try await ground.begin(ground.plane())
            await #expect(throws: FaultPointFailure.self) { try await mover.run() }
            FaultPoint.disarm()
            try await ground.expireLeases()
            // What a standby has that was promoted and is behind.
            try await ground.psql(
                ground.shards[0].superuser,
                "UPDATE hc_tenant SET state = 'rw' WHERE tenant_id = '\(MoveGround.sunrise)'")
            try await ground.psql(
                ground.control.admin, "UPDATE shard SET system_id = '1' WHERE id = 's1'")
            let result = try await reconcile(ground, isNewSystem: true)
            #expect(result.outcome == "reconciled" && result.doors == [])
            #expect(try await ground.wrongs(servedBy: "s2", epoch: 2) == [])
        }
    }

    @Test(
        "a move that goes on elsewhere waits for the shard that is away, and holds up nobody here")
    func otherAway() async throws {
        try await withMoveGround { ground in
            try await ground.recordSchemas()
            try FaultPoint.arm("move.committed.done=fail", perform: { _ in })
            let mover = try await ground.begin(ground.plane())
            await #expect(throws: FaultPointFailure.self) { try await mover.run() }
            FaultPoint.disarm()
            try await ground.expireLeases()
            try await ground.psql(
                ground.control.admin, "UPDATE shard SET system_id = '1' WHERE id = 's1'")
            try ground.lose(2)
            let result = try await reconcile(ground, isNewSystem: true)
            #expect(result.outcome == "reconciled" && result.lost == [])
            #expect(result.waiting.map(\.clinic) == ["sunrise"])
            #expect(result.waiting.first?.reason.contains("shard s2 is away") == true)
            #expect(result.waysBack.map(\.clinic) == ["sunrise"])
            #expect(try await door(ground, MoveGround.sunrise) == "moved|2")
            #expect(try await practitioners(ground, MoveGround.lakeside) == 300)
            try ground.find(2)
            let move = try await ground.carryOn()
            #expect(move.state == .done, "it has no way back: \(move.progress.text)")
            #expect(try await ground.wrongs(servedBy: "s2", epoch: 2) == [])
        }
    }

    @Test("what is kept for a way back goes as far as its shards are there; lost is it once")
    func wayBackOfAnotherAway() async throws {
        try await withMoveGround { ground in
            try await ground.recordSchemas()
            #expect(try await ground.begin(ground.plane()).run().state == .soaking)
            func takeOver() async throws {
                try await ground.psql(
                    ground.control.admin, "UPDATE shard SET system_id = '1' WHERE id = 's1'")
            }
            try await takeOver()
            try ground.lose(2)
            let result = try await reconcile(ground, isNewSystem: true)
            #expect(result.outcome == "reconciled")
            #expect(result.waysBack.map(\.clinic) == ["sunrise"])
            try await takeOver()
            let again = try await reconcile(ground, isNewSystem: true)
            #expect(again.outcome == "reconciled" && again.waysBack == [])
            try ground.find(2)
            let over = try await MoveService(plane: ground.plane()).finalize(
                "sunrise", reason: nil, tell: { _, _ in }
            ).run()
            #expect(over.state == .done, "\(over.progress.text)")
            #expect(try await ground.wrongs(servedBy: "s2", epoch: 2) == [])
        }
    }

    @Test("a move that takes its clinic back has no way back to lose")
    func noWayBack() async throws {
        try await withMoveGround { ground in
            try await ground.recordSchemas()
            #expect(try await ground.begin(ground.plane()).run().state == .soaking)
            let back = try await MoveService(plane: ground.plane()).revert(
                "sunrise", reason: nil, tell: { _, _ in })
            try FaultPoint.arm("move.committed.done=fail", perform: { _ in })
            await #expect(throws: FaultPointFailure.self) { try await back.run() }
            FaultPoint.disarm()
            try await ground.expireLeases()
            try await ground.psql(
                ground.control.admin, "UPDATE shard SET system_id = '1' WHERE id = 's1'")
            try ground.lose(2)
            let result = try await reconcile(ground, isNewSystem: true)
            #expect(result.outcome == "reconciled" && result.waysBack == [])
            #expect(result.waiting.map(\.clinic) == ["sunrise"])
            try ground.find(2)
            #expect(try await ground.carryOn().state == .reverted)
            #expect(try await ground.wrongs(servedBy: "s1", epoch: 3) == [])
        }
    }

    @Test("a door that was looked at does not let its clinic go for whoever has it since")
    func leavesMeanwhile() async throws {
        try await withMoveGround { ground in
            try await ground.recordSchemas()
            let (services, origin) = (ground.services, ground.shards[0].superuser)
            try await ground.psql(
                ground.control.admin,
                "UPDATE placement SET shard_id = 's2', epoch = 2 WHERE tenant_id = '\(MoveGround.sunrise)'"
            )
            for state in ["draining", "fenced", "handover"] {
                try await ground.psql(
                    origin,
                    "UPDATE hc_tenant SET state = '\(state)' WHERE tenant_id = '\(MoveGround.sunrise)'"
                )
            }
            try FaultPoint.arm("reconcile.doors-read=stop@1") { _ in
                do {
                    try services.psql(
                        origin,
                        """
                        UPDATE hc_tenant SET attempt = attempt + 1
                        WHERE tenant_id = '\(MoveGround.sunrise)'
                        """)
                } catch {
                    fatalError("\(error)")
                }
            }
            let refusal = await controlFailure { _ = try await reconcile(ground) }
            FaultPoint.disarm()
            #expect(refusal?.code == "door-changed")
            #expect(try await door(ground, MoveGround.sunrise) == "handover|1")
            #expect(try await reconcile(ground).doors.map(\.to) == ["moved to s2 at epoch 2"])
        }
    }

    @Test("the identity is not written over another's, nor while a move has been begun")
    func registeredMeanwhile() async throws {
        try await withMoveGround { ground in
            try await ground.recordSchemas()
            let (services, admin) = (ground.services, ground.control.admin)
            try FaultPoint.arm("move.copied=fail", perform: { _ in })
            let mover = try await ground.begin(ground.plane())
            await #expect(throws: FaultPointFailure.self) { try await mover.run() }
            try await ground.psql(
                admin,
                """
                UPDATE move SET state = 'done';
                UPDATE shard SET system_id = '1' WHERE id = 's1'
                """)
            for (change, system) in [
                ("UPDATE move SET state = 'running'", "1"),
                ("UPDATE move SET state = 'aborting'", "1"),
                ("UPDATE shard SET system_id = '2' WHERE id = 's1'", "2"),
            ] {
                try FaultPoint.arm("reconcile.doors-set=stop@1") { _ in
                    do { try services.psql(admin, change) } catch { fatalError("\(error)") }
                }
                let refusal = await controlFailure {
                    _ = try await reconcile(ground, isNewSystem: true)
                }
                FaultPoint.disarm()
                #expect(refusal?.code == "shard-changed", "\(change)")
                let facts = try await ground.psql(
                    admin,
                    """
                    SELECT system_id,
                        (SELECT count(*) FROM operator_audit WHERE action = 'shard.reconcile')
                    FROM shard WHERE id = 's1'
                    """)
                #expect(facts == "\(system)|0", "\(change)")
                try await ground.psql(admin, "UPDATE move SET state = 'done'")
            }
        }
    }

    @Test("one that does not go on is left when the time is over, and can be carried on later")
    func stuck() async throws {
        try await withMoveGround { ground in
            try await ground.recordSchemas()
            try FaultPoint.arm("move.committed.done=fail", perform: { _ in })
            let mover = try await ground.begin(ground.plane())
            await #expect(throws: FaultPointFailure.self) { try await mover.run() }
            FaultPoint.disarm()
            try await ground.expireLeases()
            // Its server answers, and the clinic's door there is locked.
            let (services, target) = (ground.services, ground.shards[1].superuser)
            let lock = try await offLoop {
                let session = try services.session(target)
                try session.run("BEGIN; LOCK TABLE hc_tenant IN ACCESS EXCLUSIVE MODE")
                return session
            }
            let result = try await ShardReconciliation(
                "s1", plane: ground.plane(), patience: .milliseconds(300)
            ).run(isNewSystem: false, reason: nil, dryRun: false)
            #expect(result.waiting.map(\.clinic) == ["sunrise"])
            #expect(result.doors.map(\.to) == ["moved to s2 at epoch 2"])
            _ = try await offLoop { try lock.run("ROLLBACK") }
            #expect(try await ground.carryOn().state == .soaking)
            #expect(try await ground.wrongs(servedBy: "s2", epoch: 2, soaks: true) == [])
        }
    }

    @Test("doors are made to follow the map, and what the server lacks is named and not served")
    func doors() async throws {
        try await withMoveGround { ground in
            try await ground.recordSchemas()
            try await ground.addClinics(4)
            try await ground.psql(
                ground.control.admin,
                """
                UPDATE shard SET system_id = '1' WHERE id = 's1';
                UPDATE tenant SET state = 'suspended' WHERE slug = 'small-1';
                UPDATE placement SET shard_id = 's2', epoch = 2
                    WHERE tenant_id = (SELECT id FROM tenant WHERE slug = 'small-4');
                """)
            try await ground.psql(
                ground.shards[0].superuser,
                """
                UPDATE hc_tenant SET state = 'draining' WHERE tenant_id = '\(MoveGround.sunrise)';
                UPDATE hc_tenant SET state = 'fenced' WHERE tenant_id = '\(MoveGround.sunrise)';
                INSERT INTO hc_tenant VALUES
                    ('018f0000-0000-7000-a000-000000000001', 1, 'rw'),
                    ('018f0000-0000-7000-a000-000000000002', 1, 'incoming');
                UPDATE hc_tenant SET state = 'suspended' WHERE tenant_id::text LIKE '%9000%2';
                UPDATE hc_tenant SET state = 'absent' WHERE tenant_id::text LIKE '%9000%2';
                """)
            let result = try await reconcile(ground, isNewSystem: true)
            #expect(
                result.doors.map { "\($0.clinic): \($0.from), \($0.to)" } == [
                    "018f0000-0000-7000-a000-000000000001: rw at epoch 1, absent",
                    "018f0000-0000-7000-a000-000000000002: incoming at epoch 1, absent",
                    "small-1: rw at epoch 1, suspended",
                    "small-4: rw at epoch 1, moved to s2 at epoch 2",
                    "sunrise: fenced at epoch 1, rw",
                ])
            #expect(result.lost.map(\.clinic) == ["small-2"])
            #expect(
                try await ground.psql(
                    ground.shards[0].superuser,
                    "SELECT string_agg(state, ' ' ORDER BY tenant_id) FROM hc_tenant")
                    == "rw rw suspended absent rw moved absent absent")
            let again = try await reconcile(ground)
            #expect(again.outcome == "unchanged" && again.lost == result.lost)
        }
    }

    @Test("a server that cannot be the shard's successor is refused, and nothing is changed")
    func refusals() async throws {
        try await withMoveGround { ground in
            let control = ground.control.admin
            let behind = await controlFailure { _ = try await reconcile(ground) }
            #expect(behind?.code == "schema-behind")
            try await ground.recordSchemas()
            #expect(try await reconcile(ground).outcome == "unchanged")
            try await ground.psql(control, "UPDATE shard SET schema_fingerprint = 'another'")
            let otherSchema = await controlFailure { _ = try await reconcile(ground) }
            #expect(otherSchema?.code == "schema-behind")
            try await ground.recordSchemas()
            try await ground.psql(control, "UPDATE shard SET state = 'closed' WHERE id = 's1'")
            #expect(
                await controlFailure { _ = try await reconcile(ground) }?.code == "shard-retired")
            try await ground.psql(control, "UPDATE shard SET state = 'open' WHERE id = 's1'")
            try await ground.psql(control, "UPDATE shard SET timeline = 9 WHERE id = 's1'")
            let older = await controlFailure { _ = try await reconcile(ground, isNewSystem: true) }
            #expect(older?.code == "identity-older")
            try await ground.psql(
                control, "UPDATE shard SET timeline = 1, system_id = '1' WHERE id = 's1'")
            #expect(
                await controlFailure { _ = try await reconcile(ground) }?.code == "other-system")
            try await ground.psql(
                ground.shards[0].superuser,
                "UPDATE hc_tenant SET epoch = 8 WHERE tenant_id = '\(MoveGround.sunrise)'")
            let map = await controlFailure { _ = try await reconcile(ground, isNewSystem: true) }
            #expect(map?.code == "map-behind" && map?.message.contains("sunrise") == true)
            try await ground.psql(
                control,
                """
                UPDATE shard SET dsn_ref = 'elsewhere' WHERE id = 's2';
                UPDATE shard SET dsn_ref = 's2' WHERE id = 's1';
                """)
            let other = await controlFailure { _ = try await reconcile(ground, isNewSystem: true) }
            #expect(other?.code == "shard-exists")
            let unknown = await controlFailure {
                _ = try await ShardReconciliation("s9", plane: ground.plane()).run(
                    isNewSystem: false, reason: nil, dryRun: true)
            }
            #expect(unknown?.kind == .notFound)
            #expect(
                try await ground.psql(control, "SELECT system_id FROM shard WHERE id = 's1'") == "1"
            )
        }
    }
}
