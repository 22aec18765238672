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
        let census = try await census()
        let (targets, plan) = try await plan(for: census, of: shard, among: shards)
        guard options.parallel > 0 else {
            return Preview(
                shard: shard, plan: DrainPlan(), stuck: census.stuck, running: census.running.count)
        }
        try requireFree(plan)
        try requireRoom(plan, census.clinics.count)
        try await MovePreflight(plane: plane).requireIdentities(of: [shard] + targets)
        return Preview(
            shard: shard, plan: plan, stuck: census.stuck, running: census.running.count)
    }

    /// An operator has said that they stay: they are asked before the first clinic goes.
    private func requireFree(_ plan: DrainPlan) throws {
        guard !plan.pinned.isEmpty else { return }
        let file = options.rulesFile ?? "the rules"
        throw ControlError(
            .refused, code: "pinned",
            "\(plan.pinned.count) clinics of shard \(id) are pinned to it in \(file): "
                + ShardRegistry.some(plan.pinned.map { "'\($0.slug)'" }),
            remedy:
                "Pin them to another shard there, or take the pin away; --ignore-pins moves them"
                + " nevertheless, and when the shard is open again 'rebalance plan' brings them back."
        )
    }

    private func requireRoom(_ plan: DrainPlan, _ count: Int) throws {
        guard !plan.homeless.isEmpty else { return }
        throw ControlError(
            .refused, code: "no-room",
            "there is no room for \(plan.homeless.count) of \(count) clinics of shard \(id): "
                + ShardRegistry.some(
                    plan.homeless.map { "'\($0.clinic.slug)' (\($0.reason))" }, "; "),
            remedy:
                "Add a shard with 'hc-admin shard add', let more of them take clinics, or change"
                + " \(options.rulesFile ?? "the rules").")
    }

    /// Where its clinics go: decided by the planner and the rules of the rebalancer.
    func plan(
        for census: Census, of shard: Shard, among shards: [Shard]
    ) async throws -> (targets: [Shard], plan: DrainPlan) {
        var view = try await RebalanceDesk(plane: plane).view(options.settings)
        let unseen = view.unseenWeight(of: shards)
        for move in try await MoveStore(plane: plane).list(isOpen: true, limit: 100_000)
        where move.state == .running && move.step.isBeforeCommit {
            view.expect(move.tenant, on: move.destination)
        }
        let clinics = Set(census.clinics.map(\.id))
        let targets = try targets(
            among: shards, for: shard, view.fleet, regions: view.fleet.regions(of: clinics, on: id))
        let plan = DrainPlan.make(
            clinics, of: id, view, rules: options.settings.rules,
            to: Dictionary(
                uniqueKeysWithValues: targets.map { target in
                    // As for new clinics; a shard that is named is filled whatever its weight.
                    let capacity =
                        options.targets.isEmpty
                        ? target.capacity * target.weight / 100 : target.capacity
                    return (target.id, capacity - (unseen[target.id] ?? 0))
                }), ignoresPins: options.ignoresPins)
        return (targets, plan)
    }

    /// - Parameter regions: those that its clinics may be in.
    private func targets(
        among shards: [Shard], for shard: Shard, _ fleet: RebalanceFleet, regions: Set<String>
    ) throws -> [Shard] {
        func region(_ id: String) -> String {
            fleet.shards.first { $0.id == id }?.region ?? ""
        }
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
            guard regions.contains(region(name)) else {
                throw ControlError(
                    .refused, code: "other-region",
                    "shard \(name) is in region '\(region(name))', the clinics of \(id) are in"
                        + " '\(regions.sorted().joined(separator: "', '"))'",
                    remedy: "Clinics do not leave their region: name shards of the same one.")
            }
        }
        let targets = shards.filter {
            $0.id != shard.id && $0.state == "open" && regions.contains(region($0.id))
                && (options.targets.isEmpty ? $0.weight > 0 : options.targets.contains($0.id))
        }
        guard !targets.isEmpty else {
            throw ControlError(
                .refused, code: "no-target",
                shards.contains { $0.id != shard.id && $0.state == "open" }
                    ? "no other open shard of region '\(region(id))' takes clinics"
                    : "shard \(id) is the last open one",
                remedy: "Add one first: hc-admin shard add ID")
        }
        return targets
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
