import HCCore
import HCIO
import HCPostgres
import HCTenancy
import HCTesting
import Testing

@testable import HCControl

@Suite("What is changed while a clinic is compared is known", .onLoop, .serialized)
@LoopActor
struct MoveWatchTests {
    /// A move of a clinic of more than `MoveVerification.smallRows` rows, before its pause, and its stream.
    private func withVerified(
        _ body: (MoveGround, ControlPlane, inout Move, MoveStream) async throws -> Void
    ) async throws {
        try await withMoveGround(patients: 6000) { ground in
            try FaultPoint.arm("move.verified=fail", perform: { _ in })
            let mover = try await ground.begin(
                ground.plane(), MoveOptions(pauseBudget: .seconds(5), soak: .zero))
            await #expect(throws: FaultPointFailure.self) { try await mover.run() }
            FaultPoint.disarm()
            try await ground.expireLeases()
            let plane = ground.plane()
            let (store, registry) = (MoveStore(plane: plane), ShardRegistry(plane: plane))
            let id = try await store.find(named: "sunrise").id
            var move = try #require(try await store.claim(id, owner: "one process"))
            let stream = MoveStream(
                plane: plane, store: store, move: move,
                name: MoveStream.name(move, isMirror: false),
                publisher: try await registry.find("s1"),
                subscriber: try await registry.find("s2"))
            try await body(ground, plane, &move, stream)
        }
    }

    private func change(
        _ number: Int, _ ground: MoveGround, on shard: Int = 0, before: String = ""
    ) async throws {
        let (services, database) = (ground.services, ground.shards[shard].superuser)
        _ = try await offLoop {
            try services.psql(
                database,
                """
                \(before)
                UPDATE practitioner SET name = name || '!'
                WHERE tenant_id = '\(MoveGround.sunrise.uuid)' AND id = (
                    SELECT id FROM practitioner WHERE tenant_id = '\(MoveGround.sunrise.uuid)'
                    ORDER BY id OFFSET \(number) LIMIT 1)
                """)
        }
    }

    /// Looked at between two answers of the origin.
    private func until(_ ground: MoveGround, _ isSo: () -> Bool) async throws {
        let limit = ground.deadline
        while !isSo() {
            guard !limit.isExpired(at: Loop.now) else { throw DeadlineExceeded() }
            try await ground.psql(ground.shards[0].superuser, "SELECT 1")
        }
    }

    /// Closes the door and compares what may differ.
    private func pause(
        _ verification: MoveVerification, _ move: inout Move, _ stream: MoveStream,
        _ plane: ControlPlane, _ deadline: Deadline
    ) async throws -> JSONValue {
        move.attempt = try await stream.store.advance(move, to: .gating)
        move.step = .gating
        let fence = MoveFence(
            plane: plane, move: move, origin: stream.publisher, destination: stream.subscriber)
        #expect(try await fence.gate(deadline: deadline))
        guard case .fenced(let barrier) = try await fence.fence(deadline: deadline) else {
            throw FixtureError("nobody is inside, and the fence was not made")
        }
        let look = try await verification.look(
            at: stream.publisher, behind: barrier.number, of: move.tenant, plane: plane,
            deadline: deadline)
        #expect(try await fence.drain(barrier, deadline: deadline) != nil)
        return try await verification.finish(
            look, at: stream.subscriber, of: move.tenant, plane: plane, deadline: deadline)
    }

    @Test("a row that was changed after it was compared is compared again in the pause")
    func changedLater() async throws {
        try await withVerified { ground, plane, move, stream in
            let verification = try await MoveVerification.run(
                over: stream, isWatched: true, plane: plane, progress: { _, _ in })
            #expect(verification.chunksInPause == [])
            try await change(100, ground)
            try await change(4000, ground)
            let part = try await pause(verification, &move, stream, plane, ground.deadline)
            #expect(part["rowsInPause"]?.asInteger == 2)
            #expect(part["chunksInPause"]?.asInteger == 0)
            await verification.stop()
            #expect(try await ground.carryOn().state == .done)
        }
    }

    @Test("one that the destination has otherwise ends the move")
    func changedOtherwise() async throws {
        try await withVerified { ground, plane, move, stream in
            let verification = try await MoveVerification.run(
                over: stream, isWatched: true, plane: plane, progress: { _, _ in })
            try await change(100, ground)
            try await stream.awaitConfirmed(
                try await TenantDigest(
                    of: move.tenant, on: plane.shard(reference: "s1", .mover)
                ).read(
                    TenantDigestPlan(tables: [], rowsPerChunk: 1), keys: [TenantRowKey](),
                    deadline: ground.deadline
                ).position)
            // As a stream that has lost a part of it would.
            try await change(
                100, ground, on: 1, before: "SET session_replication_role = replica;")
            let failure = await #expect(throws: Mover.Fatal.self) {
                _ = try await pause(verification, &move, stream, plane, ground.deadline)
            }
            #expect(
                failure?.reason.contains("row practitioner") == true, "\(failure?.reason ?? "")")
            await verification.stop()
        }
    }

    @Test("rows that were found equal since are not left to the pause")
    func settled() async throws {
        try await withVerified { ground, plane, move, stream in
            let verification = try await MoveVerification.run(
                over: stream, isWatched: true, plane: plane, progress: { _, _ in })
            let (services, database) = (ground.services, ground.shards[0].superuser)
            _ = try await offLoop {
                try services.psql(
                    database,
                    """
                    UPDATE practitioner SET name = name || '!'
                    WHERE tenant_id = '\(MoveGround.sunrise.uuid)' AND id IN (
                        SELECT id FROM practitioner WHERE tenant_id = '\(MoveGround.sunrise.uuid)'
                        ORDER BY id LIMIT 500)
                    """)
            }
            try await until(ground) { verification.changedRows == 500 }
            try await verification.settle(over: stream, plane: plane)
            #expect(verification.changedRows == 0)
            try await change(700, ground)
            let part = try await pause(verification, &move, stream, plane, ground.deadline)
            #expect(part["rowsInPause"]?.asInteger == 1)
            await verification.stop()
        }
    }

    @Test("what is changed while a large clinic is still being compared is not left to the end")
    func settledMeanwhile() async throws {
        try await withVerified { ground, plane, move, stream in
            let (services, database) = (ground.services, ground.shards[1].superuser)
            // The comparison waits at the destination for as long as this stands.
            let lock = try await offLoop {
                let session = try services.session(database)
                try session.run("BEGIN; LOCK TABLE practitioner IN ACCESS EXCLUSIVE MODE")
                return session
            }
            let comparison = Loop.shared.makeTask {
                try await MoveVerification.run(
                    over: stream, isWatched: true, plane: plane, many: 100, progress: { _, _ in })
            }
            try await ground.untilTrue(
                ground.shards[0],
                "SELECT EXISTS (SELECT FROM pg_replication_slots WHERE slot_name ~ '^hc_watch_' AND active)"
            )
            let place = try await ground.psql(
                ground.shards[0].superuser,
                """
                UPDATE practitioner SET name = name || '!' WHERE tenant_id = '\(MoveGround.sunrise.uuid)';
                SELECT pg_current_wal_insert_lsn();
                """)
            try await ground.untilTrue(
                ground.shards[0],
                "SELECT confirmed_flush_lsn >= '\(place)' FROM pg_replication_slots WHERE slot_name ~ '^hc_watch_'"
            )
            _ = try await offLoop { try lock.run("ROLLBACK") }
            let verification = try await comparison.value
            #expect(verification.changedRows <= 10)
            await verification.stop()
        }
    }

    @Test("a row is settled only by a snapshot that shows the last transaction that changed it")
    func settledBySnapshot() async throws {
        try await withVerified { ground, plane, move, stream in
            let plan = try await TenantDigest.plan(
                of: move.tenant, source: plane.shard(reference: "s1", .mover),
                target: plane.shard(reference: "s2", .mover), deadline: ground.deadline)
            let watch = try await MoveWatch.open(on: stream, plan: plan, plane: plane)
            try await change(7, ground)
            try await until(ground) { !watch.changes.isEmpty }
            let key = try #require(watch.changes.keys.first)
            let transaction = try #require(watch.changes[key]?.transaction)
            for text in [
                "\(transaction):\(transaction + 5):\(transaction)",
                "\(transaction - 1):\(transaction):",
            ] {
                watch.settle([key], seenBy: try #require(TransactionSnapshot(text: text)))
                #expect(watch.changes[key] != nil, "by \(text)")
            }
            watch.settle(
                [key],
                seenBy: try #require(
                    TransactionSnapshot(text: "\(transaction + 1):\(transaction + 1):")))
            #expect(watch.changes.isEmpty)
            await watch.stop()
            let left = try await plane.shard(reference: "s1", .superuser).execute(
                Query("SELECT slot_name FROM pg_replication_slots WHERE slot_name ~ '^hc_watch_'"),
                deadline: ground.deadline
            ).rows.count
            #expect(left == 0)
        }
    }

    @Test("of a row that is changed again and again the last change is remembered, and no other")
    func hotRow() async throws {
        try await withVerified { ground, plane, move, stream in
            let plan = try await TenantDigest.plan(
                of: move.tenant, source: plane.shard(reference: "s1", .mover),
                target: plane.shard(reference: "s2", .mover), deadline: ground.deadline)
            let watch = try await MoveWatch.open(on: stream, plan: plan, plane: plane)
            try await change(7, ground)
            try await until(ground) { !watch.changes.isEmpty }
            let key = try #require(watch.changes.keys.first)
            let first = try #require(watch.changes[key]?.transaction)
            for _ in 0..<3 { try await change(7, ground) }
            let own = try await ground.psql(
                ground.shards[0].superuser,
                """
                UPDATE practitioner SET name = name || '!'
                WHERE tenant_id = '\(MoveGround.sunrise)' AND id = '\(key.values[0])'
                RETURNING pg_current_xact_id()
                """)
            let last = try #require(UInt64(own).map { UInt32(truncatingIfNeeded: $0) })
            try await until(ground) { watch.changes[key]?.transaction == last }
            #expect(watch.changes.count == 1)
            // One that shows all but the last.
            watch.settle(
                [key],
                seenBy: try #require(TransactionSnapshot(text: "\(last):\(last + 1):\(last)")))
            #expect(watch.changes[key] != nil)
            // None shows the last and not the first (`MoveWatch.Change`): of the first nothing is kept.
            watch.settle(
                [key],
                seenBy: try #require(
                    TransactionSnapshot(text: "\(first):\(last + 1):\(first)")))
            #expect(watch.changes.isEmpty)
            await watch.stop()
        }
    }

    @Test("a barrier is waited for though one of a clock that was ahead was heard of before")
    func barriers() async throws {
        try await withVerified { ground, plane, move, stream in
            let plan = try await TenantDigest.plan(
                of: move.tenant, source: plane.shard(reference: "s1", .mover),
                target: plane.shard(reference: "s2", .mover), deadline: ground.deadline)
            let watch = try await MoveWatch.open(on: stream, plan: plan, plane: plane)
            try await ground.psql(
                ground.shards[0].superuser,
                """
                INSERT INTO hc_barrier (tenant_id, move_id, seq)
                VALUES ('\(MoveGround.sunrise)', '\(move.id.uuid)', 2000)
                """)
            try await watch.awaitBarrier(2000, deadline: ground.deadline)
            await #expect(throws: DeadlineExceeded.self) {
                try await watch.awaitBarrier(
                    1000, deadline: .after(.milliseconds(20), from: Loop.now))
            }
            await watch.stop()
        }
    }

    @Test("one that more was changed than it can remember says so, and one that was cut off")
    func lost() async throws {
        try await withVerified { ground, plane, move, stream in
            let plan = try await TenantDigest.plan(
                of: move.tenant, source: plane.shard(reference: "s1", .mover),
                target: plane.shard(reference: "s2", .mover), deadline: ground.deadline)
            let full = try await MoveWatch.open(
                on: stream, plan: plan, plane: plane, changesMax: 2)
            let cut = try await MoveWatch.open(on: stream, plan: plan, plane: plane)
            for number in 0..<3 { try await change(number, ground) }
            try await until(ground) { !full.isWhole }
            #expect(throws: ControlError.self) { try full.requireWhole() }
            // As a mover does that ends what its predecessors have left.
            try await MoveWatch.dismiss(of: move, on: stream.publisher, plane: plane)
            try await until(ground) { !cut.isWhole }
            await #expect(throws: ControlError.self) {
                try await cut.awaitBarrier(1, deadline: ground.deadline)
            }
            await full.stop()
            await cut.stop()
        }
    }

    @Test("a move whose watch is cut off before the pause compares anew and goes on")
    func cutOff() async throws {
        try await withMoveGround(patients: 6000) { ground in
            let load = try await MoveLoad.start(ground)
            let (services, database) = (ground.services, ground.shards[0].superuser)
            let cut = Loop.shared.makeTask {
                var count = 0
                while count == 0, !Task.isCancelled {
                    let answer = try await offLoop {
                        try services.psql(
                            database,
                            """
                            SELECT count(pg_terminate_backend(active_pid)) FROM pg_replication_slots
                            WHERE slot_name ~ '^hc_watch_'
                            """)
                    }
                    count = Int(answer.split(separator: "\n").first ?? "") ?? 0
                }
                return count
            }
            let move = try await ground.begin(
                ground.plane(), MoveOptions(pauseBudget: .seconds(5), soak: .zero)
            ).run()
            cut.cancel()
            #expect(try await cut.value == 1)
            try await load.stop()
            #expect(move.state == .done, "\(move.progress.text)")
            #expect(load.failures == [])
            #expect(try await load.lost(on: ground.shards[1], ground) == 0)
            #expect(try await ground.wrongs(servedBy: "s2", epoch: 2) == [])
        }
    }
}

@Suite("Which transactions a snapshot shows")
struct TransactionSnapshotTests {
    @Test(
        "by its text",
        arguments: [
            ("10:20:10,14", [9, 11, 13, 19], [10, 14, 20, 21]),
            ("10:10:", [9, 8], [10, 11]),
            // The epoch is left out; ids come round.
            (
                "4294967290:4294967300:4294967295", [4_294_967_289, 4_294_967_296, 0, 3],
                [4_294_967_295, 4, 5]
            ),
            ("8589934602:8589934603:8589934602", [9], [10, 11]),
        ] as [(String, [UInt64], [UInt64])])
    func shows(text: String, shown: [UInt64], hidden: [UInt64]) throws {
        let snapshot = try #require(TransactionSnapshot(text: text))
        for id in shown { #expect(snapshot.shows(UInt32(truncatingIfNeeded: id)), "\(id)") }
        for id in hidden { #expect(!snapshot.shows(UInt32(truncatingIfNeeded: id)), "\(id)") }
    }

    @Test("what is none", arguments: ["", "1:2", "a:2:", "1:2:x", "1:2:3:4"])
    func none(text: String) { #expect(TransactionSnapshot(text: text) == nil) }
}
