/// What a process knows of a streaming replica of a shard. Its identity is that of the shard: a physical copy has the
/// same system identifier, timeline and database.
package struct ReplicaRecord: Hashable, Sendable {
    package enum State: String, Sendable {
        /// Read from while it is fresh.
        case open
        /// Not read from.
        case closed
    }

    /// Unique in its shard.
    package let name: String
    /// Names the file `<secrets>/shards/<reference>.app.conninfo`.
    package let reference: String
    package let state: State
    /// Share of the reads, relative to the shard's other replicas. From 1.
    package let weight: Int

    package init(name: String, reference: String, state: State = .open, weight: Int = 100) {
        precondition(weight > 0, "a replica of no weight is a closed one")
        self.name = name
        self.reference = reference
        self.state = state
        self.weight = weight
    }
}
