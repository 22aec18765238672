import HCCore
import HCTenancy
import HCTesting
import Testing

@testable import HCControl

@Suite("What a drain plans")
struct DrainPlanTests {
    /// Shard `s0` is drained; clinics are `clinic-0`, `clinic-1`, ….
    private func view(
        _ shards: [RebalanceFleet.Shard], _ clinics: [RebalanceFleet.Clinic]
    ) -> RebalanceView {
        RebalanceView(
            fleet: RebalanceFleet(shards: shards, clinics: clinics),
            slugs: clinics.indices.map { "clinic-\($0)" }, epochs: clinics.map { _ in 1 },
            loads: clinics.map(\.load), mapVersion: 1, unsampled: 0, oldestSample: nil)
    }

    private func shard(
        _ id: String, weightMax: Int = 1000, capacity: Double = 0, region: String = "",
        dedicatedTo: String? = nil
    ) -> RebalanceFleet.Shard {
        RebalanceFleet.Shard(
            id: id, capacity: RandomFleet.even(capacity), weightMax: weightMax, region: region,
            dedicatedTo: dedicatedTo)
    }

    private func clinic(
        _ number: Int, on shard: Int = 0, weight: Int = 1, load: Double = 0, pin: Int? = nil,
        group: Int? = nil, region: String? = nil, dedicatedTo: String? = nil
    ) -> RebalanceFleet.Clinic {
        RebalanceFleet.Clinic(
            id: RandomFleet.clinic(number), shard: shard, load: RandomFleet.even(load), bytes: 0,
            weight: weight, pin: pin, group: group, region: region, dedicatedTo: dedicatedTo)
    }

    private func plan(
        _ shards: [RebalanceFleet.Shard], _ clinics: [RebalanceFleet.Clinic],
        to targets: [String: Int]? = nil, ignoresPins: Bool = false
    ) -> DrainPlan {
        DrainPlan.make(
            Set(clinics.map(\.id)), of: "s0", view(shards, clinics), rules: RebalanceRules(),
            to: targets
                ?? Dictionary(
                    uniqueKeysWithValues: shards.dropFirst().map { ($0.id, $0.weightMax) }),
            ignoresPins: ignoresPins)
    }

    @Test(
        "clinics of which nothing is known are spread by room, each counted for the next one's choice"
    )
    func spread() {
        let plan = plan(
            [
                shard("s0"), shard("s2", weightMax: 10), shard("s3", weightMax: 20),
                shard("s4", weightMax: 10),
            ],
            (0..<9).map { clinic($0) } + (9..<19).map { clinic($0, on: 3) })
        #expect(plan.homeless.isEmpty)
        #expect(plan.steps.filter { $0.target == "s2" }.count == 3)
        #expect(plan.steps.filter { $0.target == "s3" }.count == 6)
        #expect(plan.steps.allSatisfy { $0.reason.contains("s4 has 10 of 10 in tier weight") })
    }

    @Test("what they use counts before their number: the shard that bears least gets most")
    func load() {
        let plan = plan(
            [shard("s0"), shard("s1", capacity: 100), shard("s2", capacity: 100)],
            (0..<6).map { clinic($0, load: 5) } + [clinic(6, on: 1, load: 40)])
        #expect(plan.steps.map(\.target) == Array(repeating: "s2", count: 6))
        #expect(plan.steps.first?.reason == "the least used of 2 that take it")
    }

    @Test("heavy clinics choose first, so what fits in some order fits")
    func heavyFirst() {
        let clinics = (0..<9).map { clinic($0) } + [clinic(9, weight: 9)]
        let plan = plan(
            [shard("s0"), shard("s2", weightMax: 9), shard("s3", weightMax: 9)], clinics)
        #expect(plan.homeless.isEmpty)
        #expect(plan.steps.first?.clinic.slug == "clinic-9")
        #expect(Set(plan.steps.dropFirst().map(\.target)).count == 1)
    }

    @Test("whom no shard takes is named with the reason, and the others are placed")
    func homeless() {
        let found = plan(
            [shard("s0"), shard("s2", weightMax: 2)],
            [clinic(0), clinic(1, weight: 9), clinic(2)])
        #expect(found.homeless.map(\.clinic.slug) == ["clinic-1"])
        #expect(found.homeless.first?.reason == "s2 has 2 of 2 in tier weight")
        #expect(found.steps.map(\.clinic.slug) == ["clinic-0", "clinic-2"])
        #expect(plan([shard("s0")], [clinic(0)]).homeless.count == 1)
    }

    @Test(
        "one that is pinned elsewhere goes there, one that is pinned to the shard is not planned for"
    )
    func pins() {
        let shards = [shard("s0"), shard("s1"), shard("s2"), shard("s3")]
        let clinics = [clinic(0, pin: 2), clinic(1, pin: 0), clinic(2, pin: 3)]
        let found = plan(shards, clinics, to: ["s1": 10, "s2": 10])
        #expect(found.pinned.map(\.slug) == ["clinic-1"])
        #expect(
            found.steps.map { "\($0.clinic.slug) \($0.target) \($0.cause)" } == ["clinic-0 s2 pin"])
        #expect(found.steps.first?.reason == "it is pinned to it")
        #expect(found.homeless.map(\.reason) == ["it is pinned to s3, which takes no clinics now"])
        let forced = plan(shards, clinics, ignoresPins: true)
        #expect(forced.pinned.isEmpty && forced.homeless.isEmpty)
        #expect(forced.steps.contains { $0.clinic.slug == "clinic-0" && $0.target == "s2" })
        #expect(forced.steps.contains { $0.clinic.slug == "clinic-1" && $0.cause == .drain })
    }

    @Test("no two of a group come together, neither with one that is there nor with one that comes")
    func groups() {
        let found = plan(
            [shard("s0"), shard("s1"), shard("s2"), shard("s3")],
            [
                clinic(0, group: 7), clinic(1, group: 7), clinic(2, group: 7),
                clinic(3, on: 2, group: 7),
            ])
        #expect(Set(found.steps.map(\.target)) == ["s1", "s3"])
        #expect(found.homeless.map(\.clinic.slug) == ["clinic-2"])
        #expect(
            found.homeless.first?.reason
                == "s1 has another clinic of its group, s2 has another clinic of its group, s3 has another clinic of its group"
        )
    }

    @Test("nobody leaves the region or the dedication, and no shard is filled above its share")
    func pools() {
        let found = plan(
            [
                shard("s0", region: "north"), shard("s1", region: "south"),
                shard("s2", region: "north", dedicatedTo: "chain"),
                shard("s3", capacity: 100, region: "north"),
            ],
            [
                clinic(0, load: 50), clinic(1, region: "south"), clinic(2, dedicatedTo: "chain"),
                clinic(3, load: 60), clinic(4, region: "east"),
            ])
        #expect(
            found.steps.map { "\($0.clinic.slug) \($0.target)" }.sorted()
                == ["clinic-0 s3", "clinic-1 s1", "clinic-2 s2"])
        #expect(
            found.homeless.map { "\($0.clinic.slug): \($0.reason)" } == [
                "clinic-3: s3 would be above 85 % in execution",
                "clinic-4: no other open shard is for region 'east'",
            ])
    }

    @Test(
        "plans of any fleet keep every rule of the rebalancer, and leave nobody out",
        arguments: 0..<80)
    func never(seed: UInt64) {
        var random = RandomFleet(seed: seed)
        let fleet = random.make(shards: 3 + Int(seed) / 8, clinics: 40 + 5 * Int(seed))
        var view = view(fleet.shards, fleet.clinics)
        let drained = fleet.shards[0].id
        let leaving = fleet.clinics.filter { $0.shard == 0 }
        let targets = Dictionary(
            uniqueKeysWithValues: fleet.shards.filter { $0.id != drained && $0.status == .open }
                .map { ($0.id, $0.weightMax) })
        func make() -> DrainPlan {
            DrainPlan.make(
                Set(leaving.map(\.id)), of: drained, view, rules: RebalanceRules(), to: targets,
                ignoresPins: false)
        }
        let plan = make()
        #expect(
            plan.steps.count + plan.homeless.count + plan.pinned.count == leaving.count,
            "seed \(seed)")
        #expect(plan == make())
        #expect(Set(plan.pinned.map(\.id)) == Set(leaving.filter { $0.pin == 0 }.map(\.id)))
        for step in plan.steps {
            guard let index = fleet.clinics.firstIndex(where: { $0.id == step.clinic.id }),
                let target = fleet.shards.firstIndex(where: { $0.id == step.target })
            else {
                Issue.record("seed \(seed): a plan of nobody")
                return
            }
            let clinic = fleet.clinics[index]
            view.fleet.clinics[index].shard = target
            let shard = fleet.shards[target]
            #expect(shard.status == .open && target != 0)
            #expect(clinic.pin == nil || clinic.pin == target)
            #expect(shard.region == clinic.region ?? fleet.shards[0].region)
            #expect(shard.dedicatedTo == clinic.dedicatedTo)
            let use = RebalanceUse(of: view.fleet).shards[target]
            #expect(use.weight <= shard.weightMax && use.highest <= RebalanceRules().fillMax)
            if let group = clinic.group {
                let mates = view.fleet.clinics.count { $0.group == group && $0.shard == target }
                #expect(mates == 1, "seed \(seed), \(step.clinic.slug)")
            }
        }
    }

    @Test("no more moves are begun than every server has slots, senders and workers for")
    func room() {
        func spare(_ slots: Int, _ senders: Int, _ workers: Int) -> DrainRoom.Spare {
            DrainRoom.Spare(slots: slots, senders: senders, workers: workers, copiers: 2)
        }
        var room = DrainRoom(
            origin: spare(12, 40, 40), targets: ["s2": spare(3, 40, 40), "s3": spare(40, 40, 5)])
        // A slot to follow and one for each of two copiers.
        #expect(room.fromOrigin == 4)
        #expect(room.to("s2") == 3 && room.to("s3") == 2 && room.to("s4") == 0)
        room.origin = spare(40, 7, 40)
        #expect(room.fromOrigin == 2)
        room.origin = spare(40, 40, 1)
        #expect(room.fromOrigin == 1)
        room.origin = spare(-1, 40, 40)
        #expect(room.fromOrigin == 0)
    }
}
