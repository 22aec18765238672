package import HCCore

/// Works through the moves of a plan: so many at once, so many at a shard, and no further after so many failures. Pure:
/// what it returns is to be done, what happened is to be told.
///
///     next() -> begin -> begun | refused
///                 … -> ended
///     drifted: nothing more is begun; what is under way ends
package struct RebalanceApplication: Sendable {
    package struct Limits: Sendable, Equatable {
        /// Moves under way at once.
        package var atOnce = 2
        /// Of these, at one shard, coming or going.
        package var perShard = 1
        /// Failures that are borne; one more, and no further move is begun.
        package var failuresMax = 0

        package init() {}
    }

    package enum Outcome: Sendable, Equatable {
        /// Not begun.
        case waiting
        case underWay(UUID)
        case there
        /// It was at its target before.
        case wasThere
        case failed(String)
    }

    package enum Action: Sendable, Equatable {
        /// Begin the move with this index.
        case begin(Int)
        /// Something is under way, and nothing can be begun beside it.
        case wait
        /// Nothing is under way and nothing will be begun.
        case finish
    }

    package let moves: [RebalancePlanFile.Move]
    package private(set) var outcomes: [Outcome]
    /// Why nothing more is begun, in words; nil while more is.
    package private(set) var stopped: String?
    private let limits: Limits

    package init(_ moves: [RebalancePlanFile.Move], limits: Limits) {
        self.moves = moves
        self.limits = limits
        outcomes = moves.map { _ in .waiting }
    }

    package var failures: Int {
        outcomes.count {
            if case .failed = $0 { true } else { false }
        }
    }

    /// Index and id of what is under way.
    package var underWay: [(index: Int, id: UUID)] {
        outcomes.enumerated().compactMap { index, outcome in
            if case .underWay(let id) = outcome { (index, id) } else { nil }
        }
    }

    /// In the order of the plan, but for moves whose shards are busy, and that nothing earlier leans on: who leaves a
    /// shard may count on somebody having come before, and who comes on somebody having left. Such a move waits for the
    /// other one, and is not made if that failed. What leaves the same shard, or comes to the same, gains no less for
    /// being earlier; so whatever is made of a plan makes the whole better.
    package func next() -> Action {
        let running = underWay.map(\.index)
        let rest: Action = running.isEmpty ? .finish : .wait
        guard stopped == nil, running.count < limits.atOnce else { return rest }
        var busy: [String: Int] = [:]
        for index in running {
            busy[moves[index].source, default: 0] += 1
            busy[moves[index].target, default: 0] += 1
        }
        var (unrelieved, unfilled): (Set<String>, Set<String>) = ([], [])
        for (index, outcome) in outcomes.enumerated() {
            if outcome == .there || outcome == .wasThere { continue }
            let move = moves[index]
            if outcome == .waiting, !unfilled.contains(move.source),
                !unrelieved.contains(move.target),
                busy[move.source, default: 0] < limits.perShard,
                busy[move.target, default: 0] < limits.perShard
            {
                return .begin(index)
            }
            unrelieved.insert(move.source)
            unfilled.insert(move.target)
        }
        return rest
    }

    package mutating func begun(_ index: Int, _ id: UUID) {
        outcomes[index] = .underWay(id)
    }

    package mutating func wasThere(_ index: Int) {
        outcomes[index] = .wasThere
    }

    package mutating func ended(_ index: Int) {
        outcomes[index] = .there
    }

    package mutating func failed(_ index: Int, _ reason: String) {
        outcomes[index] = .failed(reason)
        if failures > limits.failuresMax {
            stopped =
                stopped
                ?? "\(failures) of the moves failed, and \(limits.failuresMax) were to be borne"
        }
    }

    /// The directory is not any more what the plan was made for.
    package mutating func drifted(_ reason: String) {
        stopped = stopped ?? reason
    }
}
