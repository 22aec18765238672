import CLinux
import Glibc
import HCCore
import HCTesting

/// Faults that take more than a signal: races, and what hands do behind the mover's back.
extension MoveFault {
    // MARK: Races

    static let races: [MoveFault] =
        [
            "move.subscribed", "move.copied.done", "move.verified", "move.gated", "move.fenced",
            "move.drained", "move.handed-over", "move.committed", "move.opened",
        ].map { point in
            MoveFault("abort races \(point)", .clinic, [.done, .aborted]) { ground, before in
                let mover = try ground.begin(before, fault: "\(point)=stop@1")
                try ground.expectStopped(mover, point)
                let abort = try ground.admin(["move", "abort", moved])
                try ground.strike(mover.processIdentifier, SIGCONT)
                try ground.waitEnded(mover)
                try ground.waitEnded(abort)
                // It says what came of it.
                let isUndone = try ground.move().state == "aborted"
                let status = try abort.wait()
                guard status == (isUndone ? 0 : 5) else {
                    throw FixtureError(
                        "'move abort' ended with \(status), and the move \(try ground.move().text)")
                }
            }
        } + [
            MoveFault("two movers begin at once", .mover) { ground, before in
                let movers = [try ground.begin(before), try ground.begin(before)]
                for mover in movers { try ground.waitEnded(mover) }
                let statuses = try movers.map { try $0.wait() }.sorted()
                guard statuses == [0, 5] else {
                    throw FixtureError("two movers at once ended with \(statuses)")
                }
            },
            MoveFault("three agents find a mover dead in the pause", .mover) { ground, before in
                let others = try [ground.startAgent(), ground.startAgent()].compactMap { $0 }
                try ground.expectKilled(
                    try ground.begin(before, fault: "move.fenced=kill@1"), "move.fenced")
                try ground.settle()
                for agent in others {
                    try ground.strike(agent.processIdentifier, SIGTERM)
                    try ground.waitEnded(agent)
                }
            },
            MoveFault("the reply of the commit is lost", .control) { ground, before in
                try loseReply(ground, before) { try $0.endWaiters() }
            },
            MoveFault("control dies between commit and reply", .control) { ground, before in
                try loseReply(ground, before) { ground in
                    try ground.sql(.control, "ALTER SYSTEM RESET synchronous_standby_names")
                    try ground.killServer(.control)()
                }
            },
        ]

    /// The abort is written down before the mover goes on: nothing is left to chance.
    static let aborts: [MoveFault] =
        ["move.subscribed", "move.verified", "move.gated", "move.drained", "move.handed-over"].map {
            point in
            MoveFault("an abort is asked for at \(point)", .mover, [.aborted]) { ground, before in
                let mover = try ground.begin(before, fault: "\(point)=stop@1")
                try ground.expectStopped(mover, point)
                let abort = try ground.admin(["move", "abort", moved])
                try ground.wait("the abort to be written down") {
                    try ground.sql(
                        .control,
                        "SELECT count(*) FROM move WHERE tenant_id = :tenant AND abort_requested AND state = 'running'"
                    ) == "0" ? nil : ()
                }
                try ground.strike(mover.processIdentifier, SIGCONT)
                try ground.waitEnded(mover)
                try ground.waitEnded(abort)
                guard try abort.wait() == 0 else {
                    throw FixtureError("'move abort' ended with \(try abort.wait())")
                }
            }
        } + [
            MoveFault("an abort comes after the commit point", .mover) { ground, before in
                let mover = try ground.begin(before, fault: "move.committed=stop@1")
                try ground.expectStopped(mover, "move.committed")
                let abort = try ground.admin(["move", "abort", moved])
                try ground.waitEnded(abort)
                guard try abort.wait() == 5 else {
                    throw FixtureError("'move abort' ended with \(try abort.wait())")
                }
                try ground.strike(mover.processIdentifier, SIGCONT)
                try ground.waitEnded(mover)
            }
        ]

    private static let moved = MoveFaultGround.moved

    /// The commit point is passed, on the disk of the control database, and its answer does not come: a commit waits for
    /// a standby that there is not, and what it waits on is then taken away.
    private static func loseReply(
        _ ground: MoveFaultGround, _ before: MoveFaultGround.Placement,
        _ loss: (MoveFaultGround) throws -> Void
    ) throws {
        let mover = try ground.begin(before, budget: "10s", fault: "move.handed-over=stop@1")
        try ground.expectStopped(mover, "move.handed-over")
        try ground.sql(
            .control,
            """
            ALTER SYSTEM SET synchronous_standby_names = 'nobody';
            SELECT pg_reload_conf();
            """)
        let probe = try ground.session("s1", role: "superuser")
        try probe.send("SELECT pg_logical_emit_message(true, 'probe', 'of the wait')")
        try ground.wait("a commit that waits") { try ground.waiters() > 0 ? () : nil }
        try ground.endWaiters()
        try ground.strike(mover.processIdentifier, SIGCONT)
        try ground.wait("the commit to wait") { try ground.waiters() > 0 ? () : nil }
        try loss(ground)
        try ground.sql(
            .control, "ALTER SYSTEM RESET synchronous_standby_names; SELECT pg_reload_conf();")
        try ground.waitEnded(mover)
    }

    // MARK: Hands

    static let hands: [MoveFault] =
        slots + disks + doors + [
            MoveFault("a column is added by hand during the copy", .clinic, [.aborted]) {
                ground, before in
                try ground.interfere(before, at: "move.subscribed") {
                    try ground.sql(
                        .shard(before.shard), "ALTER TABLE patient ADD COLUMN by_hand text",
                        role: "owner")
                }
                try ground.settle()
                try ground.sql(
                    .shard(before.shard), "ALTER TABLE patient DROP COLUMN by_hand", role: "owner")
            },
            MoveFault("a row of the copy is removed by hand", .clinic, [.aborted]) {
                ground, before in
                try ground.interfere(before, at: "move.mirrored") {
                    // The last one has no appointment yet.
                    try ground.sql(
                        .shard(before.other),
                        """
                        DELETE FROM patient WHERE tenant_id = :tenant AND id =
                            (SELECT id FROM patient WHERE tenant_id = :tenant ORDER BY created_at DESC LIMIT 1)
                        """)
                }
            },
            MoveFault("rows of the clinic are on the target already", .clinic) { ground, before in
                try ground.interfere(before, at: "move.slotted") {
                    try ground.sql(
                        .shard(before.other),
                        "INSERT INTO clinic (tenant_id, name) VALUES (:tenant, 'left over')")
                }
            },
        ]

    private static let slots: [MoveFault] =
        [
            ("move.copied", [End.aborted]), ("move.mirrored", [.aborted]),
            ("move.verified", [.aborted]), ("move.drained", [.done, .aborted]),
            ("move.opened", [.done]),
        ].map { point, ends in
            MoveFault("the slot is dropped \(point)", .clinic, Set(ends)) { ground, before in
                try ground.interfere(before, at: point) {
                    try ground.dropSlots(on: before.shard)
                }
            }
        } + [
            MoveFault("the slot of the way back is dropped", .clinic, [.done]) { ground, before in
                try ground.soak(before)
                try ground.dropSlots(on: before.other)
            },
            MoveFault("a way back without its slot", .clinic, [.done, .reverted]) {
                ground, before in
                try ground.soak(before)
                try ground.dropSlots(on: before.other)
                try ground.waitEnded(try ground.revert(fault: nil))
            },
            MoveFault("the log that the slot needs is removed", .clinic, [.aborted]) {
                ground, before in
                try ground.interfere(before, at: "move.verified") {
                    try ground.loseLog(of: before.shard, subscriber: before.other)
                }
                try ground.settle()
                try ground.sql(
                    .shard(before.shard),
                    "ALTER SYSTEM RESET max_slot_wal_keep_size; SELECT pg_reload_conf();")
            },
        ]

    /// A disk that is full is played by a trigger that fails as PostgreSQL does then (53100).
    private static let disks: [MoveFault] = ["move.slotted", "move.verified"].map { point in
        MoveFault("the target's disk is full \(point)", .clinic, [.aborted]) { ground, before in
            try ground.interfere(before, at: point) {
                try ground.sql(
                    .shard(before.other),
                    """
                    CREATE FUNCTION no_room() RETURNS trigger LANGUAGE plpgsql AS $$
                    BEGIN
                        RAISE EXCEPTION USING ERRCODE = 'disk_full', MESSAGE = 'no space left on device';
                    END $$;
                    CREATE TRIGGER no_room BEFORE INSERT ON patient
                        FOR EACH ROW WHEN (NEW.tenant_id = :tenant) EXECUTE FUNCTION no_room();
                    ALTER TABLE patient ENABLE ALWAYS TRIGGER no_room;
                    """)
                guard point == "move.verified" else { return }
                try ground.wait("the stream to meet it") {
                    try ground.sql(
                        .shard(before.other),
                        "SELECT count(*) FROM pg_subscription WHERE NOT subenabled") == "1"
                        ? () : nil
                }
            }
            try ground.settle()
            try ground.sql(.shard(before.other), "DROP FUNCTION no_room() CASCADE")
        }
    }

    private static let doors: [MoveFault] =
        [("suspended", "suspended"), ("deleting", "suspended"), ("readonly", "ro")].flatMap {
            state, door in
            ["move.subscribed", "move.verified", "move.handed-over", "move.committed"].map {
                point in
                MoveFault("the clinic becomes \(state) \(point)", .clinic) { ground, before in
                    let isInPause = point == "move.handed-over" || point == "move.committed"
                    try ground.interfere(before, at: point) {
                        // As a command would: the control database first, then the door, unless a move has it.
                        try ground.sql(
                            .control, "UPDATE tenant SET state = '\(state)' WHERE id = :tenant")
                        guard !isInPause else { return }
                        try ground.sql(
                            .shard(before.shard),
                            "UPDATE hc_tenant SET state = '\(door)' WHERE tenant_id = :tenant AND state = 'rw'"
                        )
                    }
                    try ground.settle()
                    let now = try ground.placement()
                    let row = try ground.sql(
                        .shard(now.shard), "SELECT state FROM hc_tenant WHERE tenant_id = :tenant")
                    guard row == door else {
                        throw FixtureError("a clinic that is \(state) is \(row) where it came")
                    }
                    try ground.sql(
                        .control, "UPDATE tenant SET state = 'active' WHERE id = :tenant")
                    try ground.sql(
                        .shard(now.shard),
                        "UPDATE hc_tenant SET state = 'rw' WHERE tenant_id = :tenant")
                }
            }
        } + [
            MoveFault("a REPEATABLE READ transaction from before the flip", .mover) {
                ground, before in
                let old = try ground.session(before.shard, role: "app")
                try old.run("BEGIN ISOLATION LEVEL REPEATABLE READ; SELECT 1;")
                let reader = try ground.session(before.shard, role: "app")
                try reader.run("BEGIN ISOLATION LEVEL REPEATABLE READ; SELECT 1;")
                let mover = try ground.begin(before)
                // What they see stays until they end.
                try ground.wait("the move to wait for them") {
                    try ground.move().reason.contains("under way when the clinic left") ? () : nil
                }
                let entered = try old.run(
                    ground.named("SELECT hc_enter(:tenant, \(before.epoch), 'w')"))
                guard ["40001", "HC001", "HC002"].contains(entered.state) else {
                    throw FixtureError(
                        "it entered after the flip: \(entered.state) \(entered.text)")
                }
                // What it may read is what it saw; it writes nothing.
                let read = try reader.run(
                    ground.named(
                        """
                        SELECT hc_enter(:tenant, \(before.epoch), 'r');
                        SELECT count(*) > 100 FROM patient;
                        """))
                guard read.state == "00000", read.lines.last == "t" else {
                    throw FixtureError("it does not read what it saw: \(read.state) \(read.text)")
                }
                let written = try reader.run(
                    ground.named(
                        "INSERT INTO practitioner (tenant_id, id, name) VALUES (:tenant, gen_random_uuid(), 'late')"
                    ))
                guard written.state != "00000" else {
                    throw FixtureError("a reader from before the flip wrote")
                }
                try old.run("ROLLBACK")
                try reader.run("ROLLBACK")
                try ground.waitEnded(mover)
            },
            MoveFault("a REPEATABLE READ writer stays inside", .mover) { ground, before in
                let mover = try ground.begin(before, fault: "move.verified=stop@1")
                try ground.expectStopped(mover, "move.verified")
                let writer = try ground.session(before.shard, role: "app")
                let inside = try writer.run(
                    ground.named(
                        """
                        BEGIN ISOLATION LEVEL REPEATABLE READ;
                        SELECT hc_enter(:tenant, \(before.epoch), 'w');
                        INSERT INTO practitioner (tenant_id, id, name) VALUES (:tenant, gen_random_uuid(), 'stays');
                        """))
                guard inside.state == "00000" else {
                    throw FixtureError("it could not write: \(inside.text)")
                }
                try ground.strike(mover.processIdentifier, SIGCONT)
                try ground.wait("the move to wait for the writer") {
                    try ground.move().reason.contains("transactions that write") ? () : nil
                }
                try writer.run("COMMIT")
                try ground.waitEnded(mover)
                try ground.settle()
                let rows = try ground.sql(
                    .shard(before.other),
                    "SELECT count(*) FROM practitioner WHERE tenant_id = :tenant AND name = 'stays'"
                )
                guard rows != "0" else { throw FixtureError("what it wrote is not at the target") }
            },
        ]
}

extension MoveFaultGround {
    /// Does something while the mover is stopped at the point, and lets it go on.
    func interfere(_ before: Placement, at point: String, _ body: () throws -> Void) throws {
        let mover = try begin(before, fault: "\(point)=stop@1")
        try expectStopped(mover, point)
        try body()
        try strike(mover.processIdentifier, SIGCONT)
        try waitEnded(mover)
    }

    /// Every slot of a move on a shard, though somebody reads it.
    func dropSlots(on shard: String) throws {
        try wait("the slots to be dropped") {
            try sql(
                .shard(shard),
                """
                SELECT pg_terminate_backend(active_pid) FROM pg_replication_slots
                WHERE slot_name LIKE 'hc_%' AND active;
                SELECT pg_drop_replication_slot(slot_name) FROM pg_replication_slots
                WHERE slot_name LIKE 'hc_%' AND NOT active;
                """)
            return try sql(
                .shard(shard),
                "SELECT count(*) FROM pg_replication_slots WHERE slot_name LIKE 'hc_%'"
            ) == "0" ? () : nil
        }
    }

    /// The publisher keeps too little of its log for a subscriber that does not come.
    func loseLog(of shard: String, subscriber: String) throws {
        let name = try sql(
            .shard(subscriber), "SELECT subname FROM pg_subscription WHERE subname LIKE 'hc_move%'")
        try sql(.shard(subscriber), "ALTER SUBSCRIPTION \(name) DISABLE")
        try sql(
            .shard(shard),
            "ALTER SYSTEM SET max_slot_wal_keep_size = '16MB'; SELECT pg_reload_conf();")
        try wait("the slot to lose its log") {
            try sql(
                .shard(shard),
                """
                SELECT pg_logical_emit_message(false, 'filler', repeat('x', 100000));
                SELECT pg_switch_wal();
                CHECKPOINT;
                """)
            return try sql(
                .shard(shard),
                "SELECT count(*) FROM pg_replication_slots WHERE slot_name = '\(name)' AND wal_status <> 'lost'"
            ) == "0" ? () : nil
        }
    }

    /// Commits on the control database's server that wait for a standby.
    func waiters() throws -> Int {
        Int(
            try sql(
                .control, "SELECT count(*) FROM pg_stat_activity WHERE wait_event = 'SyncRep'"))
            ?? 0
    }

    func endWaiters() throws {
        try sql(
            .control,
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE wait_event = 'SyncRep'")
    }
}
