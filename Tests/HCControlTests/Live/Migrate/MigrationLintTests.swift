import HCCore
import HCIO
import HCPostgres
import HCTenancy
import HCTesting
import Testing

@testable import HCControl

/// The repository's own migrations and one more, checked as `hc-admin migrate lint` does it.
@Suite("Migrations are checked before they run", .onLoop, .serialized)
@LoopActor
struct MigrationLintTests {
    /// A migration after those of the repository, and the rules that it breaks; none: it is safe.
    struct Form: Sendable, CustomTestStringConvertible {
        var sql: String
        var rules: Set<LintRule>
        var isTransactional = true
        var down: String?
        var testDescription: String { sql }

        init(_ sql: String, _ rules: LintRule...) {
            self.sql = sql
            self.rules = Set(rules)
        }

        init(outside sql: String, _ rules: LintRule...) {
            self.sql = sql
            self.rules = Set(rules)
            isTransactional = false
        }

        init(_ sql: String, down: String, _ rules: LintRule...) {
            self.sql = sql
            self.down = down
            self.rules = Set(rules)
        }

        var backfill: String?
        var contract: String?
        var verify: String?
        var servesFrom: Int?

        init(_ sql: String, servesFrom: Int, _ rules: LintRule...) {
            self.sql = sql
            self.servesFrom = servesFrom
            self.rules = Set(rules)
        }

        init(
            _ sql: String = "ALTER TABLE cache_tag ADD COLUMN total bigint",
            backfill: String? = nil,
            contract: String? = nil, verify: String? = nil, _ rules: LintRule...
        ) {
            self.sql = sql
            self.backfill = backfill
            self.contract = contract
            self.verify = verify
            self.rules = Set(rules)
        }

        var migration: Migration {
            var terms = MigrationTerms()
            terms.isTransactional = isTransactional
            terms.servesFrom = servesFrom
            return Migration(
                version: 0, name: "", checksum: "c", sql: sql, backfill: backfill,
                contract: contract, verify: verify, down: down, terms: terms)
        }
    }

    /// A clinic's table that keeps every rule; parts of it are replaced.
    private nonisolated static func table(
        columns: String = "tenant_id uuid NOT NULL, id uuid NOT NULL",
        key: String = "PRIMARY KEY (tenant_id, id)",
        security: String =
            "ALTER TABLE note ENABLE ROW LEVEL SECURITY; ALTER TABLE note FORCE ROW LEVEL SECURITY;",
        policy: String = """
        CREATE POLICY tenant ON note USING (tenant_id = (SELECT hc_ctx_tenant()))
            WITH CHECK (tenant_id = (SELECT hc_ctx_tenant()));
        """,
        grants: String = """
        GRANT SELECT, INSERT, UPDATE ON note TO hc_app;
        GRANT SELECT, INSERT, UPDATE, DELETE ON note TO hc_mover;
        """,
        more: String = ""
    ) -> String {
        "CREATE TABLE note (\(columns), \(key)); \(security) \(policy) \(grants) \(more)"
    }

    /// A function that programs call, made anew.
    private nonisolated static func inside(
        _ arguments: String, result: String = "SETOF integer", role: String
    ) -> String {
        """
        DROP FUNCTION hc_inside;
        CREATE FUNCTION hc_inside(\(arguments)) RETURNS \(result) LANGUAGE sql BEGIN ATOMIC SELECT 1; END;
        GRANT EXECUTE ON FUNCTION hc_inside TO \(role)
        """
    }

    private nonisolated static let forms: [Form] = [
        // What is done to tables that are there.
        Form(
            "ALTER TABLE patient ADD COLUMN a timestamptz DEFAULT clock_timestamp()",
            .volatileDefault),
        Form(
            "ALTER TABLE patient ADD COLUMN a int GENERATED ALWAYS AS (1) STORED", .volatileDefault),
        Form("ALTER TABLE patient ADD COLUMN a timestamptz NOT NULL DEFAULT now()"),
        Form("ALTER TABLE patient ADD COLUMN a text"),
        Form("ALTER TABLE patient ADD COLUMN a int NOT NULL", .columnWithoutDefault),
        Form(
            "ALTER TABLE patient ALTER COLUMN version TYPE text USING version::text", .typeRewrite),
        Form("DO $$ BEGIN ALTER TABLE patient ALTER version TYPE numeric; END $$", .typeRewrite),
        Form("ALTER TABLE session SET UNLOGGED", .rewrite),
        Form("ALTER TABLE hc_schema ALTER COLUMN name TYPE varchar"),
        Form("ALTER TABLE patient ALTER COLUMN version SET DEFAULT 2"),
        Form("TRUNCATE session", .truncate),
        Form("DO $$ BEGIN TRUNCATE session; END $$", .truncate),
        Form("CLUSTER session USING session_pkey", .truncate),
        Form("DELETE FROM session"),
        Form("CREATE INDEX patient_version ON patient (tenant_id, version)", .index),
        Form(
            outside:
                "CREATE INDEX CONCURRENTLY IF NOT EXISTS patient_version ON patient (tenant_id, version)"
        ),
        Form(
            outside: "CREATE INDEX CONCURRENTLY patient_version ON patient (tenant_id, version)",
            .repeatable),
        Form(outside: "CREATE INDEX CONCURRENTLY ON patient (tenant_id, version)", .repeatable),
        Form(
            "CREATE INDEX CONCURRENTLY IF NOT EXISTS patient_version ON patient (tenant_id, version)",
            .transaction),
        Form(outside: "DROP INDEX CONCURRENTLY IF EXISTS appointment_time"),
        Form(outside: "DROP INDEX CONCURRENTLY appointment_time", .repeatable),
        Form("REINDEX TABLE patient", .indexRebuild),
        Form(outside: "REINDEX TABLE CONCURRENTLY patient"),
        Form(outside: "VACUUM patient"),
        Form(outside: "ALTER TABLE patient ADD COLUMN a text", .transaction),
        Form(
            outside: "CREATE INDEX IF NOT EXISTS a ON patient (tenant_id, version)", .index,
            .transaction),
        Form(
            outside:
                "CREATE INDEX CONCURRENTLY IF NOT EXISTS a ON patient (tenant_id, version); SELECT 1",
            .transaction),
        Form(
            "ALTER TABLE patient ADD COLUMN a text", down: "ALTER TABLE patient DROP COLUMN a"),
        Form(
            "ALTER TABLE patient ADD COLUMN a text",
            down: "ALTER TABLE patient RENAME COLUMN a TO b", .wayBack),
        Form("ALTER TABLE patient ADD COLUMN a text", down: "DROP TABLE none", .wayBack),
        Form("SELECT 1", down: "COMMIT", .wayBack),
        Form("ALTER TABLE patient ADD CONSTRAINT a UNIQUE (tenant_id, version)", .index),
        Form(
            "ALTER TABLE practitioner ADD COLUMN a text; ALTER TABLE practitioner ALTER COLUMN a SET NOT NULL",
            .notNull),
        Form("ALTER TABLE patient ADD CONSTRAINT a CHECK (version > 0)", .check),
        Form("ALTER TABLE patient ADD CONSTRAINT a CHECK (version > 0) NOT VALID"),
        Form(
            """
            ALTER TABLE patient ADD CONSTRAINT a CHECK (version > 0) NOT VALID;
            ALTER TABLE patient VALIDATE CONSTRAINT a
            """, .validateAtOnce),
        Form(
            "ALTER TABLE session ADD FOREIGN KEY (tenant_id) REFERENCES clinic (tenant_id)",
            .foreignKey),
        Form(
            "ALTER TABLE session ADD FOREIGN KEY (tenant_id) REFERENCES clinic (tenant_id) NOT VALID"
        ),
        Form(
            "ALTER TABLE patient ADD COLUMN a text; ALTER TABLE account ADD COLUMN a text",
            .longLock),
        Form("ALTER TABLE patient ADD COLUMN a text; UPDATE patient SET a = ''", .longLock),
        Form("ALTER TABLE patient ADD COLUMN a text; ALTER TABLE patient ADD COLUMN b text"),
        Form("SELECT 1;\nSELECT nothing", .doesNotApply),
        Form("COMMIT", .doesNotApply),
        Form("CREATE FUNCTION f() RETURNS int LANGUAGE sql RETURN 1"),
        Form(
            "CREATE FUNCTION f() RETURNS int LANGUAGE sql RETURN 1; GRANT EXECUTE ON FUNCTION f() TO PUBLIC",
            .publicFunction),
        // What programs that serve read meanwhile.
        Form("ALTER TABLE patient DROP COLUMN version", .takesAway),
        Form("ALTER TABLE patient DROP COLUMN version", servesFrom: 5),
        Form("ALTER TABLE patient RENAME COLUMN version TO edition", .takesAway),
        Form("ALTER TABLE patient RENAME COLUMN version TO edition", servesFrom: 5),
        Form("DROP TABLE cache_tag CASCADE", .takesAway),
        Form("DROP TABLE cache_tag CASCADE", servesFrom: 5),
        Form("ALTER TABLE cache_tag RENAME TO cache_label", .takesAway),
        Form("CREATE SCHEMA old; ALTER TABLE cache_tag SET SCHEMA old", .takesAway),
        Form("DO $$ BEGIN ALTER TABLE patient DROP COLUMN version; END $$", .takesAway),
        Form(
            "ALTER TABLE patient DROP COLUMN version; ALTER TABLE patient ADD COLUMN version int",
            .takesAway),
        Form("ALTER TABLE patient ADD COLUMN a text; ALTER TABLE patient RENAME a TO b"),
        Form("ALTER TABLE patient ADD COLUMN a text; ALTER TABLE patient DROP COLUMN a"),
        Form(
            """
            ALTER TABLE patient RENAME COLUMN version TO edition;
            ALTER TABLE patient RENAME COLUMN edition TO version
            """),
        Form("DROP INDEX appointment_time"),
        Form("ALTER TABLE patient ALTER COLUMN version DROP DEFAULT"),
        Form("ALTER TABLE patient ALTER COLUMN version DROP NOT NULL"),
        Form(
            "ALTER TABLE cache_tag DROP COLUMN count",
            contract: "SELECT 1", .takesAway),
        // What they call.
        Form("DROP FUNCTION hc_inside", .takesAway),
        Form("DROP FUNCTION hc_inside", servesFrom: 5),
        Form("DO $$ BEGIN DROP FUNCTION hc_inside(uuid); END $$", .takesAway),
        Form("ALTER FUNCTION hc_inside RENAME TO hc_within", .takesAway),
        Form("ALTER FUNCTION hc_inside RENAME TO hc_within", servesFrom: 5),
        Form(
            """
            ALTER FUNCTION hc_inside RENAME TO hc_within;
            ALTER FUNCTION hc_within RENAME TO hc_inside
            """),
        Form("CREATE SCHEMA old; ALTER FUNCTION hc_inside SET SCHEMA old", .takesAway),
        Form(inside("tenant uuid", role: "hc_mover")),
        Form(inside("tenant uuid, more text DEFAULT ''", role: "hc_mover")),
        Form(inside("tenant uuid, more text", role: "hc_mover"), .takesAway),
        Form(inside("tenant uuid, more text", role: "hc_mover"), servesFrom: 5),
        Form(inside("tenant text", role: "hc_mover"), .takesAway),
        Form(inside("VARIADIC tenant uuid[]", role: "hc_mover"), .takesAway),
        Form(inside("clinic uuid", role: "hc_mover"), .takesAway),
        Form(inside("tenant uuid", result: "SETOF bigint", role: "hc_mover"), .takesAway),
        Form(inside("tenant uuid", result: "integer", role: "hc_mover"), .takesAway),
        Form(inside("tenant uuid", role: "hc_app"), .takesAway),
        Form("REVOKE EXECUTE ON FUNCTION hc_inside FROM hc_mover", .takesAway),
        Form(
            """
            CREATE OR REPLACE FUNCTION hc_inside(tenant uuid) RETURNS SETOF integer
                LANGUAGE sql BEGIN ATOMIC SELECT 1; END
            """),
        Form(
            """
            DROP FUNCTION hc_inside;
            CREATE PROCEDURE hc_inside(tenant uuid) LANGUAGE sql BEGIN ATOMIC SELECT 1; END;
            GRANT EXECUTE ON PROCEDURE hc_inside TO hc_mover
            """, .takesAway),
        Form(
            """
            CREATE FUNCTION f(a int) RETURNS int LANGUAGE sql RETURN 1;
            GRANT EXECUTE ON FUNCTION f TO hc_app;
            ALTER FUNCTION f RENAME TO g;
            DROP FUNCTION g
            """),
        Form(
            """
            CREATE FUNCTION hc_inside(tenant text) RETURNS SETOF integer
                LANGUAGE sql BEGIN ATOMIC SELECT 1; END
            """),
        // Nobody calls what only its owner may.
        Form("ALTER FUNCTION hc_tenant_guard RENAME TO hc_guard"),
        // Phases.
        Form(backfill: "SELECT 0::bigint, NULL::text WHERE $1::uuid <> $2::text::uuid OR $3 > 0"),
        Form(
            backfill: """
                WITH batch AS (
                    SELECT tag FROM cache_tag WHERE tenant_id = $1 AND ($2::text IS NULL OR tag > $2)
                    ORDER BY tag LIMIT $3
                ), filled AS (
                    UPDATE cache_tag SET total = count FROM batch
                    WHERE cache_tag.tenant_id = $1 AND cache_tag.tag = batch.tag
                )
                SELECT count(*), CASE WHEN count(*) = $3 THEN max(tag) END FROM batch
                """, contract: "ALTER TABLE cache_tag DROP COLUMN count"),
        Form(backfill: "UPDATE cache_tag SET total = count WHERE tenant_id = $1", .backfill),
        Form(
            backfill: "SELECT 1::bigint, 'again' WHERE $1::uuid IS NOT NULL AND $3 > 0", .backfill),
        Form(backfill: "SELECT nothing", .backfill),
        Form(contract: "ALTER TABLE cache_tag ADD CHECK (total > 0)", .check),
        Form(contract: "SELECT nothing", .doesNotApply),
        Form(verify: "SELECT relname FROM pg_class WHERE relname = 'no_such_table'"),
        Form(verify: "SELECT 'always'", .verify),
        Form(verify: "DELETE FROM session", .verify),
        // New tables.
        Form(table()),
        Form(
            table(columns: "id uuid NOT NULL", key: "PRIMARY KEY (id)", policy: "", grants: ""),
            .tenantColumn),
        Form(table(key: "PRIMARY KEY (id, tenant_id)"), .primaryKey),
        Form(table(key: "CHECK (true)"), .primaryKey, .replicaIdentity),
        Form(table(key: "PRIMARY KEY (id)"), .primaryKey, .replicaIdentity),
        Form(table(more: "ALTER TABLE note REPLICA IDENTITY NOTHING"), .replicaIdentity),
        Form(table(more: "ALTER TABLE note REPLICA IDENTITY FULL")),
        Form(table(security: ""), .rowSecurity),
        Form(table(security: "ALTER TABLE note ENABLE ROW LEVEL SECURITY;"), .rowSecurity),
        Form(table(policy: ""), .policy),
        Form(table(policy: "CREATE POLICY tenant ON note USING (true);"), .policy),
        Form(
            table(
                policy:
                    "CREATE POLICY tenant ON note USING (tenant_id = (SELECT hc_ctx_tenant())) WITH CHECK (true);"
            ), .policy),
        Form(table(more: "CREATE POLICY more ON note FOR SELECT USING (true)"), .policy),
        Form(table(more: "CREATE POLICY less ON note AS RESTRICTIVE USING (true)")),
        Form(table(grants: ""), .grants),
        Form(table(more: "GRANT TRUNCATE ON note TO hc_app"), .grants),
        Form(table(more: "GRANT SELECT ON note TO PUBLIC"), .grants),
        Form(table(more: "REVOKE UPDATE ON note FROM hc_mover"), .grants),
        Form(table(more: "CREATE INDEX note_id ON note (id)")),
        Form(table(more: "CREATE UNIQUE INDEX note_id ON note (id)"), .tenantUnique),
        Form(table(columns: "tenant_id uuid NOT NULL, id bigserial"), .sequence),
        Form(
            table(columns: "tenant_id uuid NOT NULL, id bigint GENERATED ALWAYS AS IDENTITY"),
            .sequence),
        Form(
            table(columns: "tenant_id uuid NOT NULL, id uuid, FOREIGN KEY (id) REFERENCES clinic"),
            .tenantForeignKey),
        Form(table(columns: "tenant_id uuid NOT NULL REFERENCES clinic, id uuid")),
        // What was right and is not any more.
        Form("ALTER TABLE patient NO FORCE ROW LEVEL SECURITY", .rowSecurity),
        Form("DROP POLICY tenant ON patient", .policy),
        Form("GRANT SELECT ON hc_load TO hc_app", .grants),
    ]

    @Test("the repository's migrations are safe")
    func ownMigrations() async throws {
        let findings = try await withLint { try await $0.run() }
        #expect(findings == [])
    }

    @Test("the migrations of the baseline are looked at as well when it is taken away")
    func baseline() async throws {
        try await withLint(baseline: .init(control: 0, shard: 0)) { lint in
            let findings = try await lint.run(.shard, server: "control")
            // The index was built when no shard had a row; the policy is the exception that the rules name.
            #expect(findings.map(\.rule) == [.index, .policy])
            #expect(Set(findings.map(\.file)) == ["shard/0002-outbox_backlog/up.sql"])
        }
    }

    @Test("each unsafe form is refused by its rule, and no safe one is", arguments: forms)
    func forms(form: Form) async throws {
        let findings = try await check([form.migration])
        #expect(Set(findings.map(\.rule)) == form.rules, "\(findings)")
    }

    @Test("what a migration before has prepared makes the next one safe")
    func prepared() async throws {
        let check = "ALTER TABLE practitioner ADD CONSTRAINT a CHECK (user_name IS NOT NULL)"
        let findings = try await self.check([
            "ALTER TABLE practitioner ADD COLUMN user_name text",
            "\(check) NOT VALID",
            "ALTER TABLE practitioner VALIDATE CONSTRAINT a",
            "ALTER TABLE practitioner ALTER COLUMN user_name SET NOT NULL",
            .outside(
                "CREATE UNIQUE INDEX CONCURRENTLY IF NOT EXISTS practitioner_user_name"
                    + " ON practitioner (tenant_id, user_name)"),
            "ALTER TABLE practitioner ADD UNIQUE USING INDEX practitioner_user_name",
        ])
        #expect(findings == [])
    }

    @Test("an index that is left invalid is refused")
    func invalidIndex() async throws {
        let findings = try await check([
            Migration(
                stringLiteral: Self.table(
                    key: "PRIMARY KEY (tenant_id, id)) PARTITION BY HASH (tenant_id", security: "")
                    + "; CREATE TABLE note_0 PARTITION OF note FOR VALUES WITH (MODULUS 1, REMAINDER 0)"
            ),
            "CREATE INDEX note_id ON ONLY note (id)",
        ])
        let last = try catalog([]).shard.count + 2
        #expect(
            findings.filter { $0.file.hasSuffix("lint\(last)/up.sql") }.map(\.rule)
                == [.index, .indexInvalid])
    }

    @Test("a finding names file and line, and every rule has a reason and a safe form")
    func places() async throws {
        let findings = try await check(["SELECT 1;\n\n-- why\nTRUNCATE session;\nSELECT 1"])
        let number = try catalog([]).shard.count + 1
        #expect(findings.map(\.line) == [4])
        // Four digits, leading zeros among them.
        let folder = "\(10_000 + number)".dropFirst() + "-lint\(number)"
        #expect(findings.map(\.file) == ["shard/\(folder)/up.sql"])
        #expect(findings.map(\.object) == ["session"])
        #expect(LintRule.allCases.allSatisfy { !$0.reason.isEmpty && !$0.safeForm.isEmpty })
    }

    @Test("what is taken away is named, with the line and what it is called now")
    func takenAway() async throws {
        let findings = try await check([
            """
            ALTER TABLE patient ADD COLUMN a text;
            ALTER TABLE patient RENAME COLUMN version TO edition;

            ALTER TABLE patient DROP COLUMN sealed
            """,
            "CREATE VIEW tag AS SELECT tag FROM cache_tag",
            "DROP VIEW tag; CREATE VIEW tag AS SELECT tag, count FROM cache_tag",
            "DROP VIEW tag",
        ])
        #expect(
            findings.filter { $0.rule == .takesAway }.map { "\($0.line) \($0.object)" }
                == ["2 patient.version, which is now edition", "4 patient.sealed", "1 tag"])
    }

    @Test("a function that is taken away is named, with what it is now or who cannot call it")
    func functionsTakenAway() async throws {
        let findings = try await check([
            """
            ALTER FUNCTION hc_inside RENAME TO hc_within;
            REVOKE EXECUTE ON FUNCTION hc_ctx_tenant FROM hc_app;
            DROP FUNCTION hc_purge;
            CREATE SCHEMA old;
            ALTER FUNCTION hc_tenant_tables SET SCHEMA old
            """,
            """
            DROP FUNCTION hc_within;
            CREATE FUNCTION hc_within(tenant text, more text DEFAULT '') RETURNS SETOF integer
                LANGUAGE sql BEGIN ATOMIC SELECT 1; END;
            GRANT EXECUTE ON FUNCTION hc_within TO hc_mover
            """,
        ])
        #expect(Set(findings.map(\.rule)) == [.takesAway])
        let old = "hc_within(tenant uuid) RETURNS SETOF integer"
        #expect(
            findings.map { "\($0.line) \($0.object)" } == [
                "1 hc_inside(tenant uuid) RETURNS SETOF integer, which is now \(old)",
                "2 hc_ctx_tenant() RETURNS uuid, for hc_app",
                "3 hc_purge(tenant uuid, batch integer) RETURNS bigint",
                "5 hc_tenant_tables() RETURNS SETOF text, which is now old.hc_tenant_tables() RETURNS SETOF text",
                "2 \(old), which is now hc_within(tenant text, more text DEFAULT ''::text) RETURNS SETOF integer",
            ])
    }

    @Test("which tables a step locks, and how, is told before it runs anywhere")
    func locks() async throws {
        let column: Migration = """
            SELECT 1;
            ALTER TABLE session ADD COLUMN a text;
            CREATE TABLE note (a text);
            ALTER TABLE session ADD FOREIGN KEY (tenant_id) REFERENCES clinic NOT VALID;
            UPDATE cache_tag SET count = 0
            """
        let catalog = try catalog([
            column, .outside("CREATE INDEX CONCURRENTLY IF NOT EXISTS a ON session (tenant_id)"),
            "DROP TABLE nowhere", "SELECT 1",
        ])
        let steps = catalog.shard.suffix(4).flatMap(\.steps)
        let locks = try await withLint(catalog) { try await $0.locks(of: steps, in: .shard) }
        #expect(
            locks == [
                steps[0].order: [
                    TableLock(table: "cache_tag", mode: .rowExclusive),
                    TableLock(table: "clinic", mode: .shareRowExclusive),
                    TableLock(table: "session", mode: .accessExclusive),
                ], steps[1].order: [],
            ])
        #expect(TableLock.Mode.accessExclusive.keepsOut == "everybody")
    }

    @Test("no scratch database is left, neither by a check nor by one that was killed")
    func nothingIsLeft() async throws {
        try await withLint { lint in
            let superuser = try await PostgresConnection.connect(
                PostgresConfiguration(
                    connectionString: try lint.plane.configuration.conninfo("control.superuser"),
                    applicationName: "lint-test"), deadline: lint.plane.deadline)
            defer { superuser.close() }
            let name = "hc_lint_0123456789abcdef"
            let other = "hc_lint_fedcba9876543210"
            for statement in [
                "CREATE DATABASE \(name)", "CREATE DATABASE \(other)",
                "COMMENT ON DATABASE \(name) IS 'hc-admin migrate lint: may be dropped at any time'",
            ] {
                try await superuser.executeScript(statement, deadline: lint.plane.deadline)
            }
            _ = try await lint.run(.control, server: "control")
            let left = try await superuser.execute(
                Query("SELECT datname::text FROM pg_database WHERE datname LIKE 'hc\\_lint\\_%'"),
                deadline: lint.plane.deadline)
            #expect(try left.rows.map { try $0.text(0) } == [other], "nobody's but its own")
            try await superuser.executeScript(
                "DROP DATABASE \(other)", deadline: lint.plane.deadline)
        }
    }

    @Test("without a server's connection files it says which one is missing")
    func noServer() async throws {
        try await withLint { lint in
            let error = await #expect(throws: ControlError.self) {
                try await lint.run(.control, server: "shards/none")
            }
            #expect(error?.code == "server-unreachable")
            #expect(error?.message.contains("shards/none.superuser.conninfo") == true)
        }
    }

    // MARK: Plumbing

    private func check(_ migrations: [Migration]) async throws -> [LintFinding] {
        try await withLint(catalog(migrations)) { try await $0.run(.shard, server: "control") }
    }

    private func catalog(_ further: [Migration]) throws -> MigrationCatalog {
        let own = try MigrationCatalog.load(directory: Repository.path("migrations"))
        let first = own.shard.count + 1
        return MigrationCatalog(
            control: own.control,
            shard: own.shard
                + further.enumerated().map { index, form in
                    Migration(
                        version: first + index, name: "lint\(first + index)", checksum: "c",
                        sql: form.sql, backfill: form.backfill, contract: form.contract,
                        verify: form.verify, down: form.down, terms: form.terms)
                })
    }

    private func withLint<Value: Sendable>(
        _ catalog: MigrationCatalog? = nil, baseline: MigrationLint.Baseline = .released,
        _ body: @LoopActor (MigrationLint) async throws -> Value
    ) async throws -> Value {
        let threads = BlockingPool()
        let secrets = try await threads.run(
            deadline: .after(.seconds(120), from: Loop.now)
        ) { try LocalServices.shared().secretsDirectory }
        let configuration = try PlatformConfiguration.load(
            Array(
                """
                {"stateDirectory":"\(secrets)","secretsDirectory":"\(secrets)",
                 "masterKeyFile":"\(secrets)/master.key","tokenKeyFile":"\(secrets)/token.key",
                 "redis":{"socket":"\(secrets)/redis"}}
                """.utf8), source: "test", sections: { _ in }
        ).platform
        let plane = ControlPlane(
            configuration: configuration, clocks: .system, operatorName: "lint",
            progress: { _ in })
        let lint = MigrationLint(
            plane: plane, catalog: try catalog ?? self.catalog([]), baseline: baseline)
        do {
            let value = try await body(lint)
            await plane.close()
            return value
        } catch {
            await plane.close()
            throw error
        }
    }
}

extension Migration: ExpressibleByStringLiteral, ExpressibleByStringInterpolation {
    public init(stringLiteral sql: String) {
        self.init(version: 0, name: "", checksum: "", sql: sql)
    }

    static func outside(_ sql: String) -> Migration {
        var terms = MigrationTerms()
        terms.isTransactional = false
        return Migration(version: 0, name: "", checksum: "", sql: sql, terms: terms)
    }
}
