package import HCCore

/// One limit that differs between two definitions.
package struct TierDifference: Sendable, Equatable, CustomStringConvertible {
    /// `pool.inFlightMax`, `rates[tenant].units`.
    package var path: String
    /// Null: it is not there.
    package var before: JSONValue
    package var after: JSONValue

    package var description: String { "\(path): \(shown(before)) -> \(shown(after))" }

    package var json: JSONValue {
        ["path": .string(path), "before": before, "after": after]
    }

    private func shown(_ value: JSONValue) -> String { value == .null ? "none" : value.text }

    /// Every leaf that differs. Lists of objects with names, as rules are, are compared by name: what was only
    /// moved within its list does not differ.
    package static func between(
        _ old: JSONValue, _ new: JSONValue, path: String = ""
    ) -> [TierDifference] {
        if let before = members(old), let after = members(new) {
            let isList = old.asArray != nil
            let names =
                before.map(\.name)
                + after.map(\.name).filter { name in
                    !before.contains { $0.name == name }
                }
            return names.flatMap { name in
                between(
                    before.first { $0.name == name }?.value ?? .null,
                    after.first { $0.name == name }?.value ?? .null,
                    path: isList ? "\(path)[\(name)]" : path.isEmpty ? name : "\(path).\(name)")
            }
        }
        return old == new ? [] : [TierDifference(path: path, before: old, after: new)]
    }

    /// The members of an object, or of a list in which each has a name of its own.
    private static func members(_ value: JSONValue) -> [(name: String, value: JSONValue)]? {
        if let object = value.asObject { return object.members.map { ($0.name, $0.value) } }
        guard let entries = value.asArray else { return nil }
        var named: [(name: String, value: JSONValue)] = []
        for entry in entries {
            guard let name = entry["name"]?.asString, !named.contains(where: { $0.name == name })
            else { return nil }
            named.append((name, entry))
        }
        return named.isEmpty ? nil : named
    }
}
