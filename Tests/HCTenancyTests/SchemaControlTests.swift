import HCTesting
import Testing

/// What the control database promises to routers and operators.
@Suite("Schema of the control database")
struct SchemaControlTests {
    static let sunrise = "018f0000-0000-7000-8000-00000000000a"
    static let lakeside = "018f0000-0000-7000-8000-00000000000b"

    let services: LocalServices
    let control: ControlDatabase

    init() throws {
        services = try LocalServices.shared()
        control = try services.makeControlDatabase()
        try services.psql(
            control.admin,
            """
            INSERT INTO tier (name, definition) VALUES ('basic', '{"requestsPerSecond": 50}');
            INSERT INTO shard (id, dsn_ref, system_id, timeline, database_oid, database_name)
            VALUES ('s1', 's1', '1', 1, 1, 'hc_s1'), ('s2', 's2', '1', 1, 2, 'hc_s2');
            INSERT INTO tenant (id, slug, name, tier, state) VALUES
                ('\(Self.sunrise)', 'sunrise', 'Sunrise', 'basic', 'active'),
                ('\(Self.lakeside)', 'lakeside', 'Lakeside', 'basic', 'active');
            INSERT INTO placement (tenant_id, shard_id) VALUES ('\(Self.sunrise)', 's1'), ('\(Self.lakeside)', 's2');
            INSERT INTO domain (host, tenant_id, kind, verified_at) VALUES
                ('sunrise.localhost', '\(Self.sunrise)', 'platform', now()),
                ('lakeside.localhost', '\(Self.lakeside)', 'platform', now());
            """)
    }

    private func swap(_ tenant: String, _ epoch: Int, _ from: String, _ shard: String, _ to: String)
        -> String
    {
        "SELECT placement_swap('\(tenant)', \(epoch), '\(from)', '\(shard)', '\(to)');"
    }

    @Test("a placement changes by compare-and-swap, and the epoch with the shard only")
    func placementsSwap() throws {
        let admin = try services.session(control.admin)
        #expect(try admin.run(swap(Self.sunrise, 1, "opening", "s1", "serving")).lines == ["1"])
        #expect(
            try admin.run(swap(Self.sunrise, 1, "opening", "s1", "serving")).lines == [""],
            "the second loses")
        #expect(try admin.run(swap(Self.sunrise, 1, "serving", "s2", "serving")).lines == ["2"])
        #expect(try admin.run(swap(Self.sunrise, 1, "serving", "s2", "serving")).lines == [""])
        #expect(try admin.run("UPDATE placement SET epoch = 1").state == "23000")
        #expect(try admin.run("UPDATE placement SET epoch = epoch + 1").state == "23000")
        #expect(
            try admin.run("UPDATE placement SET shard_id = 's1' WHERE shard_id = 's2'").state
                == "23000")
        #expect(try admin.run(swap(Self.sunrise, 2, "serving", "s2", "opening")).state == "23000")
        #expect(try admin.run("DELETE FROM tenant WHERE slug = 'sunrise'").state == "23000")
        #expect(
            try admin.run("DELETE FROM tenant WHERE slug = 'lakeside'").state == "00000",
            "never opened")
    }

    @Test("of concurrent swaps one wins")
    func oneSwapWins() throws {
        let rivals = try (0..<6).map { _ in try services.session(control.admin) }
        for rival in rivals { try rival.send(swap(Self.sunrise, 1, "opening", "s2", "serving")) }
        let answers = try rivals.map { try $0.receive().lines }
        #expect(answers.filter { $0 == ["2"] }.count == 1)
        #expect(answers.filter { $0 == [""] }.count == 5)
    }

    @Test(
        "versions of the feed commit in their order, without gaps, and whoever rolls back leaves none"
    )
    func feedIsOrdered() throws {
        let watcher = try services.session(control.router)
        try watcher.run("LISTEN hc_placement")
        let first = try services.session(control.admin)
        let second = try services.session(control.admin)
        let start = Int(try watcher.run("SELECT version FROM placement_version").text) ?? -1
        // The first changes something earlier but commits later: it comes later in the feed.
        try first.run("BEGIN; UPDATE tenant SET name = 'One' WHERE slug = 'sunrise'")
        try second.run("BEGIN; UPDATE tenant SET name = 'Two' WHERE slug = 'lakeside'; COMMIT")
        try first.run("COMMIT")
        try first.run("BEGIN; UPDATE tier SET version = 2; SET CONSTRAINTS ALL IMMEDIATE; ROLLBACK")
        try second.run("UPDATE tier SET version = 3")
        try second.run("UPDATE tier SET version = 3")
        let feed = try watcher.run(
            "SELECT version - \(start), kind, tenant_id, subject FROM placement_log WHERE version > \(start) ORDER BY version"
        )
        #expect(
            feed.lines.filter { !$0.hasPrefix("Asynchronous") } == [
                "1|tenant|\(Self.lakeside)|", "2|tenant|\(Self.sunrise)|", "3|tier||basic",
            ])
        #expect(
            feed.lines.count { $0.hasPrefix("Asynchronous notification \"hc_placement\"") } == 3)
    }

    @Test(
        "every change of the directory is in the feed",
        arguments: [
            ("UPDATE shard SET weight = 0 WHERE id = 's1'", "shard||s1|||open"),
            (
                "INSERT INTO domain VALUES ('x.example.org', '018f0000-0000-7000-8000-00000000000a', 'custom', 'c')",
                "domain|018f0000-0000-7000-8000-00000000000a|||x.example.org|"
            ),
            (
                "DELETE FROM domain WHERE host = 'sunrise.localhost'",
                "domain|018f0000-0000-7000-8000-00000000000a|||sunrise.localhost|removed"
            ),
            (
                "INSERT INTO tenant_key VALUES ('018f0000-0000-7000-8000-00000000000a', 'kek', 1, 'm1', NULL, '\\x00')",
                "keys|018f0000-0000-7000-8000-00000000000a|||kek/1|active"
            ),
            (
                "UPDATE placement SET state = 'serving' WHERE shard_id = 's1'",
                "placement|018f0000-0000-7000-8000-00000000000a|s1|1||serving"
            ),
            (
                "UPDATE tenant SET state = 'suspended' WHERE slug = 'sunrise'",
                "tenant|018f0000-0000-7000-8000-00000000000a||||suspended"
            ),
            (
                "UPDATE tenant SET origins = '{https://portal.example}' WHERE slug = 'sunrise'",
                "tenant|018f0000-0000-7000-8000-00000000000a||||active"
            ),
        ])
    func feedIsComplete(change: String, line: String) throws {
        let answer = try services.psql(
            control.admin,
            """
            \(change);
            SELECT kind, tenant_id, shard_id, epoch, subject, state FROM placement_log ORDER BY version DESC LIMIT 1;
            """)
        #expect(answer == line + "\n")
    }

    @Test("a router reads everything about a clinic in one row, and nothing else")
    func routerReadsTheDirectory() throws {
        let router = try services.session(control.router)
        let entry = try router.run(
            "SELECT slug, tenant_state, shard_id, epoch, dsn_ref, tier_definition, hosts, keys, origins FROM directory_entry WHERE slug = 'sunrise'"
        )
        #expect(
            entry.lines == [
                #"sunrise|active|s1|1|s1|{"requestsPerSecond": 50}|["sunrise.localhost"]|[]|[]"#
            ])
        for table in ["tenant_key", "operator", "operator_audit", "move"] {
            #expect(try router.run("SELECT * FROM \(table)").state == "42501", "\(table)")
        }
        #expect(try router.run("UPDATE shard SET weight = 1").state == "42501")
        try services.psql(control.admin, "UPDATE tenant SET state = 'deleted';")
        #expect(try router.run("SELECT slug FROM directory_entry").lines == [])
    }

    @Test("origins are exact, few and never a wildcard")
    func origins() throws {
        let admin = try services.session(control.admin)
        for good in [
            "{}", "{https://a.example}", "{http://localhost:3000,https://b.example:8443}",
            "{https://1.2.3.4,\"http://[::1]:5173\"}",
        ] {
            #expect(
                try admin.run("UPDATE tenant SET origins = '\(good)'").state == "00000", "\(good)")
        }
        let many = (0..<33).map { "https://a\($0).example" }.joined(separator: ",")
        for bad in [
            "{*}", "{null}", "{NULL}", "{https://*.example}", "{https://a.example/}",
            "{HTTPS://a.example}", "{ftp://a}", "{\"https://a b\"}", "{{https://a},{https://b}}",
            "{\(many)}",
        ] {
            #expect(
                try admin.run("UPDATE tenant SET origins = '\(bad)'").state == "23514", "\(bad)")
        }
    }

    @Test("the feed and the operators' audit cannot be written by hand")
    func feedAndAuditAreClosed() throws {
        let admin = try services.session(control.admin)
        for change in [
            "INSERT INTO placement_log VALUES (999, 'tier')",
            "UPDATE placement_version SET version = 0",
            "DELETE FROM placement_log", "UPDATE operator_audit SET action = 'x'",
            "DELETE FROM operator_audit",
            "TRUNCATE operator_audit", "TRUNCATE tenant CASCADE",
            "UPDATE operator_audit_head SET seq = 0",
        ] {
            #expect(try admin.run(change).state == "42501", "\(change)")
        }
        let owner = try services.session(control.owner)
        for change in ["DELETE FROM operator_audit", "TRUNCATE operator_audit"] {
            #expect(try owner.run(change).state == "42501", "\(change)")
        }
    }

    @Test("operator actions form a chain that shows an edit, a deletion and a cut end")
    func operatorAuditIsChained() throws {
        let admin = try services.session(control.admin)
        for action in ["tenant.create", "tenant.suspend", "tenant.resume"] {
            try admin.run(
                """
                INSERT INTO operator_audit (seq, hash, operator_name, action, subject, outcome, detail)
                VALUES (77, '\\x00', 'root', '\(action)', 'sunrise', 'success', '{"reason": "tëst"}')
                """)
        }
        let broken = """
            SELECT coalesce(string_agg(seq::text, ',' ORDER BY seq), '-') FROM (
                SELECT seq, hash <> operator_audit_hash(line) OR previous_hash <> coalesce(
                    lag(hash) OVER (ORDER BY seq), decode(repeat('00', 32), 'hex')) AS broken
                FROM operator_audit AS line
                UNION ALL
                SELECT 0, (seq, hash) IS DISTINCT FROM (SELECT (seq, hash) FROM operator_audit ORDER BY seq DESC LIMIT 1)
                FROM operator_audit_head
            ) AS chain WHERE broken
            """
        #expect(try admin.run(broken).lines == ["-"])
        let vandal = try services.session(control.superuser)
        try vandal.run("ALTER TABLE operator_audit DISABLE TRIGGER operator_audit_append_only")
        for (change, seen) in [
            ("UPDATE operator_audit SET detail = '{}' WHERE seq = 2", "2"),
            ("DELETE FROM operator_audit WHERE seq = 2", "3"),
            ("DELETE FROM operator_audit WHERE seq = 3", "0"),
        ] {
            try vandal.run("BEGIN; \(change)")
            #expect(try vandal.run(broken).lines == [seen], "\(change)")
            try vandal.run("ROLLBACK")
        }
    }
}
