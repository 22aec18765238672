import HCCore
import HCIO
import HCPostgres
import HCRedis

/// Reads that replicas may answer.
///
/// What such a read promises, wherever the clinic is and whoever moves it meanwhile:
///
/// - It holds every commit that is older than the bound of the lag. A replica that still admits a clinic to a place
///   that it has left has not replayed the hand-over; so its copy is older than the hand-over, which is younger than
///   the bound: nothing that was written at the new place can be older than that.
/// - It holds what its session has written, and what the token says that the client brought. Both name shard, timeline
///   and epoch: a reader whose map is older than its writer's does not go to a replica of the place that was left.
/// - A replica to which the clinic has not come yet refuses in `hc_enter()`, for the clinic's row there is the last
///   thing that a move writes. Its refusals are not believed: the primary is asked.
extension TenantDoor {
    /// - Parameters:
    ///   - survivesLoss: whether an answer can be given out without the primary.
    ///   - scope: nil: the primary answers.
    func read(
        _ tenant: TenantRecord, _ queries: [Query], from target: ReadTarget, survivesLoss: Bool,
        scope: ReadScope?, deadline: Deadline
    ) async throws -> [PostgresResult] {
        let place = directory.snapshot?.find(tenant.id) ?? tenant
        guard target != .primary, let scope, let replicas = shards.replicas(of: place.shard) else {
            return try await perform(
                tenant, .read, queries, isRepeatable: true, deadline: deadline)
        }
        // A copy has the schema of its primary, or is about to.
        try shards.schemas.requireServed(place.shard)
        let entrance = Entrance(
            place, tier(of: place, directory.snapshot), shards.schemas.range)
        if !target.prefersReplica {
            replicas.want()
        } else if replicas.isPromising() {
            let requirement = await requirement(of: scope, place, deadline: deadline)
            if let position = replicas.position(for: requirement, place) {
                let results = try await replicas.read(
                    entrance, queries, after: position.value, inOutage: false, deadline: deadline)
                if let results { return results }
            } else {
                replicas.fellBack(.unknown)
            }
        }
        do {
            return try await perform(
                tenant, .read, queries, isRepeatable: true, deadline: deadline)
        } catch let error as TenancyError {
            guard case .shardUnavailable = error, survivesLoss else { throw error }
            let requirement = await requirement(of: scope, place, deadline: deadline)
            guard let position = replicas.position(for: requirement, place),
                let results = try await replicas.read(
                    entrance, queries, after: position.value, inOutage: true, deadline: deadline)
            else { throw error }
            return results
        }
    }

    private func requirement(
        of scope: ReadScope, _ place: TenantRecord, deadline: Deadline
    ) async -> ReadRequirement {
        guard let session = scope.session else { return scope.requirement(with: .nothing) }
        return scope.requirement(with: await marked(session, of: place, deadline: deadline))
    }

    func readRequirement(of token: String, _ tenant: TenantRecord) -> ReadRequirement {
        guard let keys = try? keys(of: tenant) else { return .unknown }
        return ReadToken.read(token, keys: keys, tenant: tenant.id)
    }

    // MARK: What a session has written

    /// After this long every replica that is fresh has it.
    private var markLife: Duration { shards.lagMax * 2 + .seconds(5) }

    /// Where the clinic is, and where it was: another process may read there.
    func mark(
        _ session: SessionID, _ position: CommitPosition, of tenant: TenantRecord,
        deadline: Deadline
    ) async {
        guard let redis else { return }
        let limit = deadline.earlier(of: .after(.seconds(1), from: Loop.now))
        for prefix in redisPrefixes(of: tenant) {
            do {
                try await TenantRedis(redis, prefix: prefix).setAlways(
                    "read-after:\(session)", Array(position.text.utf8), expiresAfter: markLife,
                    deadline: limit)
            } catch {
                // What is committed is committed: the session's next reads may be late by the lag.
                shards.marksLost.increment()
            }
        }
    }

    private func marked(
        _ session: SessionID, of tenant: TenantRecord, deadline: Deadline
    ) async -> ReadRequirement {
        guard let redis else { return .unknown }
        do {
            let mark = try await TenantRedis(redis, prefix: tenant.redisPrefix).get(
                "read-after:\(session)", deadline: deadline)
            guard let mark else { return .nothing }
            return CommitPosition(text: mark).map { .position($0) } ?? .unknown
        } catch {
            return .unknown
        }
    }
}

extension ReplicaReader {
    func position(for requirement: ReadRequirement, _ place: TenantRecord) -> Position? {
        requirement.position(
            shard: shard.id, timeline: shard.identity.timeline, epoch: place.epoch)
    }
}
