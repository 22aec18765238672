/// The yardstick: a plan that counts bytes and nothing else, as Citus makes it by default.
///
/// Its strategy `by_disk_size` with its defaults, threshold 0.1 and improvement_threshold 0.5
/// (src/backend/distributed/operations/shard_rebalancer.c, "Rebalancing algorithm" of its README): from the fullest
/// shard the largest clinic goes to the emptiest one that it makes more even, as long as one of the two is a tenth
/// away from the mean. What must not stay moves as in any plan, and rules are obeyed.
struct SizeGreedy {
    private static let threshold = 0.1
    private static let improvementMin = 0.5

    private var places: RebalancePlaces
    private let rules: RebalanceRules
    private var moved: Set<Int>
    private var moves: [RebalancePlan.Move]

    static func plan(_ fleet: RebalanceFleet, rules: RebalanceRules) -> RebalancePlan {
        var sized = fleet
        for index in sized.shards.indices {
            let disk = sized.shards[index].capacity[.disk]
            sized.shards[index].capacity = LoadVector { $0 == .disk ? disk : 0 }
        }
        let repairs = RebalancePlanner.repairs(sized, rules: rules)
        var greedy = SizeGreedy(repairs, sized, rules)
        for pool in greedy.places.members.indices {
            while greedy.moves.count < rules.movesMax, greedy.step(in: pool) {}
        }
        return RebalancePlan(moves: greedy.moves, unplaced: repairs.unplaced)
    }

    private init(_ repairs: RebalancePlan, _ fleet: RebalanceFleet, _ rules: RebalanceRules) {
        places = RebalancePlaces(repairs.applied(to: fleet), rules)
        self.rules = rules
        moved = Set(repairs.moves.map(\.clinic))
        moves = repairs.moves
    }

    private func use(_ shard: Int) -> Double { places.use(of: shard)[LoadDimension.disk.rawValue] }

    private func use(of index: Int, on shard: Int) -> Double {
        (places.fleet.clinics[index].load.lanes * places.inverses[shard])[
            LoadDimension.disk.rawValue]
    }

    /// - Returns: whether there was anything to move.
    private mutating func step(in pool: Int) -> Bool {
        let mean = places.means[pool][LoadDimension.disk.rawValue]
        let (low, high) = (mean * (1 - SizeGreedy.threshold), mean * (1 + SizeGreedy.threshold))
        let order = places.members[pool].sorted { (use($0), $0) < (use($1), $1) }
        for source in order.reversed() {
            guard use(source) > low else { return false }
            let clinics = movable(on: source)
            for target in order {
                guard target != source, use(target) < high,
                    use(target) < low || use(source) > high
                else { break }
                for index in clinics where isBetter(index, from: source, to: target) {
                    let load = places.fleet.clinics[index].load.lanes
                    moves.append(
                        RebalancePlan.Move(
                            clinic: index, source: source, target: target, cause: .balance,
                            gain: places.relief(of: source, without: load)
                                - places.burden(of: target, with: load)))
                    places.move(index, to: target)
                    moved.insert(index)
                    return true
                }
            }
        }
        return false
    }

    /// The largest first.
    private func movable(on source: Int) -> [Int] {
        places.clinics[source].filter { places.isMovable($0) && !moved.contains($0) }
            .sorted { (use(of: $1, on: source), $0) < (use(of: $0, on: source), $1) }
    }

    private func isBetter(_ index: Int, from source: Int, to target: Int) -> Bool {
        let (left, come) = (use(of: index, on: source), use(of: index, on: target))
        guard come > 0, left > 0 else { return false }
        let (after, stays) = (use(target) + come, use(source) - left)
        if after > stays {
            let improvement = max(use(source) - after, stays - use(target))
            guard after <= use(source), improvement >= SizeGreedy.improvementMin * min(left, come)
            else { return false }
        }
        return places.takes(target, index, fillMax: rules.fillMax)
    }
}
