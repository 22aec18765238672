package import HCCore
package import HCIO
import HCPostgres
import HCTenancy

/// The fleet as the control database has it at one moment, ready to be planned for.
package struct RebalanceView: Sendable {
    package var fleet: RebalanceFleet
    /// Of each clinic of the fleet.
    package var slugs: [String]
    package var epochs: [Int64]
    /// What each uses at present, averaged over an hour.
    package var loads: [LoadVector]
    /// Of the directory.
    package var mapVersion: Int64
    /// Clinics of whose load nothing is known.
    package var unsampled: Int
    /// When the shard was sampled whose sample is the oldest; nil if one never was.
    package var oldestSample: Timestamp?
}

/// Reads what a plan is made from.
@LoopActor
package struct RebalanceDesk {
    let plane: ControlPlane

    package init(plane: ControlPlane) {
        self.plane = plane
    }

    /// - Throws: `ControlError` (`bad-rebalance-settings`) naming every problem of the file.
    package static func settings(file: String) throws -> RebalanceSettings {
        do {
            return try RebalanceSettings(
                try Files.read(file, bytesMax: RebalanceSettings.bytesMax))
        } catch {
            throw ControlError(
                .invalid, code: "bad-rebalance-settings",
                "\(file) does not say how to rebalance",
                remedy: "admin/rebalancing.md has every member; name another file with --rules.",
                cause: error)
        }
    }

    /// Everything in one snapshot.
    ///
    /// - Throws: `ControlError` (`bad-rebalance-settings`) for settings that speak of shards and clinics that there are not.
    package func view(_ settings: RebalanceSettings) async throws -> RebalanceView {
        let results = try await plane.attempt("the load cannot be read") {
            try await plane.control().transaction(
                TransactionOptions(isolation: .repeatableRead, isReadOnly: true),
                deadline: plane.deadline
            ) { transaction in
                try await transaction.execute(final: RebalanceDesk.questions)
            }
        }
        var shards: [RebalanceFleet.Shard] = []
        var oldest: Timestamp?
        var isSampled = true
        for row in results[1].rows {
            shards.append(try RebalanceDesk.shard(row, settings))
            guard shards.last?.status != .closed else { continue }
            if let at = try row.timestampIfPresent(5) {
                oldest = min(oldest ?? at, at)
            } else {
                isSampled = false
            }
        }
        let indexes = Dictionary(
            uniqueKeysWithValues: shards.enumerated().map { ($0.element.id, $0.offset) })
        var view = RebalanceView(
            fleet: RebalanceFleet(shards: shards, clinics: []), slugs: [], epochs: [], loads: [],
            mapVersion: Int64(try results[0].single().int(0)), unsampled: 0,
            oldestSample: isSampled ? oldest : nil)
        var groups: [String: Int] = [:]
        for row in results[2].rows {
            try view.add(row, settings, indexes, &groups, now: plane.clocks.now())
        }
        try RebalanceDesk.check(settings, view, indexes)
        return view
    }

    private static let questions: [Query] = [
        Query("SELECT version FROM placement_version"),
        Query(
            """
            SELECT id, state, capacity, connection_limit, labels ->> 'region', sampled_at
            FROM shard LEFT JOIN shard_load ON shard_load.shard_id = shard.id
            ORDER BY id
            """),
        Query(
            """
            SELECT tenant.id, week, seen_seconds, loads, NULL::bytea, slug, placement.shard_id, epoch,
                placement.state, greatest(1, coalesce((definition ->> 'weight')::int4, 1)),
                CASE WHEN epoch > 1 THEN placement.changed_at END
            FROM tenant
            JOIN placement ON placement.tenant_id = tenant.id
            JOIN tier ON tier.name = tenant.tier
            LEFT JOIN tenant_load ON tenant_load.tenant_id = tenant.id
            WHERE placement.state IN ('serving', 'moving') AND tenant.state <> 'erased'
            ORDER BY tenant.id
            """),
    ]

    private static func shard(
        _ row: PostgresRow, _ settings: RebalanceSettings
    ) throws -> RebalanceFleet.Shard {
        let id = try row.text(0)
        let own = settings.shards[id]
        var capacity = own?.capacity ?? settings.capacity
        if capacity[.connections] == 0 { capacity[.connections] = Double(try row.int(3)) }
        return RebalanceFleet.Shard(
            id: id, status: .init(rawValue: try row.text(1)) ?? .closed, capacity: capacity,
            weightMax: try row.int(2), region: try own?.region ?? row.textIfPresent(4) ?? "",
            dedicatedTo: own?.dedicatedTo)
    }

    private static func check(
        _ settings: RebalanceSettings, _ view: RebalanceView, _ indexes: [String: Int]
    ) throws {
        let slugs = Set(view.slugs)
        var problems: [String] = []
        for id in settings.shards.keys.sorted() where indexes[id] == nil {
            problems.append("shards.\(id): there is no such shard")
        }
        for (slug, clinic) in settings.clinics.sorted(by: { $0.key < $1.key }) {
            if !slugs.contains(slug) {
                problems.append("clinics.\(slug): there is no such clinic")
            }
            if let pin = clinic.pin, indexes[pin] == nil {
                problems.append("clinics.\(slug).pin: there is no shard '\(pin)'")
            }
        }
        if problems.isEmpty { problems = view.fleet.problems }
        guard problems.isEmpty else {
            throw ControlError(
                .invalid, code: "bad-rebalance-settings",
                "what is asked cannot be planned for:\n"
                    + problems.prefix(50).joined(separator: "\n"))
        }
    }
}

extension RebalanceView {
    /// A move brings a clinic to a shard: it counts there from now on. Until it has passed its commit point none of its
    /// group comes to where it is, either: it may stay (`MoveStore.begin`).
    mutating func expect(_ tenant: TenantID, on shard: String) {
        guard let index = fleet.clinics.firstIndex(where: { $0.id == tenant }),
            let target = fleet.shards.firstIndex(where: { $0.id == shard })
        else { return }
        let clinic = fleet.clinics[index]
        fleet.clinics[index].shard = target
        guard clinic.group != nil, clinic.shard != target else { return }
        fleet.clinics.append(
            RebalanceFleet.Clinic(
                id: tenant, shard: clinic.shard, load: LoadVector(), bytes: 0, weight: 0,
                group: clinic.group, region: clinic.region, dedicatedTo: clinic.dedicatedTo,
                isResting: true, isFixed: true))
        slugs.append(slugs[index])
        epochs.append(epochs[index])
        loads.append(LoadVector())
    }

    /// Of each shard, the tier weight that is taken and that the view does not show: of clinics that are being made.
    func unseenWeight(of shards: [Shard]) -> [String: Int] {
        var seen: [String: Int] = [:]
        for clinic in fleet.clinics {
            seen[fleet.shards[clinic.shard].id, default: 0] += clinic.weight
        }
        return Dictionary(
            uniqueKeysWithValues: shards.map { ($0.id, max(0, $0.used - (seen[$0.id] ?? 0))) })
    }

    fileprivate mutating func add(
        _ row: PostgresRow, _ settings: RebalanceSettings, _ indexes: [String: Int],
        _ groups: inout [String: Int], now: Timestamp
    ) throws {
        // A shard that the snapshot does not have cannot be: the placement refers to it.
        guard let shard = indexes[try row.text(6)] else { return }
        let slug = try row.text(5)
        let own = settings.clinics[slug]
        let isSampled = try row.bytesIfPresent(3) != nil
        let history = try LoadSample.Kept(row).history
        let load = history.planned(settings.rules)
        loads.append(history.hour)
        if !isSampled { unsampled += 1 }
        let isMoving = try row.text(8) == "moving"
        let changedAt = try row.timestampIfPresent(10)
        let isResting = changedAt.map { now - $0 < settings.rules.cooldown } ?? false
        slugs.append(slug)
        epochs.append(Int64(try row.int(7)))
        fleet.clinics.append(
            RebalanceFleet.Clinic(
                id: try row.id(0), shard: shard, load: load, bytes: load[.disk],
                weight: try row.int(9), pin: own?.pin.flatMap { indexes[$0] },
                group: own?.group.map { name in
                    let index = groups[name] ?? groups.count
                    groups[name] = index
                    return index
                }, region: own?.region, dedicatedTo: own?.dedicatedTo,
                isResting: isResting || isMoving, isFixed: isMoving))
    }
}
