package import HCCore
package import HCTenancy

/// A tier as the control database has it.
package struct Tier: Sendable, Equatable {
    package var name: String
    /// Counts changes.
    package var version: Int64
    /// Clinics that need it: all but the erased ones.
    package var tenants: Int
    /// As it was stored.
    package var stored: JSONValue

    package init(name: String, version: Int64, tenants: Int, stored: JSONValue) {
        self.name = name
        self.version = version
        self.tenants = tenants
        self.stored = stored
    }

    /// Nil if this program cannot read it.
    package var definition: TierDefinition? { try? TierDefinition(json: stored) }

    /// In the present form, also if an older program stored it.
    package var json: JSONValue { definition?.json ?? stored }
}

/// What applying a file of tiers would change, and what it was compared with: if that is not there any more when
/// it is applied, nothing is.
package struct TierPlan: Sendable {
    package struct Change: Sendable, Equatable {
        package enum Kind: String, Sendable {
            case add
            case change
            case remove
        }

        package var kind: Kind
        package var tier: String
        /// Clinics whose limits change.
        package var tenants: Int
        package var differences: [TierDifference]
        package var before: JSONValue?
        package var after: JSONValue?

        package var json: JSONValue {
            [
                "kind": .string(kind.rawValue), "tier": .string(tier),
                "tenants": .integer(Int64(tenants)),
                "fields": .array(differences.map { .string($0.description) }),
                "differences": .array(differences.map(\.json)),
            ]
        }
    }

    package let present: [Tier]
    /// In the order of the file, then what goes.
    package let changes: [Change]

    /// - Parameter removals: tiers that the operator names as those to go. A tier that is merely missing from the
    ///   file may have been forgotten.
    /// - Throws: `ControlError`: `refused` when a tier is missing that clinics use or that was not named, `notFound`
    ///   or `invalid` when a removal cannot be meant.
    package init(
        present: [Tier], wanted: [TierDefinition], removals: Set<String>
    ) throws(ControlError) {
        self.present = present
        for name in removals.sorted() {
            if wanted.contains(where: { $0.name == name }) {
                throw ControlError(
                    .invalid, code: "tier-wanted",
                    "tier '\(name)' is to be removed and is in the file",
                    remedy: "Take it out of the file, or leave out --remove \(name).")
            }
            if !present.contains(where: { $0.name == name }) {
                throw ControlError(
                    .notFound, code: "tier-unknown", "there is no tier '\(name)' to remove",
                    remedy: "See 'hc-admin tier list'.")
            }
        }
        let missing = present.filter { tier in !wanted.contains { $0.name == tier.name } }
        try TierPlan.refuseInUse(missing)
        if let forgotten = missing.first(where: { !removals.contains($0.name) }) {
            throw ControlError(
                .refused, code: "tier-missing",
                "tier '\(forgotten.name)' is missing from the file; no clinic uses it",
                remedy:
                    "Add it to the file, or say that it is to go with --remove \(forgotten.name).")
        }
        var changes: [Change] = []
        for definition in wanted {
            let json = definition.json
            guard let tier = present.first(where: { $0.name == definition.name }) else {
                changes.append(
                    Change(
                        kind: .add, tier: definition.name, tenants: 0, differences: [],
                        before: nil, after: json))
                continue
            }
            let differences = TierDifference.between(tier.json, json)
            if !differences.isEmpty {
                changes.append(
                    Change(
                        kind: .change, tier: tier.name, tenants: tier.tenants,
                        differences: differences, before: tier.stored, after: json))
            }
        }
        changes += missing.map {
            Change(
                kind: .remove, tier: $0.name, tenants: 0, differences: [], before: $0.stored,
                after: nil)
        }
        self.changes = changes
    }

    static func refuseInUse(_ tiers: [Tier]) throws(ControlError) {
        let used = tiers.filter { $0.tenants > 0 }
        guard !used.isEmpty else { return }
        let list = used.map { "'\($0.name)' (\($0.tenants) clinic\($0.tenants == 1 ? "" : "s"))" }
        throw ControlError(
            .refused, code: "tier-in-use",
            "tiers that clinics use cannot be removed: \(list.joined(separator: ", "))",
            remedy: "Keep them in the file, or give those clinics another tier first:"
                + " 'hc-admin tenant list --tier \(used[0].name)', then"
                + " 'hc-admin tenant set-tier SLUG TIER'. Deleted clinics count until they are erased."
        )
    }

    /// What is different now from what the plan was made with; nil if nothing is.
    func overtaken(by now: [Tier]) -> String? {
        for tier in present {
            guard let other = now.first(where: { $0.name == tier.name }) else { return tier.name }
            if other.version != tier.version || other.stored != tier.stored { return tier.name }
        }
        return now.first { tier in !present.contains { $0.name == tier.name } }?.name
    }
}
