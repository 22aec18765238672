import HCCore
import HCIO
import HCTenancy
import HCTesting
import Testing

@testable import HCControl

@Suite("A clinic that an operator moves by name, and others of its group", .serialized, .onLoop)
@LoopActor
struct MoveGroupTests {
    private func chain(areIgnored: Bool = false) throws -> MoveGroups {
        let text = #"{"clinics":{"sunrise":{"group":"chain"},"lakeside":{"group":"chain"}}}"#
        return MoveGroups(try RebalanceSettings(Array(text.utf8)), areIgnored: areIgnored)
    }

    /// What the last entry of the audit says that was met.
    private func audited(_ ground: MoveGround, _ action: String) async throws -> String {
        try await ground.psql(
            ground.control.admin,
            """
            SELECT coalesce(detail ->> 'together', '') FROM operator_audit
            WHERE action = '\(action)' ORDER BY seq DESC LIMIT 1
            """)
    }

    private func place(_ ground: MoveGround, _ tenant: TenantID, on shard: String) async throws {
        try await ground.psql(
            ground.control.admin,
            "UPDATE placement SET shard_id = '\(shard)', epoch = epoch + 1 WHERE tenant_id = '\(tenant)'"
        )
    }

    @Test("it is refused, or goes there if that is wanted, and the audit has who it met")
    func there() async throws {
        try await withMoveGround { ground in
            let plane = ground.plane()
            try await place(ground, MoveGround.lakeside, on: "s2")
            let (strict, ignoring) = (try chain(), try chain(areIgnored: true))
            let refusal = try #require(
                await controlFailure {
                    _ = try await MovePreflight(plane: plane).plan(
                        "sunrise", to: "s2", MoveOptions(), strict)
                })
            #expect(refusal.code == "move-refused" && refusal.kind == .refused)
            #expect(refusal.message.contains("shard s2 has clinics of its group"), "\(refusal)")
            #expect(refusal.message.contains("'lakeside'"), "\(refusal)")
            let options = MoveOptions(pauseBudget: .seconds(5))
            let plan = try await MovePreflight(plane: plane).plan(
                "sunrise", to: "s2", options, ignoring)
            #expect(plan.warnings.contains { $0.contains("'lakeside'") }, "\(plan.warnings)")
            let move = try await MoveService(plane: plane).begin(
                plan, reason: "test", tell: { _, _ in }
            ).run()
            #expect(move.state == .soaking && move.together == ["lakeside"])
            #expect(try await audited(ground, "tenant.move") == #"["lakeside"]"#)
            // Where it comes from nobody of its group is.
            let back = try await MoveService(plane: plane).revert(
                "sunrise", ignoring, reason: nil, tell: { _, _ in })
            #expect(back.together == [])
            #expect(try await back.run().state == .reverted)
            #expect(try await audited(ground, "tenant.move.revert") == "")
        }
    }

    @Test("who is on its way to the shard counts there already")
    func underWay() async throws {
        try await withMoveGround { ground in
            try FaultPoint.arm("move.mirrored=fail", perform: { _ in })
            let mover = try await ground.begin(ground.plane())
            await #expect(throws: FaultPointFailure.self) { try await mover.run() }
            FaultPoint.disarm()
            let strict = try chain()
            let refusal = await controlFailure {
                _ = try await MovePreflight(plane: ground.plane()).plan(
                    "lakeside", to: "s2", MoveOptions(), strict)
            }
            #expect(
                refusal?.message.contains("'sunrise'") == true, "\(String(describing: refusal))")
            #expect(try await ground.carryOn().state == .soaking)
        }
    }

    @Test("who comes to the shard after it was examined is found when the move is written down")
    func meanwhile() async throws {
        try await withMoveGround { ground in
            let plane = ground.plane()
            let plan = try await MovePreflight(plane: plane).plan(
                "sunrise", to: "s2", MoveOptions(), try chain())
            try await place(ground, MoveGround.lakeside, on: "s2")
            let refusal = await controlFailure {
                _ = try await MoveService(plane: plane).begin(plan, reason: nil, tell: { _, _ in })
            }
            #expect(refusal?.code == MoveStore.groupThere && refusal?.kind == .conflict)
            #expect(try await ground.psql(ground.control.admin, "SELECT count(*) FROM move") == "0")
        }
    }

    @Test("two of one group that are named together do not go to one shard")
    func batch() async throws {
        try await withMoveGround { ground in
            let plane = ground.plane()
            let (strict, ignoring) = (try chain(), try chain(areIgnored: true))
            let slugs = ["sunrise", "lakeside"]
            let refusal = await controlFailure {
                _ = try await MovePreflight(plane: plane).plans(
                    slugs, to: "s2", MoveOptions(), strict)
            }
            #expect(refusal?.message.contains("'lakeside' cannot be moved") == true)
            #expect(
                refusal?.message.contains("of its group") == true, "\(String(describing: refusal))")
            let plans = try await MovePreflight(plane: plane).plans(
                slugs, to: "s2", MoveOptions(), ignoring)
            #expect(
                plans.map { $0.warnings.filter { $0.contains("of its group") }.count } == [0, 1])
            // What one batch begins, the other groups of a batch find.
            let outcomes = await MoveBatch(
                plane: plane, options: MoveOptions(pauseBudget: .seconds(5), soak: .zero),
                groups: strict, reason: nil, tell: { _, _ in }
            ).run(slugs, to: "s2", size: 1)
            guard case .moved(let first) = outcomes[0].result,
                case .failed(let second) = outcomes[1].result
            else {
                Issue.record("\(outcomes)")
                return
            }
            #expect(first.state == .done)
            #expect("\(second)".contains("'sunrise'"), "\(second)")
        }
    }

    @Test("one that is brought back is not refused, and it is told who it meets")
    func back() async throws {
        try await withMoveGround { ground in
            let plane = ground.plane()
            #expect(try await ground.begin(plane).run().state == .soaking)
            let service = MoveService(plane: plane)
            let groups = try chain()
            let preview = try await service.previewRevert("sunrise", groups)
            #expect(preview.together == ["lakeside"])
            let mover = try await service.revert("sunrise", groups, reason: nil, tell: { _, _ in })
            #expect(mover.together == ["lakeside"])
            #expect(try await mover.run().state == .reverted)
            #expect(try await audited(ground, "tenant.move.revert") == #"["lakeside"]"#)
            let over = await controlFailure {
                _ = try await service.previewRevert("sunrise", groups)
            }
            #expect(over?.code == "move-not-soaking")
        }
    }

    @Test(
        "of one that is brought back and one that is sent there at once the second finds the first")
    func backAtOnce() async throws {
        try await withMoveGround { ground in
            let (services, admin) = (ground.services, ground.control.admin)
            let plane = ground.plane()
            #expect(try await ground.begin(plane).run().state == .soaking)
            let plan = try await MovePreflight(plane: plane).plan("lakeside", to: "s2")
            let sent = try await MoveService(plane: plane).begin(
                plan, reason: nil, tell: { _, _ in })
            let move = try await sent.run()
            _ = try await MoveService(plane: plane).finalize(
                "lakeside", reason: nil, tell: { _, _ in }
            ).run()
            #expect(move.state == .soaking)
            let groups = try chain()
            let toFormer = try await MovePreflight(plane: ground.plane()).plan(
                "lakeside", to: "s1", MoveOptions(), groups)
            // The way back has looked around and is not written down yet.
            let holder = try await offLoop {
                let session = try services.session(admin)
                try session.run(
                    "BEGIN; SELECT FROM move WHERE tenant_id = '\(MoveGround.sunrise)' FOR UPDATE")
                return session
            }
            let (first, second) = (ground.plane(), ground.plane())
            let turned = Loop.shared.makeTask {
                try await MoveService(plane: first).revert(
                    "sunrise", groups, reason: nil, tell: { _, _ in })
            }
            try await awaitWaiting(ground, 1)
            let refused = Loop.shared.makeTask {
                await controlFailure {
                    _ = try await MoveStore(plane: second).begin(
                        toFormer, owner: "lakeside", reason: nil)
                }
            }
            try await awaitWaiting(ground, 2)
            _ = try await offLoop { try holder.run("COMMIT") }
            let mover = try await turned.value
            #expect(mover.together == [])
            #expect(try await refused.value?.code == MoveStore.groupThere)
            #expect(try await mover.run().state == .reverted)
        }
    }

    /// Until so many sessions of the control database wait for a lock.
    private func awaitWaiting(_ ground: MoveGround, _ count: Int) async throws {
        let limit = ground.deadline
        while try await ground.psql(
            ground.control.superuser,
            """
            SELECT count(*) FROM pg_stat_activity
            WHERE datname = current_database() AND wait_event_type = 'Lock'
            """) != "\(count)"
        {
            guard !limit.isExpired(at: Loop.now) else { throw DeadlineExceeded() }
        }
    }
}
