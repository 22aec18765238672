import HCCore
import HCIO
import HCPostgres
import HCTenancy
import HCTesting
import Testing

@testable import HCControl

/// A table with a column of each kind, an enum of its own among them, and one whose key is of types that print as
/// settings say; 12 rows of each clinic in both, and 5 of `clinic` tables that are there anyway.
private let sample = """
    CREATE TYPE mood AS ENUM ('calm', 'alarmed');
    CREATE TABLE sample (
        tenant_id uuid, id bigint, note text, at timestamptz, day date, span interval, raw bytea,
        doc jsonb, busy tstzrange, amount numeric, ratio double precision, mood mood, tags text[],
        twice numeric GENERATED ALWAYS AS (amount * 2) STORED,
        PRIMARY KEY (tenant_id, id));
    CREATE TABLE ticket (
        tenant_id uuid, at timestamptz, raw bytea, ratio double precision, name text, span interval,
        count bigint NOT NULL,
        PRIMARY KEY (tenant_id, at, raw, ratio, name, span));
    INSERT INTO sample
        SELECT clinic, n, CASE WHEN n % 3 > 0 THEN 'note ' || n END,
            '2026-03-08 14:00Z'::timestamptz + n * interval '1 day', '2026-03-08'::date + n,
            n * interval '1 month 2 days 3.5 seconds', sha256(n::text::bytea),
            jsonb_build_object('n', n, 'text', 'x'), tstzrange('2026-03-08 14:00Z', '2026-03-09 14:00Z'),
            n * 1.10, n / 3.0, CASE WHEN n % 2 = 0 THEN 'calm' ELSE 'alarmed' END::mood,
            ARRAY['a', 'b' || n]
        FROM generate_series(0, 11) n, unnest(ARRAY[:sunrise, :lakeside]) clinic;
    INSERT INTO ticket
        SELECT clinic, '2026-03-08 14:00:00.123456Z'::timestamptz + n / 4 * interval '1 day',
            sha256((n / 2)::text::bytea), n / 3.0, CASE WHEN n % 2 = 0 THEN 'Zeta ' ELSE 'ä"\\' END || n,
            interval '1 year 2 days', n
        FROM generate_series(0, 11) n, unnest(ARRAY[:sunrise, :lakeside]) clinic;
    INSERT INTO clinic (tenant_id, name, created_at, updated_at)
        SELECT clinic, 'A clinic', '2026-01-01', '2026-01-01' FROM unnest(ARRAY[:sunrise, :lakeside]) clinic;
    INSERT INTO cache_tag SELECT clinic, 'practitioners', 3 FROM unnest(ARRAY[:sunrise, :lakeside]) clinic;
    DO $$
    DECLARE name text;
    BEGIN
        FOREACH name IN ARRAY ARRAY['sample', 'ticket'] LOOP
            EXECUTE format('ALTER TABLE %I OWNER TO hc_owner', name);
            EXECUTE format('ALTER TABLE %I ENABLE ROW LEVEL SECURITY', name);
            EXECUTE format('ALTER TABLE %I FORCE ROW LEVEL SECURITY', name);
            EXECUTE format('GRANT SELECT ON %I TO hc_mover', name);
        END LOOP;
    END
    $$;
    """

@Suite("A clinic's rows are compared", .onLoop)
@LoopActor
struct TenantDigestTests {
    /// One thing wrong with the target's rows, and the chunks of four rows in which it is.
    struct Damage: Sendable {
        var name: String
        var sql: String
        var chunks: [String]

        init(_ name: String, _ sql: String, _ chunks: String...) {
            self.name = name
            self.sql = sql
            self.chunks = chunks
        }

        static func column(_ assignment: String) -> Damage {
            Damage(assignment, "UPDATE sample SET \(assignment) WHERE id = 6", "sample[1]")
        }
    }

    nonisolated static let damages = [
        Damage("a lost row", "DELETE FROM sample WHERE id = 9", "sample[2]"),
        Damage("the first row lost", "DELETE FROM sample WHERE id = 0", "sample[0]"),
        Damage("the last row lost", "DELETE FROM sample WHERE id = 11", "sample[2]"),
        Damage(
            "a doubled row",
            """
            INSERT INTO sample (tenant_id, id, note, at, amount)
            SELECT tenant_id, -5, note, at, amount FROM sample WHERE id = 7 AND tenant_id = :sunrise
            """, "sample[0]"),
        Damage(
            "two rows exchanged but for their keys",
            """
            UPDATE sample SET note = CASE id WHEN 1 THEN 'note 10' ELSE 'note 1' END
            WHERE id IN (1, 10) AND tenant_id = :sunrise
            """, "sample[0]", "sample[2]"),
        Damage(
            "two neighbours exchanged",
            """
            UPDATE sample SET note = CASE id WHEN 4 THEN 'note 5' ELSE 'note 4' END
            WHERE id IN (4, 5) AND tenant_id = :sunrise
            """, "sample[1]"),
        Damage(
            "a row under another key", "UPDATE sample SET id = 100 WHERE id = 1", "sample[0]",
            "sample[2]"),
        .column("note = ''"), .column("note = 'x'"), .column("at = at + interval '1 microsecond'"),
        .column("at = 'infinity'"), .column("day = day + 1"),
        .column("span = span + interval '1 us'"),
        .column("raw = raw || '\\x00'"), .column("raw = ''"), .column("raw = NULL"),
        .column("doc = doc || '{\"m\":null}'"), .column("doc = '{}'"), .column("doc = 'null'"),
        .column("busy = tstzrange(lower(busy), upper(busy), '(]')"), .column("busy = 'empty'"),
        .column("busy = tstzrange(lower(busy), NULL)"), .column("amount = amount + 0.01"),
        .column("amount = 'NaN'"), .column("ratio = ratio * 1.0000000000000002"),
        .column("mood = 'alarmed'"), .column("mood = NULL"), .column("tags = tags || NULL::text"),
        .column("tags = NULL"), .column("tags = '{}'"),
        Damage(
            "another clinic's settings",
            "UPDATE clinic SET locale = 'en-US' WHERE tenant_id = :sunrise",
            "clinic[0]"),
        Damage("a count of a tag that went back", "UPDATE cache_tag SET count = 2", "cache_tag[0]"),
        Damage(
            "a row of a key of many types lost",
            "DELETE FROM ticket WHERE count = 5 AND tenant_id = :sunrise", "ticket[1]"),
    ]

    @Test("whatever is wrong on the target is found, in its table and chunk")
    func found() async throws {
        let names = ["sample", "ticket", "clinic", "cache_tag"]
        // In another schema: there they are no tables of a clinic.
        let keep = names.map { "CREATE TABLE kept.\($0) AS TABLE \($0);" }.joined(separator: "\n")
        let restore = names.map { name in
            name == "sample"
                ? """
                DELETE FROM sample;
                INSERT INTO sample
                    SELECT tenant_id, id, note, at, day, span, raw, doc, busy, amount, ratio, mood, tags
                    FROM kept.sample;
                """ : "DELETE FROM \(name); INSERT INTO \(name) TABLE kept.\(name);"
        }.joined(separator: "\n")
        try await withTwoShards(sample, before: "CREATE SCHEMA kept;\n" + keep) { shards in
            let plan = try await shards.plan(rowsPerChunk: 4)
            #expect(try await shards.differences(plan).isEmpty)
            for damage in Self.damages {
                try await shards.psql(shards.targetDatabase, restore + damage.sql)
                #expect(
                    try await shards.differences(plan).map(\.chunk.description) == damage.chunks,
                    "\(damage.name)")
            }
            try await shards.psql(shards.targetDatabase, restore)
            #expect(try await shards.differences(plan).isEmpty)
        }
    }

    @Test("what is of another clinic, or a mere copy, is no difference")
    func irrelevant() async throws {
        try await withTwoShards(sample) { shards in
            let plan = try await shards.plan(rowsPerChunk: 4)
            try await shards.psql(
                shards.targetDatabase,
                """
                DELETE FROM sample WHERE tenant_id = :lakeside;
                UPDATE clinic SET name = 'Another' WHERE tenant_id = :lakeside;
                INSERT INTO read_model (tenant_id, name, epoch, tags, counts, body, good_until)
                    VALUES (:sunrise, 'slots', 1, '', '', '', now());
                INSERT INTO hc_barrier (tenant_id, move_id, seq) VALUES (:sunrise, :sunrise, 1);
                """)
            #expect(try await shards.differences(plan).isEmpty)
            #expect(
                !plan.tables.contains {
                    ["hc_tenant", "hc_barrier", "read_model"].contains($0.name)
                })
            #expect(plan.tables.contains { $0.name == "cache_tag" })
        }
    }

    @Test("neither the settings of a role nor the order of columns change what is read")
    func settings() async throws {
        let roles = """
            DO $$
            DECLARE setting text;
            BEGIN
                FOREACH setting IN ARRAY ARRAY[
                    'DateStyle = ''SQL, DMY''', 'TimeZone = ''Asia/Kathmandu''', 'IntervalStyle = iso_8601',
                    'extra_float_digits = -15', 'bytea_output = escape', 'client_encoding = ''LATIN1''',
                    'search_path = hidden', 'quote_all_identifiers = on'] LOOP
                    EXECUTE format(
                        'ALTER ROLE hc_mover IN DATABASE %I SET ', current_database()) || setting;
                END LOOP;
            END
            $$;
            CREATE SCHEMA hidden;
            ALTER TABLE ticket RENAME COLUMN count TO old;
            ALTER TABLE ticket ADD COLUMN count bigint;
            UPDATE ticket SET count = old;
            ALTER TABLE ticket DROP COLUMN old, ALTER COLUMN count SET NOT NULL;
            """
        try await withTwoShards(sample, before: roles) { shards in
            let plan = try await shards.plan(rowsPerChunk: 2)
            #expect(plan.tables.first { $0.name == "ticket" }?.cuts.count == 5)
            #expect(try await shards.differences(plan).isEmpty)
            // Cut by the other side's settings, the same rows are in the same chunks.
            let other = try await TenantDigest.plan(
                of: TwoShards.sunrise, source: shards.target, target: shards.source,
                rowsPerChunk: 2, deadline: shards.deadline)
            #expect(other == plan)
            let digests = try await TenantDigest(of: TwoShards.sunrise, on: shards.target).read(
                plan, deadline: shards.deadline)
            #expect(
                plan.chunks.filter { $0.table == "ticket" }.map { digests.chunks[$0]?.rows } == [
                    2, 2, 2, 2, 2, 2,
                ])
        }
    }

    @Test(
        "chunks of a table are full but for the last one",
        arguments: [
            (0, [0]), (1, [1]), (3, [3]), (4, [4]), (5, [4, 1]), (8, [4, 4]), (9, [4, 4, 1]),
            (12, [4, 4, 4]),
        ])
    func sizes(_ rows: Int, _ expected: [Int]) async throws {
        try await withTwoShards(sample + "DELETE FROM sample WHERE id >= \(rows);") { shards in
            let plan = try await shards.plan(rowsPerChunk: 4)
            let digests = try await TenantDigest(of: TwoShards.sunrise, on: shards.source).read(
                plan, deadline: shards.deadline)
            let chunks = plan.chunks.filter { $0.table == "sample" }
            #expect(chunks.map { digests.chunks[$0]?.rows } == expected)
            #expect(chunks.map { plan.rows(of: $0) } == expected)
            #expect(plan.rows == rows + 14 && digests.rows == rows + 14)
            // The sum over the table does not know how it was cut.
            let whole = try await TenantDigest(of: TwoShards.sunrise, on: shards.target).read(
                shards.plan(rowsPerChunk: 10_000), deadline: shards.deadline)
            #expect(whole.tables == digests.tables)
        }
    }

    @Test("a chunk costs its own rows, however many of the table's the planner expects of it")
    func plans() async throws {
        // A key with few values in its first column, rows that lie in another order, and a small index that says nothing of
        // them: by what it knows, the planner would read the whole table for each chunk, or all that is in that index.
        let table = """
            CREATE TABLE mark (
                tenant_id uuid, token bigint, owner bigint, note text, PRIMARY KEY (tenant_id, token, owner));
            CREATE INDEX mark_tenant ON mark (tenant_id);
            ALTER TABLE mark OWNER TO hc_owner;
            ALTER TABLE mark ENABLE ROW LEVEL SECURITY;
            ALTER TABLE mark FORCE ROW LEVEL SECURITY;
            GRANT SELECT ON mark TO hc_mover;
            INSERT INTO mark SELECT :sunrise, n % 5, n FROM generate_series(1, 20000) n;
            ANALYZE mark;
            DO $$ BEGIN
                EXECUTE format('ALTER DATABASE %I SET random_page_cost = 40', current_database());
            END $$;
            """
        try await withTwoShards(table) { shards in
            let plan = try await shards.plan(rowsPerChunk: 100)
            let chunks = plan.chunks.filter { $0.table == "mark" }
            #expect(chunks.count == 200)
            let reader = TenantDigest(of: TwoShards.sunrise, on: shards.source)
            for isByRow in [false, true] {
                let before = try await shards.readings(of: "mark")
                let rows =
                    isByRow
                    ? try await reader.read(plan, rowsOf: chunks, deadline: shards.deadline)
                        .digests.count
                    : try await reader.read(plan, chunks: chunks, deadline: shards.deadline).rows
                #expect(rows == 20_000)
                let after = try await shards.readings(of: "mark")
                #expect(after.table == before.table)
                #expect(after.indexes - before.indexes == 20_000)
            }
        }
    }

    @Test("named chunks alone are read again, and rows that came since are in the last one")
    func again() async throws {
        try await withTwoShards(sample) { shards in
            let plan = try await shards.plan(rowsPerChunk: 4)
            let reader = TenantDigest(of: TwoShards.sunrise, on: shards.source)
            let before = try await reader.read(plan, deadline: shards.deadline)
            try await shards.psql(
                shards.sourceDatabase,
                "INSERT INTO sample (tenant_id, id) VALUES (:sunrise, 12), (:sunrise, 13)")
            let last = TenantChunk(table: "sample", index: 2)
            let foreign = TenantChunk(table: "sample", index: 3)
            var steps: [TenantDigest.Progress] = []
            let after = try await reader.read(
                plan, chunks: [last, foreign], deadline: shards.deadline
            ) {
                steps.append($0)
            }
            #expect(after.chunks.keys.map { $0 } == [last] && after.rows == 6)
            #expect(steps == [.init(rows: 6, rowsExpected: 4, chunks: 1, chunksAll: 1)])
            #expect(after.position > before.position)
            #expect(
                plan.differences(source: before.updated(by: after), target: before).map(\.chunk)
                    == [last])
            let none = try await reader.read(plan, chunks: [], deadline: shards.deadline)
            #expect(none.chunks.isEmpty && none.position >= after.position)
        }
    }

    @Test("all chunks of a large plan are read in one snapshot, whatever is written in between")
    func snapshot() async throws {
        try await withTwoShards(sample) { shards in
            try await shards.psql(
                shards.sourceDatabase,
                "INSERT INTO sample (tenant_id, id) SELECT :sunrise, n FROM generate_series(100, 499) n"
            )
            let plan = try await shards.plan(rowsPerChunk: 2)
            let writer = try await TwoShards.connect(shards.sourceDatabase.superuser)
            defer { writer.close() }
            let quiet = try await TenantDigest(of: TwoShards.sunrise, on: shards.source).read(
                plan, deadline: shards.deadline)
            var steps = 0
            let task = Loop.shared.makeTask {
                try await TenantDigest(of: TwoShards.sunrise, on: shards.source).read(
                    plan, deadline: shards.deadline
                ) { _ in steps += 1 }
            }
            _ = try await writer.execute(
                [Query("DELETE FROM sample WHERE id >= 300")], deadline: shards.deadline)
            let busy = try await task.value
            #expect(steps == 4)
            #expect(busy.rows == quiet.rows || busy.rows == quiet.rows - 200)
        }
    }

    @Test(
        "tables that are not alike on both sides are refused, by name",
        arguments: [
            ("ALTER TABLE sample ADD COLUMN more text", "the columns or the key of table sample"),
            (
                "ALTER TABLE sample ALTER note TYPE varchar(40)",
                "the columns or the key of table sample"
            ),
            (
                """
                ALTER TABLE ticket DROP CONSTRAINT ticket_pkey;
                ALTER TABLE ticket ADD PRIMARY KEY (tenant_id, raw, at, ratio, name, span)
                """, "the columns or the key of table ticket"
            ),
            ("CREATE TABLE extra (tenant_id uuid PRIMARY KEY)", "table extra is on one side only"),
            ("ALTER TABLE ticket DROP CONSTRAINT ticket_pkey", "table ticket has no primary key"),
        ])
    func unlike(_ change: String, _ message: String) async throws {
        try await withTwoShards(sample, before: change + ";") { shards in
            let error = await #expect(throws: ControlError.self) {
                try await shards.plan(rowsPerChunk: 4)
            }
            #expect(error?.code == "move-tables-differ")
            #expect(error?.message.hasPrefix(message) == true)
        }
    }

    @Test("whoever does not see all rows is refused, instead of finding both sides empty")
    func blind() async throws {
        try await withTwoShards(sample) { shards in
            let plan = try await shards.plan(rowsPerChunk: 4)
            let owner = try await TwoShards.connect(shards.sourceDatabase.owner)
            defer { owner.close() }
            let error = await #expect(throws: PostgresError.self) {
                try await TenantDigest(of: TwoShards.sunrise, on: owner).read(
                    plan, deadline: shards.deadline)
            }
            #expect(error?.sqlstate == .insufficientPrivilege)
        }
    }

    @Test("a reading ends with its deadline")
    func late() async throws {
        try await withTwoShards(sample) { shards in
            let plan = try await shards.plan(rowsPerChunk: 4)
            await #expect(throws: PostgresError.self) {
                try await TenantDigest(of: TwoShards.sunrise, on: shards.source).read(
                    plan, deadline: .after(.zero, from: Loop.now))
            }
        }
    }
}
