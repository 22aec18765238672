package import HCIO
import HCPostgres
package import HCTenancy

/// Adds up the connections that the whole fleet may hold, and asks each server what it takes.
@LoopActor
package struct FleetInspection {
    /// Clinics of one tier on one shard.
    struct Use: Sendable, Equatable {
        var shard: String
        var tier: String
        var tenants: Int
    }

    package struct Result: Sendable {
        package var budget: FleetBudget
        /// Servers that could not be asked, and why: their limits are not compared.
        package var notes: [String]
    }

    /// What a process holds to the control database: the one that follows the directory.
    private static let controlPerProcess = 1
    /// What a command holds to a shard: as its owner, as the application and as the mover.
    private static let perCommand = 3

    let plane: ControlPlane

    package init(plane: ControlPlane) {
        self.plane = plane
    }

    package func inspect() async throws -> Result {
        let configuration = plane.configuration
        var notes: [String] = []
        func server(
            _ name: String, _ connect: @LoopActor () async throws -> PostgresConnection
        ) async -> (FleetBudget.Server, databaseLimit: Int?)? {
            do {
                return try await facts(of: connect(), named: name)
            } catch {
                notes.append("\(name) could not be asked what it takes: \(error)")
                return nil
            }
        }
        var databases: [FleetBudget.Database] = []
        let control = await server("control") { try await plane.control() }
        databases.append(
            FleetBudget.Database(
                name: "control", perProcess: FleetInspection.controlPerProcess,
                perCommand: FleetInspection.perCommand, limit: control?.databaseLimit,
                server: control?.0))
        let dedicated = try await FleetInspection.dedicated(uses(), tiers())
        for shard in try await ShardRegistry(plane: plane).list(isInUse: true) {
            let known = await server(shard.id) {
                try await plane.shard(reference: shard.reference, .app)
            }
            databases.append(
                FleetBudget.Database(
                    name: shard.id, perProcess: configuration.pools.shardConnectionsMax,
                    dedicated: dedicated[shard.id] ?? 0, perCommand: FleetInspection.perCommand,
                    limit: min(shard.connectionLimit, known?.databaseLimit ?? .max),
                    server: known?.0))
        }
        for replica in try await ReplicaRegistry(plane: plane).list()
        where replica.state == "open" {
            let name = "\(replica.shard)/\(replica.name)"
            var known = await server(name) {
                try await plane.shard(reference: replica.reference, .app)
            }
            // It has its primary's system identifier, and connections of its own.
            if let identity = known?.0.identity { known?.0.identity = "\(identity)/\(name)" }
            databases.append(
                FleetBudget.Database(
                    name: name,
                    // One more asks how far it is.
                    perProcess: configuration.replicas.connectionsMax + 1, perCommand: 1,
                    limit: min(replica.connectionLimit, known?.databaseLimit ?? .max),
                    server: known?.0))
        }
        return Result(
            budget: FleetBudget(
                fleet: FleetInspection.fleet(configuration),
                reserve: configuration.pools.shardReserve, databases: databases), notes: notes)
    }

    /// What runs, as the configuration says it or, by default, as this machine would run it.
    package nonisolated static func fleet(_ configuration: PlatformConfiguration)
        -> FleetBudget.Fleet
    {
        FleetBudget.Fleet(
            pods: configuration.fleet.pods,
            workersPerPod: configuration.fleet.workersPerPod ?? max(1, CPUQuota.cores() - 1),
            jobsPerPod: configuration.fleet.jobsPerPod, commands: configuration.fleet.commands)
    }

    /// - Throws: `ControlError` (`connections-exceeded`) if a shard's own limit does not hold what the clinics would
    ///   have for themselves after a change, beside what all share, and did before. Without asking the servers: a
    ///   tier is not refused because a shard is down.
    func requireRoom(
        before: [Tier], after: [Tier], moving: (shard: String, from: String, to: String)? = nil
    ) async throws {
        let uses = try await uses()
        let present = FleetInspection.dedicated(uses, before)
        let wanted = FleetInspection.dedicated(FleetInspection.moved(uses, moving), after)
        guard wanted.contains(where: { $0.value > present[$0.key] ?? 0 }) else { return }
        let configuration = plane.configuration
        let shards = try await ShardRegistry(plane: plane).list().filter {
            (wanted[$0.id] ?? 0) > (present[$0.id] ?? 0)
        }
        let budget = FleetBudget(
            fleet: FleetInspection.fleet(configuration), reserve: configuration.pools.shardReserve,
            databases: shards.map {
                FleetBudget.Database(
                    name: $0.id, perProcess: configuration.pools.shardConnectionsMax,
                    dedicated: wanted[$0.id] ?? 0, perCommand: FleetInspection.perCommand,
                    limit: $0.connectionLimit, server: nil)
            })
        guard budget.problems.isEmpty else {
            throw ControlError(
                .refused, code: "connections-exceeded",
                "the dedicated connections do not fit: " + budget.problems.joined(separator: "; "),
                remedy: "See 'hc-admin config check'. Nothing was changed.")
        }
    }

    nonisolated static func moved(
        _ uses: [Use], _ moving: (shard: String, from: String, to: String)?
    ) -> [Use] {
        guard let moving else { return uses }
        return uses + [
            Use(shard: moving.shard, tier: moving.from, tenants: -1),
            Use(shard: moving.shard, tier: moving.to, tenants: 1),
        ]
    }

    /// Dedicated connections of one process, by shard.
    nonisolated static func dedicated(_ uses: [Use], _ tiers: [Tier]) -> [String: Int] {
        let each = Dictionary(
            tiers.map { ($0.name, $0.definition?.pool.dedicatedConnections ?? 0) },
            uniquingKeysWith: { first, _ in first })
        return uses.reduce(into: [:]) { sums, use in
            sums[use.shard, default: 0] += use.tenants * (each[use.tier] ?? 0)
        }
    }

    private func tiers() async throws -> [Tier] { try await TierRegistry(plane: plane).list() }

    private func uses() async throws -> [Use] {
        try await plane.attempt("the clinics cannot be counted") {
            try await plane.control().execute(
                [
                    Query(
                        """
                        SELECT shard_id, tier, count(*)::int4
                        FROM placement
                        JOIN tenant ON tenant.id = placement.tenant_id
                        WHERE placement.state <> 'closed' AND tier IS NOT NULL
                        GROUP BY shard_id, tier
                        """)
                ], deadline: plane.deadline)[0].rows.map { row in
                    Use(shard: try row.text(0), tier: try row.text(1), tenants: try row.int(2))
                }
        }
    }

    private func facts(
        of connection: PostgresConnection, named name: String
    ) async throws -> (FleetBudget.Server, databaseLimit: Int?) {
        try await plane.attempt("\(name) does not say what it takes") {
            let row = try await connection.execute(
                [
                    Query(
                        """
                        SELECT current_setting('max_connections')::int4,
                            current_setting('superuser_reserved_connections')::int4
                                + coalesce(current_setting('reserved_connections', true), '0')::int4,
                            datconnlimit::int4, (SELECT system_identifier::text FROM pg_control_system())
                        FROM pg_database WHERE datname = current_database()
                        """)
                ], deadline: plane.deadline)[0].single()
            let limit = try row.int(2)
            return (
                FleetBudget.Server(
                    identity: try row.text(3), connectionsMax: try row.int(0),
                    reserved: try row.int(1)), limit < 0 ? nil : limit
            )
        }
    }
}
