import HCCore
import HCIO
import HCPostgres
import HCTenancy
import HCTesting
import Testing

@testable import HCControl

/// Two commands for one slug, of which one has lost its connection to the control database, and with it the lock that makes
/// them take turns.
@Suite("A clinic is made by two commands at once", .serialized, .onLoop)
@LoopActor
struct TenantCreationTests {
    private typealias Populate =
        @LoopActor (TenantContext, TenantProvisioner.Request, Sensitive<String>, Deadline)
        async throws -> Void

    private func create(
        _ ground: MoveGround, _ plane: ControlPlane? = nil,
        populate: @escaping Populate = { _, _, _, _ in }
    ) async throws -> TenantProvisioner.Outcome {
        // Its lock goes with its connection, as with a command's end.
        let plane = plane ?? ground.plane()
        let provisioner = TenantProvisioner(
            plane: plane, hooks: .init(populate: populate, smoke: { _, _, _ in nil }))
        do {
            let outcome = try await provisioner.create(
                TenantProvisioner.Request(
                    slug: try Slug("hillview"), name: "Hillview", tier: "basic", shard: "s1",
                    ownerEmail: "owner@example.org", timeZone: "UTC"))
            await plane.close()
            return outcome
        } catch {
            await plane.close()
            throw error
        }
    }

    private func inControl(_ ground: MoveGround) async throws -> String {
        try await ground.psql(
            ground.control.admin,
            """
            SELECT tenant.state || ' ' || placement.state || ' ' || (SELECT count(*) FROM tenant_key
                WHERE tenant_id = tenant.id AND state = 'active' AND purpose = 'kek')
            FROM tenant JOIN placement ON placement.tenant_id = tenant.id WHERE slug = 'hillview'
            """)
    }

    /// Beside the two clinics of the ground.
    private func onShard(_ ground: MoveGround) async throws -> String {
        try await ground.psql(
            ground.shards[0].superuser,
            """
            SELECT state FROM hc_tenant
            WHERE tenant_id NOT IN ('\(MoveGround.sunrise)', '\(MoveGround.lakeside)')
            """)
    }

    /// Where a fault point is reached for the first time.
    private func arm(_ point: String, _ ground: MoveGround, _ sql: String) throws {
        let (services, admin) = (ground.services, ground.control.admin)
        try FaultPoint.arm("\(point)=stop@1") { _ in
            do { try services.psql(admin, sql) } catch { fatalError("\(error)") }
        }
    }

    @Test("one that is opened just when another takes it for remains stays open")
    func openedMeanwhile() async throws {
        try await withMoveGround { ground in
            _ = try await create(ground)
            // As the command that makes it left it a moment before.
            try await ground.psql(
                ground.control.superuser,
                """
                SET session_replication_role = replica;
                UPDATE tenant SET state = 'provisioning' WHERE slug = 'hillview';
                UPDATE placement SET state = 'opening'
                WHERE tenant_id = (SELECT id FROM tenant WHERE slug = 'hillview');
                """)
            try arm(
                "provision.remains-found", ground,
                """
                SELECT placement_swap(id, 1, 'opening', 's1', 'serving') FROM tenant WHERE slug = 'hillview';
                UPDATE tenant SET state = 'active' WHERE slug = 'hillview';
                """)
            let second = await controlFailure { _ = try await create(ground) }
            FaultPoint.disarm()
            #expect(second?.code == "slug-taken", "\(String(describing: second))")
            #expect(try await inControl(ground) == "active serving 1")
            #expect(try await onShard(ground) == "rw")
        }
    }

    @Test("one that another takes away just before it is opened is not, and nothing of it is left")
    func takenAwayMeanwhile() async throws {
        try await withMoveGround { ground in
            try arm(
                "provision.after-populate", ground,
                """
                UPDATE tenant SET state = 'deleting' WHERE slug = 'hillview'
                """)
            let first = await controlFailure { _ = try await create(ground) }
            FaultPoint.disarm()
            #expect(first?.code == "placement-changed", "\(String(describing: first))")
            #expect(try await inControl(ground) == "")
            #expect(try await onShard(ground) == "")
            #expect(
                try await ground.psql(
                    ground.control.admin, "SELECT count(*) FROM tenant WHERE slug = 'hillview'")
                    == "0")
            _ = try await create(ground)
            #expect(try await inControl(ground) == "active serving 1")
        }
    }

    @Test("who goes on when his clinic was taken away removes what he has made on the shard since")
    func wentOn() async throws {
        try await withMoveGround { ground in
            try arm(
                "provision.after-shard", ground, "DELETE FROM tenant WHERE slug = 'hillview'")
            let first = await controlFailure { _ = try await create(ground) }
            FaultPoint.disarm()
            #expect(first != nil)
            #expect(try await inControl(ground) == "")
            #expect(try await onShard(ground) == "")
        }
    }

    @Test("who takes remains away and dies leaves remains that the next command takes away")
    func diedTaking() async throws {
        try await withMoveGround { ground in
            // Its undoing is broken off: nothing is cleaned up behind it.
            for points in [
                "provision.after-populate=fail,provision.taken-away=fail",
                "provision.taken-away=fail",
            ] {
                try FaultPoint.arm(points, perform: { _ in })
                await #expect(throws: (any Error).self) { _ = try await create(ground) }
                FaultPoint.disarm()
                #expect(try await inControl(ground) == "deleting opening 1")
            }
            _ = try await create(ground)
            #expect(try await inControl(ground) == "active serving 1")
            #expect(try await onShard(ground) == "rw")
        }
    }

    @Test(
        "the second makes it anew when the first has lost its lock, and the first takes nothing of that away"
    )
    func lostLock() async throws {
        try await withMoveGround { ground in
            let (isThere, mayGoOn) = (Waiter<Void>(), Waiter<Void>())
            let limit = ground.deadline
            let plane = ground.plane("first")
            let first = Loop.shared.makeTask {
                await controlFailure {
                    _ = try await create(ground, plane) { _, _, _, _ in
                        isThere.succeed(())
                        try await mayGoOn.wait(until: limit)
                    }
                }
            }
            try await isThere.wait(until: limit)
            let running = await controlFailure { _ = try await create(ground) }
            #expect(running?.code == "create-running")
            try await ground.psql(
                ground.control.superuser,
                """
                SELECT pg_terminate_backend(pid) FROM pg_locks
                WHERE locktype = 'advisory' AND classid = 2
                    AND database = (SELECT oid FROM pg_database WHERE datname = current_database())
                """)
            var second: TenantProvisioner.Outcome?
            while second == nil {
                do {
                    second = try await create(ground)
                } catch let error as ControlError where error.code == "create-running" {
                    guard !limit.isExpired(at: Loop.now) else { throw error }
                }
            }
            mayGoOn.succeed(())
            #expect(try await first.value != nil)
            #expect(try await inControl(ground) == "active serving 1")
            #expect(try await onShard(ground) == "rw")
            #expect(
                try await TenantRegistry(plane: ground.plane()).find("hillview").id
                    == second?.tenant.id)
        }
    }
}
