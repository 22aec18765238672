import HCCore
import HCIO
import HCPostgres
import HCTenancy

/// What there is to do, as the control database has it.
extension ShardDrain {
    /// - Throws: `ControlError` for everything that can be known before anything is changed.
    package func preview() async throws -> Preview {
        let registry = ShardRegistry(plane: plane)
        let shards = try await registry.list()
        guard let shard = shards.first(where: { $0.id == id }) else {
            throw ShardRegistry.unknown(id)
        }
        try registry.requireNotRetired(shard)
        let targets = try targets(among: shards, for: shard)
        let room = try await census()
        guard options.parallel > 0 else {
            return Preview(
                shard: shard, plan: DrainPlan(steps: [], homeless: []), stuck: room.stuck,
                running: room.running.count)
        }
        let plan = DrainPlan.make(room.clinics, to: try await candidates(targets))
        guard plan.homeless.isEmpty else {
            let names = plan.homeless.prefix(5).map { "'\($0.slug)'" }.joined(separator: ", ")
            throw ControlError(
                .refused, code: "no-room",
                "there is no room for \(plan.homeless.count) of \(room.clinics.count) clinics of shard"
                    + " \(id) (\(names)\(plan.homeless.count > 5 ? ", …" : "")) on "
                    + targets.map { "\($0.id) (\($0.used) of \($0.capacity))" }.joined(
                        separator: ", "),
                remedy: "Add a shard with 'hc-admin shard add', or let more of them take clinics.")
        }
        try await MovePreflight(plane: plane).requireIdentities(of: [shard] + targets)
        return Preview(
            shard: shard, plan: plan, stuck: room.stuck, running: room.running.count)
    }

    func targets(among shards: [Shard], for shard: Shard) throws -> [Shard] {
        for name in options.targets {
            guard let target = shards.first(where: { $0.id == name }) else {
                throw ShardRegistry.unknown(name)
            }
            guard target.id != shard.id else {
                throw ControlError(
                    .invalid, code: "drain-to-itself", "shard \(id) cannot be drained to itself")
            }
            guard target.state == "open" else {
                throw ControlError(
                    .refused, code: "target-not-open", "shard \(name) is \(target.state)")
            }
            guard target.region == shard.region else {
                throw ControlError(
                    .refused, code: "other-region",
                    "shard \(name) is in region '\(target.region)', the clinics of \(id) are in"
                        + " '\(shard.region)'",
                    remedy: "Clinics do not leave their region: name shards of the same one.")
            }
        }
        let targets = shards.filter {
            $0.id != shard.id && $0.state == "open" && $0.region == shard.region
                && (options.targets.isEmpty ? $0.weight > 0 : options.targets.contains($0.id))
        }
        guard !targets.isEmpty else {
            throw ControlError(
                .refused, code: "no-target",
                shards.contains { $0.id != shard.id && $0.state == "open" }
                    ? "no other open shard of region '\(shard.region)' takes clinics"
                    : "shard \(id) is the last open one",
                remedy: "Add one first: hc-admin shard add ID")
        }
        return targets
    }

    func candidates(_ targets: [Shard]) async throws -> [PlacementPolicy.Candidate] {
        var coming: [String: Int] = [:]
        for target in targets { coming[target.id] = try await weightComing(to: target.id) }
        return targets.map {
            PlacementPolicy.Candidate(
                id: $0.id, isOpen: true,
                // As for new clinics; a shard that is named is filled whatever its weight.
                capacity: options.targets.isEmpty ? $0.capacity * $0.weight / 100 : $0.capacity,
                used: $0.used + (coming[$0.id] ?? 0), tenants: $0.tenants)
        }
    }

    /// Of clinics whose move there has not passed its commit point.
    private func weightComing(to shard: String) async throws -> Int {
        try await plane.attempt("the moves to shard \(shard) cannot be read") {
            try await plane.control().execute(
                Query(
                    """
                    SELECT coalesce(sum(coalesce((definition ->> 'weight')::int4, 1)), 0)::int4
                    FROM move
                    JOIN placement ON placement.tenant_id = move.tenant_id
                    JOIN tenant ON tenant.id = move.tenant_id
                    JOIN tier ON tier.name = tenant.tier
                    WHERE move.state = 'running' AND direction = 'forward' AND target_shard = $1
                        AND placement.shard_id <> $1
                    """, [.text(shard)]), deadline: plane.deadline
            ).single().int(0)
        }
    }

    struct Census {
        /// Clinics that can be moved.
        var clinics: [DrainPlan.Clinic] = []
        var stuck: [Remainder] = []
        /// Moves of the shard, either way, that are under way.
        var running: [Move] = []
        /// By clinic: moves that have brought it here and soak.
        var arrived: [TenantID: Move] = [:]
        var soaking: [Move] = []
    }

    func census() async throws -> Census {
        var census = Census()
        let open = try await MoveStore(plane: plane).list(
            shard: id, isOpen: true, limit: 100_000)
        for move in open {
            if move.state == .soaking, move.step == .soaking {
                census.soaking.append(move)
                if move.destination == id { census.arrived[move.tenant] = move }
            } else {
                census.running.append(move)
            }
        }
        let moving = Set(census.running.map(\.tenant))
        let rows = try await plane.attempt("the clinics of shard \(id) cannot be read") {
            try await plane.control().execute(
                Query(
                    """
                    SELECT tenant.id, slug, coalesce((definition ->> 'weight')::int4, 1), tenant.state,
                        placement.state
                    FROM placement JOIN tenant ON tenant.id = tenant_id JOIN tier ON tier.name = tenant.tier
                    WHERE shard_id = $1 ORDER BY slug
                    """, [.text(id)]), deadline: plane.deadline
            ).rows
        }
        for row in rows {
            let clinic = DrainPlan.Clinic(
                id: try row.id(0), slug: try row.text(1), weight: try row.int(2))
            let (state, placement) = (try row.text(3), try row.text(4))
            if moving.contains(clinic.id) { continue }
            if placement == "serving", ["active", "readonly", "suspended"].contains(state) {
                census.clinics.append(clinic)
            } else if state != "erased" {
                census.stuck.append(
                    Remainder(
                        slug: clinic.slug,
                        reason: state == "provisioning"
                            ? "it is being made; give its create command again"
                            : "it is \(state), its placement \(placement)"))
            }
        }
        return census
    }
}
