package import HCCore
package import HCIO
import HCPostgres
import HCTenancy

/// What clinics may use, by tier: the file `tenants/tiers.json` is applied to the control database.
@LoopActor
package struct TierRegistry {
    package struct Tier: Sendable {
        package var name: String
        package var version: Int
        package var tenants: Int
        package var definition: JSONValue
    }

    package struct Change: Sendable, Equatable {
        package enum Kind: String, Sendable {
            case add
            case change
            case remove
        }

        package var kind: Kind
        package var tier: String
        /// `limit: old -> new`, one for each field that differs.
        package var fields: [String]
    }

    let plane: ControlPlane

    package init(plane: ControlPlane) {
        self.plane = plane
    }

    package func list() async throws -> [Tier] {
        try await plane.attempt("the tiers cannot be read") {
            let rows = try await plane.control().execute(
                [
                    Query(
                        """
                        SELECT name, version::int4, definition, (
                            SELECT count(*)::int4 FROM tenant
                            WHERE tenant.tier = tier.name AND tenant.state NOT IN ('deleted', 'erased'))
                        FROM tier ORDER BY name
                        """)
                ], deadline: plane.deadline)[0]
            return try rows.rows.map { row in
                Tier(
                    name: try row.text(0), version: try row.int(1), tenants: try row.int(3),
                    definition: try JSONReader.parse(try row.json(2)))
            }
        }
    }

    /// Reads and validates the file: every problem in it is named at once.
    package static func load(file: String) throws -> [(name: String, definition: JSONValue)] {
        let bytes: [UInt8]
        do {
            bytes = try Files.read(file, bytesMax: 1 << 20)
        } catch {
            throw ControlError(
                .invalid, code: "bad-tiers", "the tiers cannot be read",
                remedy: "Name the file with --file FILE.", cause: error)
        }
        do {
            return try TierDefinition.parseFile(bytes).map { ($0.name, $0.json) }
        } catch {
            throw ControlError(
                .invalid, code: "bad-tiers", "\(file) is not a file of tiers",
                remedy: "Mend it and try again; nothing was changed.", cause: error)
        }
    }

    /// What applying the file would change, in the order of its names.
    package func plan(_ wanted: [(name: String, definition: JSONValue)]) async throws -> [Change] {
        let present = try await list()
        var changes: [Change] = []
        for (name, definition) in wanted {
            guard let tier = present.first(where: { $0.name == name }) else {
                changes.append(Change(kind: .add, tier: name, fields: []))
                continue
            }
            let fields = TierRegistry.differences(from: tier.definition, to: definition)
            if !fields.isEmpty { changes.append(Change(kind: .change, tier: name, fields: fields)) }
        }
        for tier in present where !wanted.contains(where: { $0.name == tier.name }) {
            guard tier.tenants == 0 else {
                throw ControlError(
                    .refused, code: "tier-in-use",
                    "tier '\(tier.name)' is missing from the file but \(tier.tenants) clinics use it",
                    remedy: "Keep it in the file, or move those clinics to another tier first.")
            }
            changes.append(Change(kind: .remove, tier: tier.name, fields: []))
        }
        return changes
    }

    /// Applies the file in one transaction; every process follows within a second through the directory's feed.
    package func apply(
        _ wanted: [(name: String, definition: JSONValue)], dryRun: Bool
    ) async throws -> [Change] {
        let changes = try await plan(wanted)
        guard !dryRun, !changes.isEmpty else { return changes }
        var queries: [Query] = []
        for change in changes {
            if change.kind == .remove {
                queries.append(Query("DELETE FROM tier WHERE name = $1", [.text(change.tier)]))
            } else if let definition = wanted.first(where: { $0.name == change.tier })?.definition {
                queries.append(
                    Query(
                        """
                        INSERT INTO tier (name, definition) VALUES ($1, $2)
                        ON CONFLICT (name) DO UPDATE SET
                            definition = excluded.definition, version = tier.version + 1, updated_at = now()
                        """, [.text(change.tier), .json(definition.serialized)]))
            }
            queries.append(
                plane.audit(
                    "tier.\(change.kind.rawValue)", subject: change.tier,
                    detail: ["fields": .array(change.fields.map { .string($0) })]))
        }
        try await plane.attempt("the tiers cannot be applied") {
            _ = try await plane.control().execute(queries, deadline: plane.deadline)
        }
        return changes
    }

    /// What a clinic of the tier counts for in placement; 1 unless the tier says otherwise.
    nonisolated static func weight(of definition: JSONValue) -> Int {
        guard case .object(let fields) = definition, case .integer(let weight) = fields["weight"]
        else {
            return 1
        }
        return Int(weight)
    }

    /// `path: old -> new` for every leaf that differs.
    nonisolated static func differences(from old: JSONValue, to new: JSONValue, path: String = "")
        -> [String]
    {
        if case .object(let before) = old, case .object(let after) = new {
            let names = Set(before.names).union(after.names).sorted()
            return names.flatMap { name in
                differences(
                    from: before[name] ?? .null, to: after[name] ?? .null,
                    path: path.isEmpty ? name : "\(path).\(name)")
            }
        }
        guard old != new else { return [] }
        return [
            "\(path): \(String(decoding: old.serialized, as: UTF8.self))"
                + " -> \(String(decoding: new.serialized, as: UTF8.self))"
        ]
    }
}
