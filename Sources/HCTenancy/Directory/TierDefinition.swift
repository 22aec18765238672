package import HCCore

/// What a clinic of a tier may use. Written in `tenants/tiers.json`, kept in the control database, and seen
/// by every process within a second of a change.
package struct TierDefinition: Hashable, Sendable {
    package var name: String
    /// Share of a shard's capacity that one clinic of the tier counts for. From 1.
    package var weight: Int
    /// Units that a clinic gains per second: a read costs 1, a search 10, a write 20, an export 500.
    package var unitsPerSecond: Int
    /// Units that a clinic can have saved up: the largest burst. At least the cost of one export.
    package var burstUnits: Int
    /// Requests of one clinic that a process keeps waiting while the clinic is handed to another shard.
    package var parkedRequestsMax: Int
    /// Transactions of one clinic that a process runs at once; more wait their turn.
    package var transactionsMax: Int

    package static let unitsMax = 1_000_000

    package init(
        name: String, weight: Int = 1, unitsPerSecond: Int, burstUnits: Int,
        parkedRequestsMax: Int = 64, transactionsMax: Int = 32
    ) {
        self.name = name
        self.weight = weight
        self.unitsPerSecond = unitsPerSecond
        self.burstUnits = burstUnits
        self.parkedRequestsMax = parkedRequestsMax
        self.transactionsMax = transactionsMax
    }

    /// As in the file and in the control database.
    package var json: JSONValue {
        [
            "name": .string(name),
            "weight": .integer(Int64(weight)),
            "unitsPerSecond": .integer(Int64(unitsPerSecond)),
            "burstUnits": .integer(Int64(burstUnits)),
            "parkedRequestsMax": .integer(Int64(parkedRequestsMax)),
            "transactionsMax": .integer(Int64(transactionsMax)),
        ]
    }
}

/// Everything that is wrong with a file of tiers, each with the place where it is.
package struct TierFileError: Error, Equatable, Sendable, CustomStringConvertible {
    package let problems: [String]

    package var description: String { problems.joined(separator: "\n") }
}

extension TierDefinition {
    /// Reads `{"tiers":[{"name":…,"unitsPerSecond":…,"burstUnits":…},…]}`.
    ///
    /// - Throws: `TierFileError` with every problem of the file.
    package static func parseFile(_ bytes: [UInt8]) throws(TierFileError) -> [TierDefinition] {
        let value: JSONValue
        do {
            value = try JSONReader.parse(bytes)
        } catch {
            throw TierFileError(problems: ["the file is no JSON: \(error)"])
        }
        guard let file = value.asObject, let entries = file["tiers"]?.asArray else {
            throw TierFileError(problems: [#"the file is not of the form {"tiers":[…]}"#])
        }
        var problems = file.names.filter { $0 != "tiers" }.map { "\($0): is not known" }
        if entries.isEmpty { problems.append("tiers: lists none") }
        var tiers: [TierDefinition] = []
        for (index, entry) in entries.enumerated() {
            var reader = TierReader(path: "tiers[\(index)]", value: entry)
            if let tier = reader.read() {
                if tiers.contains(where: { $0.name == tier.name }) {
                    reader.problems.append("tiers[\(index)].name: '\(tier.name)' is there twice")
                }
                tiers.append(tier)
            }
            problems += reader.problems
        }
        guard problems.isEmpty else { throw TierFileError(problems: problems) }
        return tiers
    }

    /// Reads one definition, as in the control database.
    ///
    /// - Throws: `TierFileError` with every problem.
    package init(json: JSONValue) throws(TierFileError) {
        var reader = TierReader(path: "tier", value: json)
        guard let tier = reader.read(), reader.problems.isEmpty else {
            throw TierFileError(problems: reader.problems)
        }
        self = tier
    }
}

/// Collects the problems of one definition.
private struct TierReader {
    let path: String
    let value: JSONValue
    var problems: [String] = []

    init(path: String, value: JSONValue) {
        self.path = path
        self.value = value
    }

    /// - Returns: nil when the definition has a problem, which is then in `problems`.
    mutating func read() -> TierDefinition? {
        guard let object = value.asObject else {
            problems.append("\(path): is \(value.kind), not an object")
            return nil
        }
        let known = [
            "name", "weight", "unitsPerSecond", "burstUnits", "parkedRequestsMax",
            "transactionsMax",
        ]
        for name in object.names where !known.contains(name) {
            problems.append("\(path).\(name): is not known")
        }
        let name = object["name"]?.asString ?? ""
        if !TierReader.isName(name) {
            problems.append("\(path).name: must be 1 to 31 of a-z, 0-9 and '-', a letter first")
        }
        let tier = TierDefinition(
            name: name,
            weight: integer(object, "weight", in: 1...1000, default: 1),
            unitsPerSecond: integer(object, "unitsPerSecond", in: 1...TierDefinition.unitsMax),
            // A burst below the cost of one request would refuse that request for ever.
            burstUnits: integer(
                object, "burstUnits", in: RequestCost.largest...TierDefinition.unitsMax),
            parkedRequestsMax: integer(object, "parkedRequestsMax", in: 1...10_000, default: 64),
            transactionsMax: integer(object, "transactionsMax", in: 1...1000, default: 32))
        return problems.isEmpty ? tier : nil
    }

    private mutating func integer(
        _ object: JSONObject, _ name: String, in range: ClosedRange<Int>, default value: Int? = nil
    ) -> Int {
        if object[name] == nil, let value { return value }
        guard let number = object[name]?.asInteger, let number = Int(exactly: number),
            range.contains(number)
        else {
            problems.append(
                "\(path).\(name): must be an integer from \(range.lowerBound) to \(range.upperBound)"
            )
            return range.lowerBound
        }
        return number
    }

    /// The rule of the `tier` table.
    private static func isName(_ text: String) -> Bool {
        let bytes = Array(text.utf8)
        guard (1...31).contains(bytes.count), (0x61...0x7A).contains(bytes[0]) else { return false }
        return bytes.allSatisfy {
            (0x61...0x7A).contains($0) || (0x30...0x39).contains($0) || $0 == UInt8(ascii: "-")
        }
    }
}
