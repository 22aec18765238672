/// Moves in an order in which one may stop anywhere: each makes the whole better (`RebalanceScore`).
package struct RebalancePlan: Sendable, Equatable {
    package enum Cause: String, Sendable {
        case pin
        case drain
        case region
        case dedication
        case group
        case balance
    }

    /// Why a shard does not take a clinic.
    package enum Refusal: Sendable, Equatable {
        case closed
        /// It is pinned elsewhere.
        case pin
        /// The tier weights of its clinics are or would be above what it takes.
        case weight
        /// It has another clinic of the group.
        case group
        /// Nearer to its end than `RebalanceRules.fillMax`.
        case full(LoadDimension)
    }

    package struct Move: Sendable, Equatable {
        /// Index of the clinic.
        package var clinic: Int
        /// Indexes of shards.
        package var source: Int
        package var target: Int
        package var cause: Cause
        /// What the potential falls by. Below 0 only where a rule asks for the move.
        package var gain: Double
    }

    package var moves: [Move]
    /// Clinics that must not stay where they are, and that no shard takes.
    package var unplaced: [(clinic: Int, cause: Cause)]

    package static func == (left: RebalancePlan, right: RebalancePlan) -> Bool {
        left.moves == right.moves && left.unplaced.map(\.clinic) == right.unplaced.map(\.clinic)
    }

    /// The fleet after the first `count` moves.
    package func applied(to fleet: RebalanceFleet, first count: Int? = nil) -> RebalanceFleet {
        var fleet = fleet
        for move in moves.prefix(count ?? moves.count) {
            fleet.clinics[move.clinic].shard = move.target
        }
        return fleet
    }
}
