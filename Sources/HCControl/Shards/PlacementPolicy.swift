/// Chooses the shard for a new clinic: the open shard with most room.
///
/// Room is measured as the share of a shard's capacity that its clinics use, each clinic weighing what its
/// tier weighs; a shard's own weight scales its capacity. Ties go to the shard with fewer clinics, then to the
/// lower id, so that a choice can be foretold. Empty clinics count fully, or a hundred new clinics would all
/// land on one shard before any of them has data.
package struct PlacementPolicy: Sendable {
    package struct Candidate: Sendable, Equatable {
        package var id: String
        package var isOpen: Bool
        /// How many units of tier weight the shard is built for. Above 0.
        package var capacity: Int
        /// Sum of the tier weights of the clinics placed there.
        package var used: Int
        package var tenants: Int

        package init(id: String, isOpen: Bool, capacity: Int, used: Int, tenants: Int) {
            self.id = id
            self.isOpen = isOpen
            self.capacity = capacity
            self.used = used
            self.tenants = tenants
        }
    }

    /// - Parameter weight: what the new clinic's tier weighs.
    /// - Returns: nil when no open shard has room for it.
    package static func choose(from candidates: [Candidate], weight: Int) -> Candidate? {
        candidates
            .filter { $0.isOpen && $0.used + weight <= $0.capacity }
            .min { left, right in
                // used / capacity compared by cross multiplication: exact, and no division.
                let (one, other) = (
                    (left.used + weight) * right.capacity, (right.used + weight) * left.capacity
                )
                if one != other { return one < other }
                if left.tenants != right.tenants { return left.tenants < right.tenants }
                return left.id < right.id
            }
    }
}
