import HCCore
import HCTenancy
import Testing

@testable import HCControl

@Suite("What applying tiers would change")
struct TierPlanTests {
    private func tier(_ name: String, _ units: Int = 50, tenants: Int = 0) -> Tier {
        Tier(
            name: name, version: 1, tenants: tenants,
            stored: TierDefinition(name: name, rates: [.bucket(units: units, burst: 1000)]).json)
    }

    private func definition(_ name: String, _ units: Int = 50) -> TierDefinition {
        TierDefinition(name: name, rates: [.bucket(units: units, burst: 1000)])
    }

    private func refusal(
        _ present: [Tier], _ wanted: [TierDefinition], _ removals: Set<String> = []
    ) -> ControlError? {
        do throws(ControlError) {
            _ = try TierPlan(present: present, wanted: wanted, removals: removals)
            return nil
        } catch {
            return error
        }
    }

    @Test("what is new, what differs and what goes, and nothing else")
    func changes() throws {
        let plan = try TierPlan(
            present: [tier("a", 50, tenants: 3), tier("b"), tier("c")],
            wanted: [definition("a", 70), definition("b"), definition("d")], removals: ["c"])
        #expect(plan.changes.map(\.kind) == [.change, .add, .remove])
        #expect(plan.changes.map(\.tier) == ["a", "d", "c"])
        #expect(plan.changes[0].tenants == 3)
        #expect(
            plan.changes[0].differences.map(\.description) == ["rates[tenant].units: 50 -> 70"])
    }

    @Test("a stored definition of the old form differs in what it says, not in how")
    func oldForm() throws {
        var old = tier("a")
        old.stored = [
            "name": "a", "unitsPerSecond": 50, "burstUnits": 1000, "transactionsMax": 8,
        ]
        let plan = try TierPlan(present: [old], wanted: [definition("a")], removals: [])
        #expect(
            plan.changes.flatMap(\.differences).map(\.description) == ["pool.inFlightMax: 8 -> 32"])
    }

    @Test("a tier in use cannot go, whether it is named or missing; all of them are named at once")
    func inUse() throws {
        let present = [tier("a", tenants: 2), tier("b", tenants: 1), tier("c")]
        for removals: Set<String> in [[], ["a", "b"]] {
            let error = try #require(refusal(present, [definition("c")], removals))
            #expect(error.kind == .refused && error.code == "tier-in-use")
            #expect(error.message.contains("'a' (2 clinics), 'b' (1 clinic)"))
            #expect(error.remedy?.contains("set-tier") == true)
        }
    }

    @Test("a tier that is only missing may have been forgotten: it stays until it is named")
    func forgotten() throws {
        let error = try #require(refusal([tier("a"), tier("b")], [definition("a")]))
        #expect(error.kind == .refused && error.code == "tier-missing")
        #expect(error.remedy?.contains("--remove b") == true)
        #expect(refusal([tier("a"), tier("b")], [definition("a")], ["b"]) == nil)
    }

    @Test("a removal that cannot be meant is refused")
    func removals() {
        #expect(refusal([tier("a")], [definition("a")], ["a"])?.kind == .invalid)
        #expect(refusal([tier("a")], [definition("a")], ["z"])?.kind == .notFound)
    }

    @Test("a plan is overtaken by any change to any tier")
    func overtaken() throws {
        let present = [tier("a"), tier("b")]
        let plan = try TierPlan(
            present: present, wanted: [definition("a", 60), definition("b")], removals: [])
        #expect(plan.overtaken(by: present) == nil)
        // Who uses it is judged anew, and is no change of the tier.
        #expect(plan.overtaken(by: [tier("a", tenants: 4), tier("b")]) == nil)
        #expect(plan.overtaken(by: [tier("a")]) == "b")
        #expect(plan.overtaken(by: present + [tier("c")]) == "c")
        // Removed and made again: its version counts from one again.
        #expect(plan.overtaken(by: [tier("a", 51), tier("b")]) == "a")
        var newer = present
        newer[1].version = 2
        #expect(plan.overtaken(by: newer) == "b")
    }
}

@Suite("Differences of tiers")
struct TierDifferenceTests {
    @Test("a change is told field by field, with paths")
    func fields() {
        #expect(
            TierDifference.between(
                ["a": 1, "b": ["c": 2], "d": 3], ["a": 1, "b": ["c": 4], "e": 5]
            ).map(\.description) == ["b.c: 2 -> 4", "d: 3 -> none", "e: none -> 5"])
    }

    @Test("rules are compared by name, wherever they are in the list")
    func rules() {
        let old: JSONValue = ["rates": [["name": "x", "units": 1], ["name": "y", "units": 2]]]
        let new: JSONValue = ["rates": [["name": "y", "units": 3], ["name": "x", "units": 1]]]
        #expect(
            TierDifference.between(old, new).map(\.description) == ["rates[y].units: 2 -> 3"])
        let without: JSONValue = ["rates": [["name": "x", "units": 1]]]
        #expect(TierDifference.between(old, without).map(\.path) == ["rates[y]"])
        #expect(
            TierDifference.between(["classes": ["a", "b"]], ["classes": ["a"]]).map(\.description)
                == [#"classes: ["a","b"] -> ["a"]"#])
    }
}
