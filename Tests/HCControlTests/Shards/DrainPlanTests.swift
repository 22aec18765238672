import HCCore
import HCTenancy
import HCTesting
import Testing

@testable import HCControl

@Suite("What a drain plans")
struct DrainPlanTests {
    private func clinic(_ number: Int, weight: Int = 1) -> DrainPlan.Clinic {
        DrainPlan.Clinic(
            id: TenantID(
                UUID(high: 0x018f_0000_0000_7000, low: 0x8000_0000_0000_0000 + UInt64(number))),
            slug: "clinic-\(number)", weight: weight)
    }

    private func shard(_ id: String, capacity: Int, used: Int = 0) -> PlacementPolicy.Candidate {
        PlacementPolicy.Candidate(
            id: id, isOpen: true, capacity: capacity, used: used, tenants: used)
    }

    @Test("clinics are spread by room, each counted for the next one's choice")
    func spread() {
        let plan = DrainPlan.make(
            (0..<9).map { clinic($0) },
            to: [
                shard("s2", capacity: 10), shard("s3", capacity: 20),
                shard("s4", capacity: 10, used: 10),
            ])
        #expect(plan.homeless.isEmpty)
        #expect(plan.steps.filter { $0.target == "s2" }.count == 3)
        #expect(plan.steps.filter { $0.target == "s3" }.count == 6)
    }

    @Test("heavy clinics choose first, so what fits in some order fits")
    func heavyFirst() {
        let clinics = (0..<9).map { clinic($0) } + [clinic(9, weight: 9)]
        let plan = DrainPlan.make(
            clinics, to: [shard("s2", capacity: 9), shard("s3", capacity: 9)])
        #expect(plan.homeless.isEmpty)
        #expect(plan.steps.first?.clinic.slug == "clinic-9")
        #expect(Set(plan.steps.dropFirst().map(\.target)).count == 1)
    }

    @Test("whom no shard has room for is named, and the others are placed")
    func homeless() {
        let plan = DrainPlan.make(
            [clinic(0), clinic(1, weight: 9), clinic(2)], to: [shard("s2", capacity: 2)])
        #expect(plan.homeless.map(\.slug) == ["clinic-1"])
        #expect(plan.steps.map(\.clinic.slug) == ["clinic-0", "clinic-2"])
        #expect(DrainPlan.make([clinic(0)], to: []).homeless.count == 1)
    }

    @Test("plans of any fleet never fill a shard beyond its capacity, and leave nobody out")
    func never() {
        for seed in UInt64(0)..<200 {
            var random = SeededRandom(seed: seed)
            let clinics = (0..<Int.random(in: 0...40, using: &random)).map {
                clinic($0, weight: Int.random(in: 1...9, using: &random))
            }
            let shards = (0..<Int.random(in: 1...5, using: &random)).map {
                shard(
                    "s\($0)", capacity: Int.random(in: 0...60, using: &random),
                    used: Int.random(in: 0...20, using: &random))
            }
            let plan = DrainPlan.make(clinics, to: shards)
            #expect(plan.steps.count + plan.homeless.count == clinics.count, "seed \(seed)")
            for shard in shards {
                let coming = plan.steps.filter { $0.target == shard.id }.reduce(0) {
                    $0 + $1.clinic.weight
                }
                #expect(
                    coming == 0 || shard.used + coming <= shard.capacity,
                    "seed \(seed), \(shard.id)")
            }
            #expect(plan == DrainPlan.make(clinics.reversed(), to: shards), "seed \(seed)")
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
