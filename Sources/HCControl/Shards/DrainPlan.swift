package import HCTenancy

/// Where each clinic of a shard goes that is to be empty. Pure: the same fleet gives the same plan.
///
/// Decided by the planner of the rebalancer, and by its rules: pins, groups, dedications, regions, how full a shard may
/// be. Large clinics choose first, or the small ones would leave room for none of them anywhere.
package struct DrainPlan: Sendable, Equatable {
    package struct Clinic: Sendable, Equatable {
        package var id: TenantID
        package var slug: String
        /// Of its tier.
        package var weight: Int
    }

    package struct Step: Sendable, Equatable {
        package var clinic: Clinic
        package var target: String
        package var cause: RebalancePlan.Cause
        /// Why there, in words.
        package var reason: String
        /// Clinics of its group: it is not to come to a shard where one of them is, or will be.
        package var apart: [TenantID] = []
    }

    package struct Homeless: Sendable, Equatable {
        package var clinic: Clinic
        /// Why it finds no place, in words.
        package var reason: String
    }

    package var steps: [Step] = []
    /// Clinics that no shard takes.
    package var homeless: [Homeless] = []
    /// Clinics that are pinned to the shard: they are not planned for.
    package var pinned: [Clinic] = []

    package init() {}

    /// - Parameters:
    ///   - clinics: those that are to leave; others of the shard stay.
    ///   - targets: shards that may take them, by id, each with the tier weight that it takes at most.
    ///   - ignoresPins: clinics that are pinned to the shard leave it as if they were not.
    package static func make(
        _ clinics: Set<TenantID>, of shard: String, _ view: RebalanceView, rules: RebalanceRules,
        to targets: [String: Int], ignoresPins: Bool
    ) -> DrainPlan {
        var plan = DrainPlan()
        var fleet = view.fleet
        guard let origin = fleet.shards.firstIndex(where: { $0.id == shard }) else { return plan }
        fleet.shards[origin].status = .draining
        var allowed: Set<Int> = []
        for index in fleet.shards.indices {
            guard let weightMax = targets[fleet.shards[index].id] else { continue }
            fleet.shards[index].weightMax = weightMax
            allowed.insert(index)
        }
        func clinic(_ index: Int) -> Clinic {
            Clinic(
                id: fleet.clinics[index].id, slug: view.slugs[index],
                weight: fleet.clinics[index].weight)
        }
        var leaving: [Int] = []
        for index in fleet.clinics.indices
        where fleet.clinics[index].shard == origin && clinics.contains(fleet.clinics[index].id) {
            if fleet.clinics[index].pin == origin {
                guard ignoresPins else {
                    plan.pinned.append(clinic(index))
                    continue
                }
                fleet.clinics[index].pin = nil
            }
            leaving.append(index)
        }
        leaving.sort { view.slugs[$0] < view.slugs[$1] }
        let moves = RebalancePlanner.evacuation(of: leaving, to: allowed, fleet, rules: rules)
        var reasons = DrainReasons(
            RebalancePlaces(fleet, rules), allowed, fillMax: rules.fillMax)
        let groups = fleet.groups()
        for move in moves.moves {
            let (id, group) = (fleet.clinics[move.clinic].id, fleet.clinics[move.clinic].group)
            plan.steps.append(
                Step(
                    clinic: clinic(move.clinic), target: fleet.shards[move.target].id,
                    cause: move.cause, reason: reasons.choice(of: move),
                    apart: (group.flatMap { groups[$0] } ?? []).filter { $0 != id }))
            reasons.places.move(move.clinic, to: move.target)
        }
        plan.homeless = moves.unplaced.map {
            Homeless(clinic: clinic($0.clinic), reason: reasons.refusals(of: $0.clinic))
        }
        return plan
    }
}

/// Says why a clinic goes where it goes, and why others do not take it.
private struct DrainReasons {
    var places: RebalancePlaces
    let targets: Set<Int>
    let fillMax: Double

    init(_ places: RebalancePlaces, _ targets: Set<Int>, fillMax: Double) {
        self.places = places
        self.targets = targets
        self.fillMax = fillMax
    }

    /// Before the move is made.
    func choice(of move: RebalancePlan.Move) -> String {
        if places.fleet.clinics[move.clinic].pin == move.target { return "it is pinned to it" }
        let pool = pool(of: move.clinic)
        let refused = pool.compactMap { text($0, move.clinic) }
        let willing = pool.count - refused.count
        let choice =
            pool.count == 1
            ? "no other is for it"
            : willing == 1 ? "no other takes it" : "the least used of \(willing) that take it"
        return ([choice] + refused).joined(separator: "; ")
    }

    func refusals(of index: Int) -> String {
        let clinic = places.fleet.clinics[index]
        if let pin = clinic.pin {
            let shard = places.fleet.shards[pin].id
            guard targets.contains(pin) else {
                return "it is pinned to \(shard), which takes no clinics now"
            }
            return "it is pinned to \(shard); "
                + (text(pin, index) ?? "it is there already")
        }
        let refused = pool(of: index).compactMap { text($0, index) }
        guard refused.isEmpty else { return refused.joined(separator: ", ") }
        let pool = places.fleet.pool(of: clinic)
        return "no other open shard is for region '\(pool.region)'"
            + (pool.dedicatedTo.map { ", dedicated to '\($0)'" } ?? "")
    }

    private func pool(of index: Int) -> [Int] {
        let pool = places.fleet.pool(of: places.fleet.clinics[index])
        return targets.filter { places.fleet.pool(of: places.fleet.shards[$0]) == pool }.sorted()
    }

    /// Nil if the shard takes it.
    private func text(_ shard: Int, _ index: Int) -> String? {
        guard let refusal = places.refusal(shard, index, fillMax: fillMax) else { return nil }
        let id = places.fleet.shards[shard].id
        return switch refusal {
        case .closed: "\(id) is not open"
        case .pin: "it is pinned elsewhere"
        case .weight:
            "\(id) has \(places.weights[shard]) of \(places.fleet.shards[shard].weightMax) in tier weight"
        case .group: "\(id) has another clinic of its group"
        case .full(let dimension):
            "\(id) would be above \(Int((fillMax * 100).rounded())) % in \(dimension.name)"
        }
    }
}
