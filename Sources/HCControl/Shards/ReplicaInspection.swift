package import HCCore
package import HCIO
import HCPostgres
import HCTenancy

/// What replicas are like now.
@LoopActor
package struct ReplicaInspection {
    /// One look at a replica beside its primary.
    package struct State: Sendable {
        package var replica: Replica
        /// Why it cannot be read from; nil: it can.
        package var problem: String?
        /// It is no copy of this shard at all, or takes writes: worse than being away.
        package var isWrong = false
        /// Bytes of the log that it had not replayed; nil: it, or the primary, cannot be asked.
        package var lagBytes: UInt64?

        package var json: JSONValue {
            var object = replica.json
            object.set(.bool(problem == nil), for: "usable")
            object.set(problem.map { .string($0) } ?? .null, for: "problem")
            object.set(lagBytes.map { .integer(Int64(clamping: $0)) } ?? .null, for: "lagBytes")
            return .object(object)
        }

        package var text: String {
            let share = "\(replica.state), weight \(replica.weight)"
            if let problem { return "\(share), not usable: \(problem)" }
            return "\(share), \(lagBytes.map { "\($0) bytes" } ?? "nobody knows how far") behind"
        }
    }

    let plane: ControlPlane

    package init(plane: ControlPlane) {
        self.plane = plane
    }

    func look(reference: String) async throws -> ReplicaSight {
        try await plane.attempt("replica \(reference) does not say who it is") {
            try await ReplicaSight.look(
                at: plane.shard(reference: reference, .app), deadline: plane.deadline)
        }
    }

    /// All replicas of a shard. What cannot be asked is a problem of that replica, not an error.
    package func states(of shard: Shard) async throws -> [State] {
        var states: [State] = []
        let replicas = try await ReplicaRegistry(plane: plane).list(of: shard.id)
        guard !replicas.isEmpty else { return [] }
        var identity: ShardIdentity?
        var end: LogPosition?
        do {
            identity = try await ShardInspection(plane: plane).identity(reference: shard.reference)
                .identity
            end = try await self.end(of: shard)
        } catch is ControlError {
            // The primary is away: what is left to say is whether its replicas are there.
        }
        for replica in replicas {
            states.append(await state(of: replica, identity: identity, end: end))
        }
        return states
    }

    private func state(
        of replica: Replica, identity: ShardIdentity?, end: LogPosition?
    ) async -> State {
        var state = State(replica: replica)
        do {
            let sight = try await look(reference: replica.reference)
            if let refusal = identity.flatMap({ sight.refusal(asReplicaOf: $0) }) {
                state.problem = refusal.rawValue
                state.isWrong = true
            } else if let end {
                state.lagBytes = end.bytes - min(end.bytes, sight.replayed.bytes)
            }
        } catch {
            state.problem = (error as? ControlError)?.message ?? "\(error)"
        }
        return state
    }

    /// Whether a replica gets to where its primary is now, within a time that a healthy one needs a fraction of.
    func catchesUp(_ replica: Replica, of shard: Shard, within patience: Duration) async throws
        -> Bool
    {
        let end = try await end(of: shard)
        let limit = Deadline.after(patience, from: plane.clocks.monotonic())
        while try await look(reference: replica.reference).replayed < end {
            if limit.isExpired(at: plane.clocks.monotonic()) { return false }
            try await Loop.shared.sleep(for: .milliseconds(20))
        }
        return true
    }

    private func end(of shard: Shard) async throws -> LogPosition {
        try await plane.attempt("shard \(shard.id) does not say where its log ends") {
            try await LogPosition.end(
                of: plane.shard(reference: shard.reference, .app), deadline: plane.deadline)
        }
    }
}
