import HCCore
import HCTenancy
import HCTesting

@testable import HCControl

/// Fleets for property tests: a seed says everything about one.
struct RandomFleet {
    var random: SeededRandom

    init(seed: UInt64) {
        random = SeededRandom(seed: seed)
    }

    static func clinic(_ number: Int) -> TenantID {
        TenantID(UUID(high: 7, low: UInt64(number)))
    }

    /// Equal amounts of everything.
    static func even(_ amount: Double) -> LoadVector { LoadVector { _ in amount } }

    mutating func load(upTo most: Double) -> LoadVector {
        let size =
            most * Double.random(in: 0...1, using: &random) * .random(in: 0...1, using: &random)
        var load = LoadVector()
        for dimension in LoadDimension.allCases {
            load[dimension] = size * Double.random(in: 0...1, using: &random)
        }
        return load
    }

    /// Everything that a fleet can have: regions, dedications, groups, pins, shards that drain, clinics that rest.
    mutating func make(shards shardCount: Int, clinics clinicCount: Int) -> RebalanceFleet {
        var shards: [RebalanceFleet.Shard] = []
        for index in 0..<shardCount {
            let roll = Int.random(in: 0..<20, using: &random)
            shards.append(
                RebalanceFleet.Shard(
                    id: "s\(index)",
                    status: index > 3 && roll == 0 ? .draining : .open,
                    capacity: RandomFleet.even(.random(in: 50...150, using: &random)),
                    weightMax: 4 * clinicCount / shardCount + 20,
                    region: index % 2 == 0 ? "north" : "south",
                    dedicatedTo: index > 5 && index % 7 == 0 ? "chain" : nil))
        }
        var clinics: [RebalanceFleet.Clinic] = []
        for index in 0..<clinicCount {
            let shard = Int.random(in: 0..<shardCount, using: &random)
            let roll = Int.random(in: 0..<100, using: &random)
            let load = load(upTo: 400 * Double(shardCount) / Double(clinicCount))
            let isFree = shards[shard].dedicatedTo == nil
            clinics.append(
                RebalanceFleet.Clinic(
                    id: RandomFleet.clinic(index), shard: shard, load: load, bytes: load[.disk],
                    weight: .random(in: 1...3, using: &random),
                    pin: roll < 3 && isFree ? shard : nil,
                    group: roll >= 90 ? roll - 90 : nil,
                    region: roll == 50 ? "north" : nil,
                    dedicatedTo: isFree || roll < 5 ? nil : "chain",
                    isResting: roll >= 60 && roll < 70, isFixed: roll == 71))
        }
        return RebalanceFleet(shards: shards, clinics: clinics)
    }
}
