import HCCore
package import HCIO
import HCPostgres
import HCTenancy

/// Looks at everything an operator would look at, and changes nothing.
@LoopActor
package struct Doctor {
    package struct Finding: Sendable {
        package enum Verdict: String, Sendable {
            case ok
            case warning
            case failed
        }

        package var check: String
        package var verdict: Verdict
        package var detail: String
    }

    let plane: ControlPlane
    let catalog: MigrationCatalog

    /// Clinics whose keys are opened; the newest ones.
    private static let keySampleMax = 50
    /// For a replica to get to where its primary was.
    private static let replicaPatience = Duration.seconds(3)

    package init(plane: ControlPlane, catalog: MigrationCatalog) {
        self.plane = plane
        self.catalog = catalog
    }

    /// Runs every check; one that cannot be made is a finding, not an error.
    package func examine() async -> [Finding] {
        var findings: [Finding] = []
        func check(
            _ name: String, _ body: @LoopActor () async throws -> [Finding]
        ) async {
            do {
                let found = try await body()
                findings += found.isEmpty ? [Finding(check: name, verdict: .ok, detail: "")] : found
            } catch {
                findings.append(Finding(check: name, verdict: .failed, detail: "\(error)"))
            }
        }
        await check("control database") { try await control() }
        await check("master key") { try await keys() }
        await check("redis") { try await redis() }
        let shards: [Shard]
        do {
            shards = try await ShardRegistry(plane: plane).list(isInUse: true)
        } catch {
            return findings
        }
        if shards.isEmpty {
            findings.append(
                Finding(check: "shards", verdict: .warning, detail: "there is no shard yet"))
        }
        for shard in shards {
            await check("shard \(shard.id)") { try await examine(shard) }
            await check("clinics of \(shard.id)") { try await placements(on: shard) }
            await check("replicas of \(shard.id)") { try await replicas(of: shard) }
            await check("moves of \(shard.id)") { try await leftovers(of: shard) }
        }
        await check("shards alike") { alike(shards) }
        await check("programs") { try await programs(shards) }
        await check("clinics being made") { try await unfinished() }
        return findings
    }

    func finding(
        _ check: String, _ verdict: Finding.Verdict, _ detail: String
    ) -> Finding {
        Finding(check: check, verdict: verdict, detail: detail)
    }

    private func control() async throws -> [Finding] {
        // Servers read the directory by this one.
        _ = try await plane.control(.router)
        let status = await MigrationRunner(plane: plane, catalog: catalog).controlStatus()
        switch status.state {
        case .current: return []
        case .pending:
            return [
                finding(
                    "control database", .failed,
                    "pending: \(status.pending.joined(separator: ", ")); run hc-admin migrate up")
            ]
        case .drift, .unreachable:
            return [finding("control database", .failed, status.problem ?? status.state.rawValue)]
        }
    }

    /// The master key opens the keys of the newest clinics: the wrong file would be noticed only by them.
    private func keys() async throws -> [Finding] {
        let tenants = try await TenantRegistry(plane: plane).list(limit: 100_000)
            .filter { $0.state == "active" }
            .sorted { $0.createdAt > $1.createdAt }
            .prefix(Doctor.keySampleMax)
        var findings: [Finding] = []
        for tenant in tenants {
            do {
                try await plane.proveKeys(of: tenant.id)
            } catch {
                findings.append(finding("master key", .failed, "keys of \(tenant.slug): \(error)"))
            }
        }
        return findings
    }

    /// Copies, revocations and what sessions have written are agreed on in Redis: it may lose all of that at once, which
    /// is noticed, and none of it alone, which is not.
    func redis() async throws -> [Finding] {
        do {
            switch try await plane.redisPolicy() {
            case "noeviction": return []
            case let policy?:
                return [
                    finding(
                        "redis", .failed,
                        "maxmemory-policy is \(policy): when Redis is full it forgets who has copies"
                            + " and which sessions are revoked, and nobody notices; run"
                            + " CONFIG SET maxmemory-policy noeviction, write the same into its"
                            + " configuration file, and restart the workers")
                ]
            case nil:
                return [
                    finding(
                        "redis", .warning,
                        "it refuses CONFIG GET and INFO, so what it does when it is full could not be"
                            + " checked: maxmemory-policy must be noeviction; look with redis-cli"
                            + " as its administrator, or at the settings of the service")
                ]
            }
        } catch {
            return [
                finding(
                    "redis", .warning,
                    "\(error): limits fall back to a local share, sessions are read from PostgreSQL"
                )
            ]
        }
    }

    private func examine(_ shard: Shard) async throws -> [Finding] {
        let name = "shard \(shard.id)"
        var findings: [Finding] = []
        let inspection = ShardInspection(plane: plane)
        // Servers work with this one.
        _ = try await plane.shard(reference: shard.reference, .app)
        let identity = try await inspection.identity(reference: shard.reference).identity
        if identity.systemIdentifier != shard.systemIdentifier {
            findings.append(
                finding(
                    name, .failed,
                    "its files lead to system \(identity.systemIdentifier), registered is"
                        + " \(shard.systemIdentifier)"))
        }
        if identity.timeline != shard.timeline {
            findings.append(
                finding(
                    name, .failed,
                    "it is on timeline \(identity.timeline), registered is \(shard.timeline):"
                        + " see hc-admin shard reconcile"))
        }
        for problem in try await inspection.problems(reference: shard.reference) {
            findings.append(finding(name, .failed, problem))
        }
        let statuses = try await MigrationRunner(plane: plane, catalog: catalog).shardStatus()
        guard let status = statuses.first(where: { $0.id == shard.id }) else { return findings }
        if status.state != .current {
            findings.append(
                finding(
                    name, .failed,
                    status.problem ?? "pending: \(status.pending.joined(separator: ", "))"))
        } else if status.fingerprint != shard.fingerprint {
            findings.append(
                finding(name, .failed, "its schema was changed outside of migrations"))
        }
        return findings
    }

    /// A replica that is away or late costs the primary its work; one of another cluster would cost clinics the truth.
    private func replicas(of shard: Shard) async throws -> [Finding] {
        let name = "replicas of \(shard.id)"
        let inspection = ReplicaInspection(plane: plane)
        var findings: [Finding] = []
        for state in try await inspection.states(of: shard) where state.replica.state == "open" {
            let replica = state.replica
            if let problem = state.problem {
                findings.append(
                    finding(name, state.isWrong ? .failed : .warning, "\(replica.name): \(problem)")
                )
            } else if try await !inspection.catchesUp(
                replica, of: shard, within: Doctor.replicaPatience)
            {
                findings.append(
                    finding(
                        name, .warning,
                        "\(replica.name) does not follow: \(state.lagBytes ?? 0) bytes behind; see"
                            + " deploy/runbooks/replica.md"))
            }
        }
        return findings
    }

    private func alike(_ shards: [Shard]) -> [Finding] {
        let newest = shards.filter { $0.schemaVersion == catalog.shard.count }
        guard Set(newest.map(\.fingerprint)).count > 1 else { return [] }
        return [
            finding(
                "shards alike", .failed,
                "shards of one schema version differ: "
                    + newest.map { "\($0.id) \($0.fingerprint.prefix(12))" }.joined(separator: ", ")
            )
        ]
    }

    /// Invariant I1: the shard of its placement serves a clinic at its epoch, and no other shard does.
    private func placements(on shard: Shard) async throws -> [Finding] {
        let name = "clinics of \(shard.id)"
        return try await plane.attempt("the clinics of shard \(shard.id) cannot be read") {
            let placed = try await plane.control().execute(
                [
                    Query(
                        """
                        SELECT tenant_id, epoch, slug FROM placement JOIN tenant ON tenant.id = tenant_id
                        WHERE shard_id = $1 AND placement.state IN ('serving', 'moving')
                        """, [.text(shard.id)])
                ], deadline: plane.deadline)[0]
            let served = try await plane.shard(reference: shard.reference, .mover).execute(
                [
                    Query(
                        """
                        SELECT tenant_id, epoch FROM hc_tenant
                        WHERE state NOT IN ('absent', 'incoming', 'moved')
                        """)
                ], deadline: plane.deadline)[0]
            var epochs: [UUID: Int64] = [:]
            for row in served.rows { epochs[try row.uuid(0)] = Int64(try row.int(1)) }
            var findings: [Finding] = []
            for row in placed.rows {
                let (tenant, epoch, slug) = (
                    try row.uuid(0), Int64(try row.int(1)), try row.text(2)
                )
                let here = epochs.removeValue(forKey: tenant)
                if here != epoch {
                    findings.append(
                        finding(
                            name, .failed,
                            "\(slug) is placed at epoch \(epoch), the shard has "
                                + (here.map { "epoch \($0)" } ?? "no such clinic")))
                }
            }
            for tenant in epochs.keys.sorted() {
                findings.append(
                    finding(name, .warning, "clinic \(tenant) is served here without a placement"))
            }
            return findings
        }
    }

    private func unfinished() async throws -> [Finding] {
        try await TenantRegistry(plane: plane).list(state: "provisioning", limit: 1000).map {
            finding(
                "clinics being made", .warning,
                "'\($0.slug)' was begun at \($0.createdAt.rfc3339); give its create command again")
        }
    }
}
