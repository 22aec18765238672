import HCCore

/// One plan of as many moves as it takes, for a fleet whose clinics were never moved, beside one by size alone and beside
/// what is possible.
package struct RebalanceComparison: Sendable {
    package struct Side: Sendable {
        package private(set) var use: RebalanceUse
        package private(set) var moves: Int
        package private(set) var bytes: Double
        package private(set) var took: Duration

        fileprivate init(_ plan: RebalancePlan, _ fleet: RebalanceFleet, took: Duration) {
            use = RebalanceUse(of: plan.applied(to: fleet))
            moves = plan.moves.count
            bytes = plan.moves.reduce(0) { $0 + fleet.clinics[$1.clinic].bytes }
            self.took = took
        }
    }

    package let before: RebalanceUse
    package let after: Side
    package let bySize: Side
    package let bound: RebalanceBound

    /// Of the bytes that a plan by size copies, the share that need not be copied.
    package var saving: Double { bySize.bytes > 0 ? 1 - after.bytes / bySize.bytes : 0 }

    init(_ fleet: RebalanceFleet, rules: RebalanceRules, now: () -> MonotonicTime) {
        var rules = rules
        rules.movesMax = RebalanceRules.movesMaxMost
        before = RebalanceUse(of: fleet)
        bound = RebalanceBound(of: fleet, rules: rules)
        let start = now()
        let plan = RebalancePlanner.plan(fleet, rules: rules)
        let middle = now()
        let sized = SizeGreedy.plan(fleet, rules: rules)
        bySize = Side(sized, fleet, took: now() - middle)
        after = Side(plan, fleet, took: middle - start)
    }
}
