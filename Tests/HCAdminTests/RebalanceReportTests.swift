import HCCore
import HCTenancy
import Testing

@testable import HCAdmin
@testable import HCControl

@Suite struct RebalanceReportTests {
    /// Two shards of 100 bytes each, with clinics of so many bytes.
    private func report(_ first: [Double], _ second: [Double]) throws -> RebalanceReport {
        let shards = ["s1", "s2"].map {
            RebalanceFleet.Shard(
                id: $0, capacity: LoadVector { $0 == .disk ? 100 : 1 }, weightMax: 1_000)
        }
        let sizes = first.map { (0, $0) } + second.map { (1, $0) }
        let clinics = sizes.enumerated().map { index, place in
            RebalanceFleet.Clinic(
                id: TenantID(UUID(high: 1, low: UInt64(index))), shard: place.0,
                load: LoadVector { $0 == .disk ? place.1 : 0 }, bytes: place.1)
        }
        let view = RebalanceView(
            fleet: RebalanceFleet(shards: shards, clinics: clinics),
            slugs: clinics.indices.map { "c\($0)" }, epochs: clinics.map { _ in 1 },
            loads: clinics.map(\.load), mapVersion: 1, unsampled: 0, oldestSample: nil)
        let rules = RebalanceRules()
        let plan = RebalancePlanner.plan(view.fleet, rules: rules)
        let time = Timestamp(microseconds: 1)
        return RebalanceReport(
            view: view, plan: plan, file: RebalancePlanFile(plan, view, madeAt: time), rules: rules)
    }

    @Test("shards that are too full are named when there is no room elsewhere")
    func full() throws {
        let report = try report([100, 100, 100], [96])
        #expect(report.text.hasPrefix("nothing can be moved\n\nfuller than shards may be filled"))
        #expect(report.text.contains("(fillMax, 85 %): s1 (300 %), s2 (96 %)"))
        #expect(try report.json()["full"] == ["s1", "s2"])
    }

    @Test("a shard that a plan makes room on is not named")
    func relieved() throws {
        let report = try report([30, 30, 30], [10])
        #expect(report.text.hasPrefix("CLINIC"))
        #expect(!report.text.contains("fillMax"))
        #expect(try report.json()["full"] == [])
    }

    @Test("where all is well nothing is to move")
    func even() throws {
        let report = try report([30], [30])
        #expect(report.text.hasPrefix("nothing to move: 2 clinics on 2 shards"))
        #expect(!report.text.contains("fillMax"))
    }
}
