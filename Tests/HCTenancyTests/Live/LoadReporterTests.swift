import HCCore
import HCIO
import HCPostgres
import HCTesting
import Testing

@testable import HCTenancy

@Suite("What clinics use is counted and reported to their shard", .onLoop)
@LoopActor
struct LoadReporterTests {
    private func loads(_ platform: LivePlatform, _ columns: String) async throws -> String {
        try await platform.psql(
            platform.first.superuser,
            "SELECT \(columns) FROM hc_load WHERE tenant_id = '\(LivePlatform.sunrise)'")
    }

    @Test("rows, time and connections of a clinic are added up, of that clinic alone")
    func reported() async throws {
        let platform = try await LivePlatform.make()
        let context = try platform.context(LivePlatform.sunrise)
        // hc_enter() gives a row back as well.
        _ = try await context.read(
            [Query("SELECT generate_series(1, 41)")], deadline: platform.deadline)
        await platform.shards.reporter.report()
        #expect(try await loads(platform, "rows_all, rows_changed") == "42|0\n")
        _ = try await context.write(
            [
                Query(
                    """
                    INSERT INTO cache_tag (tenant_id, tag, count)
                    SELECT hc_ctx_tenant(), 'load ' || number, 1 FROM generate_series(1, 6) AS number
                    """)
            ], audit: [], deadline: platform.deadline)
        await platform.shards.reporter.report()
        #expect(try await loads(platform, "rows_all >= 49, rows_changed") == "t|6\n")
        #expect(
            try await loads(
                platform,
                "execution_us > 0, pool_us >= execution_us, busiest_us BETWEEN 1 AND pool_us")
                == "t|t|t\n")
        let others = try await platform.psql(
            platform.first.superuser, "SELECT count(*) FROM hc_load")
        #expect(others == "1\n")
        #expect(platform.shards.counted.allSatisfy { $0.text == "s1" })
        // Nothing happened since: nothing is told again.
        await platform.shards.reporter.report()
        #expect(try await loads(platform, "rows_changed") == "6\n")
    }

    @Test("what cannot be reported is lost, and counted as such; the clinic is served")
    func lost() async throws {
        let platform = try await LivePlatform.make()
        try await platform.psql(
            platform.first.superuser,
            "ALTER FUNCTION hc_load_add(uuid[], bigint[], bigint[], bigint[], bigint[]) RENAME TO gone"
        )
        let context = try platform.context(LivePlatform.sunrise)
        _ = try await context.read([Query("SELECT 1")], deadline: platform.deadline)
        await platform.shards.reporter.report()
        let result = try await context.read([Query("SELECT 7")], deadline: platform.deadline)
        #expect(try result[0].single().int(0) == 7)
        #expect(try await loads(platform, "*") == "")
    }

    @Test("a clinic that is not served here is not counted")
    func elsewhere() async throws {
        let platform = try await LivePlatform.make()
        let id = LivePlatform.lakeside
        try await platform.psql(
            platform.first.superuser,
            """
            SET ROLE hc_app;
            SELECT hc_load_add(ARRAY['\(id)', '\(LivePlatform.sunrise)']::uuid[],
                '{1,2}', '{3,4}', '{5,6}', '{7,8}');
            SELECT hc_load_add(ARRAY['\(LivePlatform.sunrise)']::uuid[], '{10}', '{20}', '{30}', '{40}');
            """)
        let found = try await platform.psql(
            platform.first.superuser,
            "SELECT tenant_id = '\(LivePlatform.sunrise)', execution_us, pool_us, rows_all, rows_changed FROM hc_load"
        )
        #expect(found == "t|12|24|36|48\n")
    }

    @Test("a ledger is bounded, and says what it missed")
    func bounded() {
        var ledger = LoadLedger(tenantsMax: 2)
        var work = PostgresWork()
        (work.rows, work.rowsChanged, work.time) = (3, 1, .milliseconds(2))
        for number in [1, 2, 3, 1, 3] {
            ledger.add(TenantID(UUID(high: 1, low: UInt64(number))), pool: .milliseconds(5), work)
        }
        #expect(ledger.missed == 2)
        let taken = ledger.take()
        #expect(taken.count == 2)
        let first = taken[TenantID(UUID(high: 1, low: 1))]
        #expect(first?.pool == .milliseconds(10) && first?.work.rows == 6)
        #expect(ledger.take().isEmpty && ledger.missed == 0)
    }
}
