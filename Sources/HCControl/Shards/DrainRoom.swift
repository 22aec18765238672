/// How many moves of a drain may be under way at once, by what the servers have to spare. Pure.
///
/// A move that finds no slot while it copies is undone, so a move is begun only where there is one for each of its
/// workers. Those of a soak stay taken until it is over.
package struct DrainRoom: Sendable, Equatable {
    /// What one server has to spare, as if no move of the drain were under way.
    package struct Spare: Sendable, Equatable {
        package var slots: Int
        package var senders: Int
        package var workers: Int
        /// `max_sync_workers_per_subscription`.
        package var copiers: Int

        package init(slots: Int, senders: Int, workers: Int, copiers: Int) {
            self.slots = slots
            self.senders = senders
            self.workers = workers
            self.copiers = copiers
        }
    }

    package var origin: Spare
    package var targets: [String: Spare]

    package init(origin: Spare, targets: [String: Spare]) {
        self.origin = origin
        self.targets = targets
    }

    /// Moves at once from the origin: each has a slot and a sender to be followed by, one of each for every copier,
    /// and a worker that follows its way back.
    package var fromOrigin: Int {
        let streams = 1 + (targets.values.map(\.copiers).max() ?? 1)
        return max(0, min(origin.slots / streams, origin.senders / streams, origin.workers))
    }

    /// Moves at once to a target: each has a slot and a sender for the way back, a worker that follows and one that
    /// copies at least; further copiers wait for theirs.
    package func to(_ target: String) -> Int {
        guard let spare = targets[target] else { return 0 }
        return max(0, min(spare.slots, spare.senders, spare.workers / 2))
    }
}
