import HCCore
import HCTesting

/// Runs one case under load and finds what is wrong afterwards, in words.
struct MoveFaultVerdict {
    private let fault: MoveFault
    var wrongs: [String] = []
    private var end = "?"
    private var silence = Duration.zero

    /// For a clinic to be served again when the fault is over, and for writes that were waited for.
    private static let patience = 30

    init(_ fault: MoveFault) {
        self.fault = fault
    }

    var summary: String { "\(end), silent for \(silence.inMilliseconds) ms" }

    mutating func judge(_ ground: MoveFaultGround) throws {
        let before = try ground.placement()
        let ledger = try ground.startLedger()
        // Until every clinic is served, and the moved one is in full flow.
        for (slug, page) in try ledger.advance(by: 3, within: Self.patience) where !page.isServed {
            throw FixtureError("\(slug) is not served before anything happened")
        }
        do {
            try fault.story(ground, before)
            try ground.settle()
        } catch {
            wrongs.append("\(error)")
        }
        for (slug, page) in try ledger.advance(by: 5, within: Self.patience) where !page.isServed {
            wrongs.append(
                "\(slug) is not served \(Self.patience) s after the end: \(page.failureText)")
        }
        let pages = try ledger.stop()
        silence = pages[MoveFaultGround.moved]?.longestSilence ?? .zero
        let calm = fault.calm(before)
        for (slug, page) in pages.sorted(by: { $0.key < $1.key }) {
            wrongs += page.wrongs.map { "\(slug): \($0)" }
            if page.failures != 0, calm.contains(slug) {
                wrongs.append("\(slug) must not notice, and saw \(page.failureText)")
            }
        }
        try look(ground, before)
    }

    /// What the databases say.
    private mutating func look(
        _ ground: MoveFaultGround, _ before: MoveFaultGround.Placement
    ) throws {
        let move = try ground.move()
        end = move.state
        guard let found = MoveFault.End(rawValue: move.state), fault.ends.contains(found) else {
            wrongs.append("the move is \(move.text)")
            return
        }
        let (shard, epoch) =
            switch found {
            case .done: (before.other, before.epoch + 1)
            case .aborted: (before.shard, before.epoch)
            case .reverted: (before.shard, before.epoch + 2)
            }
        let now = try ground.placement()
        let wanted = MoveFaultGround.Placement(shard: shard, epoch: epoch, state: "serving")
        if now != wanted { wrongs.append("the clinic is at \(now), not at \(wanted)") }
        for id in ["s2", "s3"] {
            let door = try ground.sql(
                .shard(id), "SELECT state, epoch FROM hc_tenant WHERE tenant_id = :tenant")
            if id == shard {
                if door != "rw|\(epoch)" { wrongs.append("the door at \(id) is \(door)") }
            } else {
                let isShut = door.isEmpty || door.hasPrefix("moved|") || door.hasPrefix("absent|")
                if !isShut { wrongs.append("the door at \(id) is \(door) too") }
                let rows = try ground.sql(.shard(id), Self.rowsLeft)
                if rows != "0" { wrongs.append("\(rows) rows of the clinic are left at \(id)") }
            }
            let objects = try ground.sql(.shard(id), Self.objects)
            if !objects.isEmpty {
                wrongs.append("left at \(id): \(objects.replacing("\n", with: ", "))")
            }
            let other = try ground.sql(
                .shard(id),
                "SELECT count(*) FROM hc_tenant WHERE state = 'rw' AND tenant_id <> :tenant")
            // At s2 lives a clinic of the demo too.
            if other != (id == "s2" ? "2" : "1") {
                wrongs.append("\(other) other clinics are open at \(id)")
            }
        }
        let records = try ground.sql(
            .control,
            """
            SELECT 'cleanup record of ' || name FROM move_object WHERE dropped_at IS NULL
            UNION ALL SELECT 'move ' || id || ' ' || state FROM move
                WHERE state NOT IN ('done', 'aborted', 'reverted') OR lease_until IS NOT NULL
            """)
        if !records.isEmpty { wrongs.append("left: \(records.replacing("\n", with: ", "))") }
        let (status, output) = try ground.platform.admin(["doctor"])
        if status != 0 { wrongs.append("'hc-admin doctor' ended with \(status): \(output)") }
    }

    private static let rowsLeft = """
        SELECT coalesce(sum((xpath('/row/count/text()', query_to_xml(
            format('SELECT count(*) FROM public.%I WHERE tenant_id = %L', name, :tenant),
            false, true, '')))[1]::text::int8), 0)
        FROM hc_tenant_tables() AS name
        """

    private static let objects = """
        SELECT 'slot ' || slot_name FROM pg_replication_slots
        UNION ALL SELECT 'subscription ' || subname FROM pg_subscription
        UNION ALL SELECT 'publication ' || pubname FROM pg_publication
        UNION ALL SELECT 'barrier of ' || move_id FROM hc_barrier
        """
}
