import HCTesting
import Testing

@testable import HCControl

@Suite("Shuffle sharding")
struct ShuffleShardingTests {
    private func names(_ count: Int) -> [String] { (1...count).map { "hc-server-\($0)" } }

    @Test("whoever knows the pods gets the same answer, in whatever order he knows them")
    func agreement() {
        var random = SeededRandom(seed: 1)
        let pods = names(20)
        let sharding = ShuffleSharding(pods: pods, width: 4)
        for number in 0..<200 {
            let host = "clinic-\(number).api.example.org"
            let chosen = sharding.pods(of: host)
            #expect(Set(chosen).count == 4)
            #expect(
                ShuffleSharding(pods: pods.shuffled(using: &random), width: 4).pods(of: host)
                    == chosen)
        }
        // Fixed for all time: another load balancer computes the same.
        #expect(ShuffleSharding.score(host: "a", pod: "b") == 0xeb38_c838_c62d_597e)
    }

    @Test(
        "a pod that goes is replaced where it was, and nothing else changes; what comes takes only its own"
    )
    func disruption() {
        let pods = names(20)
        let (all, fewer) = (
            ShuffleSharding(pods: pods, width: 4), ShuffleSharding(pods: pods.dropLast(), width: 4)
        )
        var moved = 0
        for number in 0..<2000 {
            let host = "clinic-\(number).example"
            let (before, after) = (all.pods(of: host), fewer.pods(of: host))
            if before.contains(pods[19]) {
                moved += 1
                #expect(Set(after).subtracting(before).count == 1)
                #expect(before.filter { $0 != pods[19] } == Array(after.prefix(3)))
            } else {
                #expect(before == after)
            }
        }
        // A fifth of them had it: 4 of 20.
        #expect((300...500).contains(moved))
    }

    @Test("the number of sets is exact where it is known")
    func combinations() {
        for (n, k, count) in [
            (5, 2, 10.0), (20, 4, 4845), (100, 4, 3_921_225), (200, 4, 64_684_950), (7, 0, 1),
            (7, 7, 1), (3, 4, 0), (52, 5, 2_598_960),
        ] {
            #expect(ShuffleSharding.combinations(n, k) == count, "\(n) \(k)")
        }
        for (n, k) in [(5, 2), (20, 4), (9, 8)] {
            let sum = (0...k).reduce(0.0) {
                $0 + ShuffleSharding.share(pods: n, width: k, shared: $1)
            }
            #expect(abs(sum - 1) < 1e-12)
        }
    }

    @Test(
        "what is computed is what hashing real names gives",
        arguments: [(5, 2), (8, 4), (12, 3), (20, 4)], [1, 2] as [UInt64])
    func simulation(fleet: (pods: Int, width: Int), seed: UInt64) {
        var random = SeededRandom(seed: seed)
        let sharding = ShuffleSharding(pods: names(fleet.pods), width: fleet.width)
        let clinics = 6000
        let sets = (0..<clinics).map { number in
            Set(
                sharding.pods(
                    of: "c\(UInt32.random(in: 0 ... .max, using: &random))-\(number).example"))
        }
        // Some clinics take their pods with them; count what that does to the others.
        var (full, partly, pairs) = (0, 0, 0)
        for killer in 0..<300 {
            for other in killer + 1..<clinics {
                pairs += 1
                let shared = sets[killer].intersection(sets[other]).count
                if shared == fleet.width { full += 1 }
                if shared > 0 { partly += 1 }
            }
        }
        let (wantedFull, wantedPartly) = (
            ShuffleSharding.fullyHit(pods: fleet.pods, width: fleet.width),
            ShuffleSharding.partlyHit(pods: fleet.pods, width: fleet.width)
        )
        // Pairs are not independent, the killers are: five deviations of as many draws as there are killers times sets.
        let share = Double(full) / Double(pairs)
        #expect(
            abs(share - wantedFull) < 5 * (wantedFull / Double(pairs)).squareRoot() + 0.02
                * wantedFull
                + 5 * wantedFull / 300.0.squareRoot(),
            "seed \(seed): \(share), computed \(wantedFull)")
        #expect(
            abs(Double(partly) / Double(pairs) - wantedPartly) < 0.02,
            "seed \(seed): \(Double(partly) / Double(pairs)), computed \(wantedPartly)")
        // The load of the pods, each clinic spread over its own.
        var loads: [String: Double] = [:]
        for set in sets { for pod in set { loads[pod, default: 0] += 1 / Double(fleet.width) } }
        let mean = Double(clinics) / Double(fleet.pods)
        let variance =
            loads.values.reduce(0) { $0 + ($1 - mean) * ($1 - mean) } / Double(fleet.pods)
        let wanted = ShuffleSharding.imbalance(
            pods: fleet.pods, width: fleet.width, clinics: clinics)
        #expect(loads.count == fleet.pods)
        #expect(
            variance.squareRoot() / mean < 2.5 * wanted,
            "seed \(seed): \(variance.squareRoot() / mean), computed \(wanted)")
    }

    @Test(
        "the hit rate is that of entries that live and die", arguments: [1, 8, 40],
        [1, 2, 3] as [UInt64])
    func hitRate(processes: Int, seed: UInt64) {
        var random = SeededRandom(seed: seed)
        let requests = 60.0
        var until = [Double](repeating: -1, count: processes)
        var (now, hits) = (0.0, 0)
        let count = 200_000
        for _ in 0..<count {
            // Requests come at random, `requests` of them in the life of an entry, which is 1.
            now -=
                Double.random(in: .leastNonzeroMagnitude..<1, using: &random).logarithm / requests
            let process = Int.random(in: 0..<processes, using: &random)
            if now < until[process] { hits += 1 } else { until[process] = now + 1 }
        }
        let share = Double(hits) / Double(count)
        let computed = ShuffleSharding.hitRate(requests: requests, processes: processes)
        #expect(abs(share - computed) < 0.01, "seed \(seed): \(share), computed \(computed)")
    }
}

@Suite("Capacity")
struct CapacityModelTests {
    @Test("the graded rows have the same load per pod, and none of them fits without a pooler")
    func graded() {
        for row in CapacityModel.graded {
            let model = CapacityModel(users: row.users, pods: row.pods)
            #expect(model.requestsPerPod == 500)
            #expect(model.users / model.pods == 5000)
            #expect(model.workerPercent == 2.5)
        }
        let small = CapacityModel(users: 25_000, pods: 5)
        #expect(small.fitsDirectly && small.connectionsPerShard == 120)
        let large = CapacityModel(users: 1_000_000, pods: 200)
        #expect(!large.fitsDirectly && large.connectionsPerProcessThatFit == 0)
        #expect(large.requestsPerSecond == 100_000)
    }

    @Test(
        "connections that are busy are those of a queue that is simulated",
        arguments: [1, 2] as [UInt64])
    func littlesLaw(seed: UInt64) {
        var random = SeededRandom(seed: seed)
        var model = CapacityModel(users: 100_000, pods: 20)
        model.shards = 1
        // Arrivals at the rate of the model; each holds a connection for an exponential time of the stated mean.
        let rate = model.requestsPerSecond * model.databasePercent / 100
        var (now, held, last) = (0.0, 0.0, 0.0)
        for _ in 0..<200_000 {
            now -= Double.random(in: .leastNonzeroMagnitude..<1, using: &random).logarithm / rate
            held -=
                Double.random(in: .leastNonzeroMagnitude..<1, using: &random).logarithm
                * model.transactionMilliseconds / 1000
            last = now
        }
        let busy = held / last
        #expect(
            abs(busy - model.busyPerShard) < 0.03 * model.busyPerShard,
            "seed \(seed): \(busy), computed \(model.busyPerShard)")
        #expect(model.pooledPerShard == 72)
    }

    @Test("commands to Redis are those of leases that are used up", arguments: [1, 2] as [UInt64])
    func redis(seed: UInt64) {
        var random = SeededRandom(seed: seed)
        let model = CapacityModel(users: 10_000, pods: 2)
        var (commands, left) = (0, 0)
        let requests = 500_000
        for _ in 0..<requests {
            if Double.random(in: 0..<100, using: &random) < model.exactPercent {
                commands += 1
                continue
            }
            if left == 0 {
                commands += 1
                left = model.leaseRequests
            }
            left -= 1
        }
        let share = Double(commands) / Double(requests)
        let computed = model.redisPerSecond / model.requestsPerSecond
        #expect(abs(share - computed) < 0.03 * computed, "seed \(seed): \(share), \(computed)")
    }
}

extension Double {
    /// ln, by the standard library alone: x = m 2^e, and ln m by its series of (m-1)/(m+1).
    fileprivate var logarithm: Double {
        let ratio = (significand - 1) / (significand + 1)
        var (term, sum) = (ratio, 0.0)
        for step in stride(from: 1, through: 61, by: 2) {
            sum += term / Double(step)
            term *= ratio * ratio
        }
        return 2 * sum + Double(exponent) * 0.693_147_180_559_945_3
    }
}
