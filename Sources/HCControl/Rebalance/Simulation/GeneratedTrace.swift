import Glibc
import HCCore
import HCTenancy

/// Load as clinics make it: opening hours in time zones, quiet weekends, sizes by Zipf's law, some of them suddenly
/// hot, all growing. A seed says everything.
package struct GeneratedTrace: LoadTrace {
    package struct Shape: Sendable {
        package var shards = 1000
        package var clinics = 100_000
        package var weeks = 4
        package var seed: UInt64 = 1
        /// Size of the clinic of rank k: k to the power of minus this.
        package var zipf = 0.8
        /// The largest clinic's share of a shard, averaged over a week: what needs more gets a shard of its own.
        package var largest = 0.05
        /// Average use of the fleet, everything but disk.
        package var use = 0.25
        /// Use of its disks at the start.
        package var diskUse = 0.4
        /// No clinic uses more of a shard than this, however hot: its tier turns the rest away.
        package var tierShare = 0.3
        /// Clinics of a thousand that become hot in a week.
        package var hotPerThousand = 5.0

        package init() {}
    }

    private struct Clinic {
        var load: LoadVector
        var bytes: Double
        /// Hours that its day begins later than that of the first.
        var zone: Int
        var isOpenOnSaturdays: Bool
        /// Of its load and of its disk, each week.
        var growth: Double
    }

    private struct HotSpot {
        var clinic: Int
        var until: Int
        var factor: Double
    }

    package let shape: Shape
    package let fleet: RebalanceFleet
    private let clinics: [Clinic]
    private var hot: [HotSpot] = []
    private var random: SplitMix

    /// What a shard of the generated fleet can do.
    package static let capacity = LoadVector { dimension in
        switch dimension {
        case .execution: 8
        case .rows: 200_000
        case .wal: 20_000_000
        case .pool: 100
        case .disk: 500_000_000_000
        case .connections: 200
        }
    }

    package init(_ shape: Shape) {
        self.shape = shape
        var random = SplitMix(seed: shape.seed)
        let total = shape.use * Double(shape.shards)
        let ranks = (1...shape.clinics).map { 1 / pow(Double($0), shape.zipf) }
        let scale = total / ranks.reduce(0, +)
        let sizes = ranks.map { min(shape.largest, $0 * scale) }.shuffled(using: &random)
        var clinics: [Clinic] = []
        var placed: [RebalanceFleet.Clinic] = []
        for (index, size) in sizes.enumerated() {
            let load = LoadVector { dimension in
                // Some read more, some write more: a factor of 0.4 to 1.6 in each.
                size * GeneratedTrace.capacity[dimension]
                    * .random(in: 0.4...1.6, using: &random)
            }
            // Bytes follow the load loosely: old clinics are large and quiet, new ones small and hot.
            let bytes =
                size * shape.diskUse / shape.use * GeneratedTrace.capacity[.disk]
                * .random(in: 0.2...1.8, using: &random)
            clinics.append(
                Clinic(
                    load: load, bytes: bytes, zone: .random(in: 0...3, using: &random),
                    isOpenOnSaturdays: .random(in: 0..<4, using: &random) == 0,
                    growth: .random(in: -0.01...0.03, using: &random)))
            placed.append(
                RebalanceFleet.Clinic(
                    id: TenantID(UUID(high: shape.seed, low: UInt64(index))),
                    // As many on each shard: where clinics of one tier are placed when they are made.
                    shard: index % shape.shards, load: LoadVector(), bytes: bytes))
        }
        self.clinics = clinics
        self.random = random
        fleet = RebalanceFleet(
            shards: (1...shape.shards).map {
                RebalanceFleet.Shard(
                    id: "s\($0)", capacity: GeneratedTrace.capacity,
                    weightMax: 4 * shape.clinics / shape.shards + 16)
            }, clinics: placed)
    }

    package var seconds: Int { shape.weeks * LoadHistory.weekSeconds }

    package var assumptions: [String] {
        [
            "\(shape.clinics) clinics on \(shape.shards) equal shards, as many on each at the start; seed \(shape.seed)",
            "sizes by Zipf's law with exponent \(shape.zipf), none above \(shape.largest) of a shard",
            "average use of the shards \(shape.use), of their disks \(shape.diskUse)",
            "each clinic reads, writes and waits in proportions of its own, 0.4 to 1.6 in each dimension",
            "days of opening hours in 4 time zones; Saturdays for a quarter, Sundays for nobody",
            "growth of -1 % to 3 % a week; \(shape.hotPerThousand) clinics of 1000 a week are 3 to 8 times as busy for 6 to 72 hours",
            "tiers let no clinic use more than \(shape.tierShare) of a shard",
        ]
    }

    /// Share of the average of a week that an hour has: 10 hours of work with a dip at noon, and a night.
    static func activity(hour: Int, isWorkday: Bool) -> Double {
        guard isWorkday else { return 0.12 }
        switch hour {
        case 8..<12: return 2.9
        case 12..<14: return 2.0
        case 14..<18: return 2.6
        case 18..<20: return 1.0
        default: return 0.15
        }
    }

    package mutating func play(_ second: Int, step: Int, into loads: inout [LoadVector]) {
        kindle(second, step)
        let week = Double(second) / Double(LoadHistory.weekSeconds)
        var activities = Array(repeating: [0.0, 0.0], count: 4)
        for zone in 0..<4 {
            let hours = (second / 3600 - zone + 168) % 168
            let (day, hour) = (hours / 24, hours % 24)
            activities[zone] = [
                GeneratedTrace.activity(hour: hour, isWorkday: day < 5),
                GeneratedTrace.activity(hour: hour, isWorkday: day < 6),
            ]
        }
        for (index, clinic) in clinics.enumerated() {
            let grown = 1 + clinic.growth * week
            let activity = activities[clinic.zone][clinic.isOpenOnSaturdays ? 1 : 0]
            var load = clinic.load.lanes * (grown * activity)
            load[LoadDimension.disk.rawValue] = clinic.bytes * grown
            loads[index] = LoadVector(lanes: load)
        }
        for spot in hot {
            var load = loads[spot.clinic]
            let disk = load[.disk]
            load[.disk] = 0
            let use = (load.lanes * GeneratedTrace.capacity.inverse).max()
            guard use > 0 else { continue }
            load = load * max(1, min(spot.factor, shape.tierShare / use))
            load[.disk] = disk
            loads[spot.clinic] = load
        }
    }

    private mutating func kindle(_ second: Int, _ step: Int) {
        hot.removeAll { $0.until <= second }
        let expected =
            shape.hotPerThousand * Double(shape.clinics) / 1000 * Double(step)
            / Double(LoadHistory.weekSeconds)
        var count = Int(expected)
        if Double.random(in: 0..<1, using: &random) < expected - Double(count) { count += 1 }
        for _ in 0..<count {
            hot.append(
                HotSpot(
                    clinic: .random(in: 0..<shape.clinics, using: &random),
                    until: second + 3600 * .random(in: 6...72, using: &random),
                    factor: .random(in: 3...8, using: &random)))
        }
    }
}

/// SplitMix64 (Steele, Lea, Flood, "Fast splittable pseudorandom number generators", OOPSLA 2014). Not secret.
struct SplitMix: RandomNumberGenerator, Sendable {
    private var state: UInt64

    init(seed: UInt64) {
        state = seed
    }

    mutating func next() -> UInt64 {
        state &+= 0x9e37_79b9_7f4a_7c15
        var mixed = state
        mixed = (mixed ^ mixed >> 30) &* 0xbf58_476d_1ce4_e5b9
        mixed = (mixed ^ mixed >> 27) &* 0x94d0_49bb_1331_11eb
        return mixed ^ mixed >> 31
    }
}
