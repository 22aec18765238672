/// Which clinics should leave a shard so that it is used no more than it should be, with the least copied. Pure.
struct RebalanceRelief {
    private struct Candidate {
        var clinic: Int
        /// Share of the capacity.
        var use: SIMD8<Double>
        var cost: Double
        var worth: Double
    }

    /// What has to go: share of the capacity above the level.
    private let excess: SIMD8<Double>
    /// Those that relieve at all, the most relief for its cost first.
    private let candidates: [Candidate]

    /// Clinics that are weighed against each other: of a shard with many more, those with most relief for their cost.
    /// Bounds the time that a move takes to find.
    private static let candidatesMax = 256

    /// - Parameter clinics: those of the shard that may leave it.
    init(
        of shard: Int, by clinics: [Int], at places: RebalancePlaces, _ rules: RebalanceRules
    ) {
        let (inverse, level) = (places.inverses[shard], places.levels[places.pools[shard]])
        let excess = (places.use(of: shard) - level).replacing(
            with: 0, where: places.use(of: shard) .<= level)
        var best: [Candidate] = []
        var worthMin = 0.0
        func trim(to count: Int) {
            best.sort { ($1.worth, $0.clinic) < ($0.worth, $1.clinic) }
            guard best.count > count else { return }
            best.removeLast(best.count - count)
            worthMin = best[count - 1].worth
        }
        for index in clinics {
            let clinic = places.fleet.clinics[index]
            let (use, cost) = (clinic.load.lanes * inverse, rules.cost(of: clinic, disk: inverse))
            let worth = pointwiseMin(use, excess).sum() / cost
            guard worth > worthMin else { continue }
            best.append(Candidate(clinic: index, use: use, cost: cost, worth: worth))
            if best.count == 2 * RebalanceRelief.candidatesMax {
                trim(to: RebalanceRelief.candidatesMax)
            }
        }
        trim(to: RebalanceRelief.candidatesMax)
        self.excess = excess
        candidates = best
    }

    /// Those that relieve at all, the most relief for its cost first.
    func ranked(first count: Int) -> [Int] { candidates.prefix(count).map(\.clinic) }

    /// A set that is enough, or all that helps: greedy by relief of what is left to relieve for its cost, and then
    /// without those that turn out not to be needed, the costliest first.
    func cover() -> [Int] {
        var (rest, left, chosen) = (excess, candidates, [Candidate]())
        while rest.max() > 0 {
            var best: (place: Int, worth: Double)?
            for (place, candidate) in left.enumerated() {
                let worth = pointwiseMin(candidate.use, rest).sum() / candidate.cost
                if worth > best?.worth ?? 0 { best = (place, worth) }
            }
            guard let best else { return chosen.map(\.clinic) }
            chosen.append(left.remove(at: best.place))
            let use = chosen[chosen.count - 1].use
            rest = (rest - use).replacing(with: 0, where: rest .<= use)
        }
        var taken = chosen.reduce(SIMD8<Double>.zero) { $0 + $1.use }
        for candidate in chosen.sorted(by: { ($1.cost, $0.clinic) < ($0.cost, $1.clinic) })
        where all(taken - candidate.use .>= excess) {
            taken -= candidate.use
            chosen.removeAll { $0.clinic == candidate.clinic }
        }
        return chosen.map(\.clinic)
    }
}
