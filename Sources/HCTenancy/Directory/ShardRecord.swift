/// What a process knows of a shard: how to find its connection string, and how to know that it is the one.
package struct ShardRecord: Hashable, Sendable {
    package enum State: String, Sendable {
        case open
        case draining
        case closed
    }

    package let id: ShardID
    /// Names the files `<secrets>/shards/<reference>.<role>.conninfo`.
    package let reference: String
    package let state: State
    package let identity: ShardIdentity
    /// Most connections that all processes together may hold to it.
    package let connectionLimit: Int
    /// What was last seen of its schema; nil in a map from disk, which may be old.
    package let schema: SchemaState?
    /// Its streaming replicas, by name.
    package let replicas: [ReplicaRecord]

    package init(
        id: ShardID, reference: String, state: State, identity: ShardIdentity,
        connectionLimit: Int, schema: SchemaState? = nil,
        replicas: [ReplicaRecord] = []
    ) {
        self.id = id
        self.reference = reference
        self.state = state
        self.identity = identity
        self.connectionLimit = connectionLimit
        self.schema = schema
        self.replicas = replicas.sorted { $0.name < $1.name }
    }
}

/// Who a database is. A server that was restored, cloned or promoted answers under the same address and is
/// not the one whose fence the map speaks of (invariant I10 of the move protocol).
package struct ShardIdentity: Hashable, Sendable, CustomStringConvertible {
    /// PostgreSQL's system identifier: made by initdb, kept by every copy.
    package let systemIdentifier: String
    /// Grows with each promotion.
    package let timeline: Int
    package let databaseOID: Int64

    package init(systemIdentifier: String, timeline: Int, databaseOID: Int64) {
        self.systemIdentifier = systemIdentifier
        self.timeline = timeline
        self.databaseOID = databaseOID
    }

    package var description: String {
        "system \(systemIdentifier), timeline \(timeline), database \(databaseOID)"
    }
}
