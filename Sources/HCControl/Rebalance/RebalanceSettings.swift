import HCCore

/// What operators say about rebalancing: `tenants/rebalance.json` (`admin/rebalancing.md` has every member).
package struct RebalanceSettings: Sendable, Equatable {
    package struct Shard: Sendable, Equatable {
        package var capacity: LoadVector?
        package var region: String?
        package var dedicatedTo: String?
    }

    package struct Clinic: Sendable, Equatable {
        package var pin: String?
        package var group: String?
        package var region: String?
        package var dedicatedTo: String?
    }

    package var rules = RebalanceRules()
    /// Of a shard for which nothing else is said.
    package var capacity = LoadVector()
    /// By id.
    package var shards: [String: Shard] = [:]
    /// By slug.
    package var clinics: [String: Clinic] = [:]

    package static let bytesMax = 4 << 20

    package init() {}

    /// - Throws: `RebalanceFormatError` with every problem, one a line.
    package init(_ text: [UInt8]) throws(RebalanceFormatError) {
        let json: JSONValue
        do {
            json = try JSONReader.parse(text)
        } catch {
            throw RebalanceFormatError("it is no JSON: \(error)")
        }
        var reader = Reader()
        reader.expect(json, "the file", ["rules", "capacity", "shards", "clinics"])
        reader.rules(json["rules"], &rules)
        capacity = reader.vector(json["capacity"], "capacity") ?? capacity
        for (id, value) in reader.members(json["shards"], "shards") {
            let place = "shards.\(id)"
            reader.expect(value, place, ["capacity", "region", "dedicatedTo"])
            shards[id] = Shard(
                capacity: reader.vector(value["capacity"], "\(place).capacity"),
                region: reader.name(value["region"], "\(place).region"),
                dedicatedTo: reader.name(value["dedicatedTo"], "\(place).dedicatedTo"))
        }
        for (slug, value) in reader.members(json["clinics"], "clinics") {
            let place = "clinics.\(slug)"
            reader.expect(value, place, ["pin", "group", "region", "dedicatedTo"])
            clinics[slug] = Clinic(
                pin: reader.name(value["pin"], "\(place).pin"),
                group: reader.name(value["group"], "\(place).group"),
                region: reader.name(value["region"], "\(place).region"),
                dedicatedTo: reader.name(value["dedicatedTo"], "\(place).dedicatedTo"))
        }
        let problems = reader.problems + rules.problems
        guard problems.isEmpty else {
            throw RebalanceFormatError(problems.prefix(50).joined(separator: "\n"))
        }
    }

    private struct Reader {
        var problems: [String] = []

        mutating func members(_ json: JSONValue?, _ place: String) -> [(String, JSONValue)] {
            guard let json else { return [] }
            guard let object = json.asObject else {
                problems.append("\(place) is \(json.kind), not an object")
                return []
            }
            return object.members.map { ($0.name, $0.value) }
        }

        mutating func expect(_ json: JSONValue, _ place: String, _ known: [String]) {
            for (name, _) in members(json, place) where !known.contains(name) {
                problems.append("\(place) has '\(name)', which means nothing")
            }
        }

        mutating func vector(_ json: JSONValue?, _ place: String) -> LoadVector? {
            guard let json else { return nil }
            do {
                return try LoadVector(json: json, what: place)
            } catch {
                problems.append(error.description)
                return nil
            }
        }

        mutating func name(_ json: JSONValue?, _ place: String) -> String? {
            guard let json, !json.isNull else { return nil }
            guard let text = json.asString, (1...100).contains(text.utf8.count) else {
                problems.append("\(place) is no text of 1 to 100 bytes")
                return nil
            }
            return text
        }

        mutating func number(_ json: JSONValue?, _ place: String, _ take: (Double) -> Void) {
            guard let json else { return }
            guard let number = json.asDouble, number.isFinite else {
                problems.append("\(place) is \(json.kind), not a number")
                return
            }
            take(number)
        }

        mutating func rules(_ json: JSONValue?, _ rules: inout RebalanceRules) {
            guard let json else { return }
            expect(
                json, "rules",
                [
                    "movesMax", "tolerance", "floor", "fillMax", "moveCost", "copyCost",
                    "peakShare", "cooldownDays", "baseBytes",
                ])
            number(json["movesMax"], "rules.movesMax") { rules.movesMax = Int(min($0, 1e9)) }
            number(json["tolerance"], "rules.tolerance") { rules.tolerance = $0 }
            number(json["floor"], "rules.floor") { rules.floor = $0 }
            number(json["fillMax"], "rules.fillMax") { rules.fillMax = $0 }
            number(json["moveCost"], "rules.moveCost") { rules.moveCost = $0 }
            number(json["copyCost"], "rules.copyCost") { rules.copyCost = $0 }
            number(json["peakShare"], "rules.peakShare") { rules.peakShare = $0 }
            number(json["baseBytes"], "rules.baseBytes") { rules.baseBytes = $0 }
            number(json["cooldownDays"], "rules.cooldownDays") {
                rules.cooldown = .seconds(Int64(max(-1, min($0, 1e6)) * 86_400))
            }
        }
    }
}
