/// Which clinic is where while a plan is made, with the sums that a decision needs. Pure.
struct RebalancePlaces {
    private(set) var fleet: RebalanceFleet
    /// Of each shard, what its clinics use.
    private(set) var loads: [SIMD8<Double>]
    private(set) var weights: [Int]
    /// Of each shard, its clinics.
    private(set) var clinics: [[Int]]
    /// Of each shard, 1 / capacity.
    let inverses: [SIMD8<Double>]
    /// Of each shard, capacity / mean capacity of its pool.
    let shares: [SIMD8<Double>]
    /// Of each shard, its pool.
    let pools: [Int]
    /// Of each pool, its open shards.
    let members: [[Int]]
    let poolIndexes: [RebalanceFleet.Pool: Int]
    /// Of each pool, the use of its open shards if all that belongs there were there, and they were used alike.
    let means: [SIMD8<Double>]
    /// Of each pool, what its shards should be used at most (`RebalanceRules.level`).
    let levels: [SIMD8<Double>]
    /// Of each shard, the groups of its clinics, with their members there.
    private var groups: [[Int: [Int]]]

    init(_ fleet: RebalanceFleet, _ rules: RebalanceRules) {
        self.fleet = fleet
        let count = fleet.shards.count
        loads = Array(repeating: .zero, count: count)
        weights = Array(repeating: 0, count: count)
        clinics = Array(repeating: [], count: count)
        groups = Array(repeating: [:], count: count)
        var (pools, indexes): ([Int], [RebalanceFleet.Pool: Int]) = ([], [:])
        for shard in fleet.shards {
            let pool = fleet.pool(of: shard)
            let index = indexes[pool] ?? indexes.count
            indexes[pool] = index
            pools.append(index)
        }
        var totals = Array(repeating: SIMD8<Double>.zero, count: indexes.count)
        for (index, clinic) in fleet.clinics.enumerated() {
            totals[indexes[fleet.pool(of: clinic)] ?? pools[clinic.shard]] += clinic.load.lanes
            loads[clinic.shard] += clinic.load.lanes
            weights[clinic.shard] += clinic.weight
            clinics[clinic.shard].append(index)
            if let group = clinic.group { groups[clinic.shard][group, default: []].append(index) }
        }
        var capacities = Array(repeating: SIMD8<Double>.zero, count: indexes.count)
        var members = Array(repeating: [Int](), count: indexes.count)
        for (index, shard) in fleet.shards.enumerated() where shard.status == .open {
            capacities[pools[index]] += shard.capacity.lanes
            members[pools[index]].append(index)
        }
        inverses = fleet.shards.map(\.capacity.inverse)
        let meanInverses = capacities.indices.map {
            LoadVector(lanes: capacities[$0] / Double(max(1, members[$0].count))).inverse
        }
        shares = zip(fleet.shards, pools).map { $0.capacity.lanes * meanInverses[$1] }
        means = capacities.indices.map { totals[$0] * LoadVector(lanes: capacities[$0]).inverse }
        levels = means.map { rules.level(mean: $0) }
        self.pools = pools
        self.members = members
        poolIndexes = indexes
    }

    func use(of shard: Int) -> SIMD8<Double> { loads[shard] * inverses[shard] }

    /// See `RebalanceScore`.
    var potential: Double {
        loads.indices.reduce(0) { $0 + cost(of: $1, bearing: loads[$1]) }
    }

    private func cost(of shard: Int, bearing load: SIMD8<Double>) -> Double {
        let cost = RebalanceScore.cost(load * inverses[shard], level: levels[pools[shard]])
        return (shares[shard] * cost).sum()
    }

    /// What the potential falls by when a load leaves a shard.
    func relief(of shard: Int, without load: SIMD8<Double>) -> Double {
        cost(of: shard, bearing: loads[shard]) - cost(of: shard, bearing: loads[shard] - load)
    }

    /// What the potential grows by when a load comes to a shard.
    func burden(of shard: Int, with load: SIMD8<Double>) -> Double {
        cost(of: shard, bearing: loads[shard] + load) - cost(of: shard, bearing: loads[shard])
    }

    /// Why a clinic must not stay where it is; nil if it may.
    func violation(of index: Int) -> RebalancePlan.Cause? {
        let clinic = fleet.clinics[index]
        let shard = fleet.shards[clinic.shard]
        if let pin = clinic.pin, pin != clinic.shard { return .pin }
        if shard.status != .open { return .drain }
        if clinic.region != nil, clinic.region != shard.region { return .region }
        if clinic.dedicatedTo != shard.dedicatedTo { return .dedication }
        if let group = clinic.group, let members = groups[clinic.shard][group], members.count > 1,
            index != stayer(members)
        {
            return .group
        }
        return nil
    }

    /// Whether a clinic may be moved for balance: nothing keeps it, and it is on a shard of its own pool.
    func isMovable(_ index: Int) -> Bool {
        let clinic = fleet.clinics[index]
        return !clinic.isResting && !clinic.isFixed && clinic.pin == nil
            && fleet.pool(of: clinic) == fleet.pool(of: fleet.shards[clinic.shard])
    }

    /// The one of a group's clinics on a shard that the others have to leave: who cannot move, else who has most to
    /// copy.
    private func stayer(_ members: [Int]) -> Int? {
        members.max { left, right in
            let (one, other) = (fleet.clinics[left], fleet.clinics[right])
            let (stays, staysToo) = (
                one.isFixed || one.pin == one.shard, other.isFixed || other.pin == other.shard
            )
            if stays != staysToo { return staysToo }
            return one.bytes != other.bytes ? one.bytes < other.bytes : left > right
        }
    }

    /// Whether a shard takes a clinic, all rules together.
    func takes(_ shard: Int, _ index: Int, fillMax: Double) -> Bool {
        refusal(shard, index, fillMax: fillMax) == nil
    }

    /// Why a shard of a clinic's pool does not take it; nil if it does.
    func refusal(_ shard: Int, _ index: Int, fillMax: Double) -> RebalancePlan.Refusal? {
        let clinic = fleet.clinics[index]
        guard fleet.shards[shard].status == .open else { return .closed }
        guard clinic.pin == nil || clinic.pin == shard else { return .pin }
        guard weights[shard] + clinic.weight <= fleet.shards[shard].weightMax else {
            return .weight
        }
        if let group = clinic.group, groups[shard][group] != nil { return .group }
        let use = (loads[shard] + clinic.load.lanes) * inverses[shard]
        guard use.max() > fillMax else { return nil }
        let fullest = LoadDimension.allCases.max { use[$0.rawValue] < use[$1.rawValue] }
        return .full(fullest ?? .disk)
    }

    /// Of the tier weight that a shard takes, the share that is used when a clinic has come.
    func weightShare(of shard: Int, with index: Int) -> Double {
        Double(weights[shard] + fleet.clinics[index].weight)
            / Double(max(1, fleet.shards[shard].weightMax))
    }

    mutating func move(_ index: Int, to shard: Int) {
        let clinic = fleet.clinics[index]
        loads[clinic.shard] -= clinic.load.lanes
        weights[clinic.shard] -= clinic.weight
        clinics[clinic.shard].removeAll { $0 == index }
        loads[shard] += clinic.load.lanes
        weights[shard] += clinic.weight
        clinics[shard].append(index)
        if let group = clinic.group {
            groups[clinic.shard][group]?.removeAll { $0 == index }
            if groups[clinic.shard][group]?.isEmpty == true { groups[clinic.shard][group] = nil }
            groups[shard][group, default: []].append(index)
        }
        fleet.clinics[index].shard = shard
    }
}
