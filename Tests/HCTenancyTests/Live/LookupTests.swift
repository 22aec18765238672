import HCCore
import HCIO
import HCPostgres
import HCTesting
import Testing

@testable import HCTenancy

@Suite("Look-ups of a moment share a transaction", .onLoop)
@LoopActor
struct LookupTests {
    private final class Groups {
        var sizes: [Int] = []
    }

    /// Answers whom it asks as: the clinic that was entered.
    nonisolated private static let whoAmI = Query("SELECT hc_ctx_tenant(), $1::bigint", [.int8(1)])
    nonisolated private static let broken = Query("SELECT 1 / ($1::bigint - 1)", [.int8(1)])

    private func gatherer(
        _ platform: LivePlatform, groups: Groups
    ) -> LookupGatherer {
        LookupGatherer { tenant, queries, deadline in
            groups.sizes.append(queries.count)
            let record = try #require(platform.door.directory.snapshot?.find(tenant))
            return try await platform.door.perform(
                record, .read, queries, isRepeatable: true, deadline: deadline)
        }
    }

    @Test("each gets its own answer, and no clinic another's")
    func answers() async throws {
        let platform = try await LivePlatform.make()
        let groups = Groups()
        let lookups = gatherer(platform, groups: groups)
        let tenants = [LivePlatform.sunrise, LivePlatform.lakeside]
        let found = try await concurrently(60) { number in
            let tenant = tenants[number % 2]
            let result = try await lookups.find(
                Query("SELECT hc_ctx_tenant(), $1::bigint", [.int8(Int64(number))]), in: tenant,
                deadline: platform.deadline)
            let row = try #require(result.first)
            #expect(try row.uuid(0) == tenant.uuid)
            return Int(try row.int(1))
        }
        #expect(found.sorted() == Array(0..<60))
        #expect(groups.sizes.reduce(0, +) == 60)
        #expect(groups.sizes.count < 20, "\(groups.sizes)")
        #expect(lookups.activeCount == 0)
    }

    @Test("a statement that fails fails nobody else's")
    func failure() async throws {
        let platform = try await LivePlatform.make()
        let groups = Groups()
        let lookups = gatherer(platform, groups: groups)
        let outcomes = try await concurrently(9) { number in
            do {
                let query = number == 4 ? LookupTests.broken : LookupTests.whoAmI
                _ = try await lookups.find(
                    query, in: LivePlatform.sunrise, deadline: platform.deadline)
                return "found"
            } catch let error as PostgresError {
                return error.sqlstate?.description ?? "lost"
            }
        }
        #expect(outcomes.filter { $0 == "found" }.count == 8)
        #expect(outcomes.filter { $0 == "22012" }.count == 1)
        #expect(groups.sizes.first == 9)
    }
}
