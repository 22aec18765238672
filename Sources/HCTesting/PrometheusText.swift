/// A page of metrics, read as strictly as Prometheus' own checker does (the text exposition format 0.0.4, and what
/// `promtool check metrics` says of names). The reading is a test's own, so that it does not share the writer's mistakes.
package struct PrometheusText {
    package struct Sample: Hashable, Sendable {
        package let name: String
        /// In the order of their names.
        package let labels: [String: String]
    }

    /// By family.
    package private(set) var kinds: [String: String] = [:]
    package private(set) var values: [Sample: Double] = [:]

    private var helps: Set<String> = []
    private var finished: Set<String> = []
    private var current = ""

    /// - Throws: `FixtureError` that names the line.
    package init(_ text: String) throws {
        guard text.isEmpty || text.hasSuffix("\n") else {
            throw FixtureError("the last line does not end")
        }
        for line in text.split(separator: "\n", omittingEmptySubsequences: false).dropLast() {
            do {
                try read(line)
            } catch let error as FixtureError {
                throw FixtureError("\(error): \(line)")
            }
        }
        try checkHistograms()
    }

    /// The values of a metric whose labels include those given.
    package func sum(_ name: String, _ labels: [String: String] = [:]) -> Double {
        values.reduce(0) { sum, entry in
            guard entry.key.name == name,
                labels.allSatisfy({ entry.key.labels[$0.key] == $0.value })
            else { return sum }
            return sum + entry.value
        }
    }

    private mutating func read(_ line: Substring) throws {
        guard line.hasPrefix("#") else { return try readSample(line) }
        let parts = line.split(separator: " ", maxSplits: 3, omittingEmptySubsequences: false)
        guard parts.count == 4, parts[0] == "#" else { throw FixtureError("no comment of ours") }
        let name = String(parts[2])
        guard PrometheusText.isName(name, colons: true) else { throw FixtureError("no name") }
        switch parts[1] {
        case "HELP":
            guard helps.insert(name).inserted else { throw FixtureError("HELP twice") }
            guard !parts[3].isEmpty else { throw FixtureError("HELP says nothing") }
        case "TYPE":
            guard kinds[name] == nil else { throw FixtureError("TYPE twice") }
            guard ["counter", "gauge", "histogram"].contains(parts[3]) else {
                throw FixtureError("an unknown type")
            }
            guard helps.contains(name) else { throw FixtureError("TYPE without HELP") }
            guard (parts[3] == "counter") == name.hasSuffix("_total") else {
                throw FixtureError("a counter ends in _total, and nothing else does")
            }
            kinds[name] = String(parts[3])
            finished.insert(current)
            current = name
        default: throw FixtureError("an unknown comment")
        }
    }

    private mutating func readSample(_ line: Substring) throws {
        let name = String(line.prefix { $0 != "{" && $0 != " " })
        guard PrometheusText.isName(name, colons: true) else { throw FixtureError("no name") }
        let family = family(of: name)
        guard family == current, !finished.contains(family) else {
            throw FixtureError("a sample outside its family")
        }
        var rest = line.dropFirst(name.count)
        let labels = try PrometheusText.readLabels(&rest)
        guard rest.first == " " else { throw FixtureError("no value") }
        let text = rest.dropFirst()
        let value: Double? = text == "+Inf" ? .infinity : text == "NaN" ? .nan : Double(text)
        guard let value else { throw FixtureError("no number") }
        guard kinds[family] == "gauge" || value >= 0 else { throw FixtureError("below zero") }
        guard values.updateValue(value, forKey: Sample(name: name, labels: labels)) == nil else {
            throw FixtureError("a series twice")
        }
    }

    private func family(of name: String) -> String {
        for suffix in ["_bucket", "_sum", "_count"] where name.hasSuffix(suffix) {
            let base = String(name.dropLast(suffix.count))
            if kinds[base] == "histogram" { return base }
        }
        return name
    }

    private static func readLabels(_ rest: inout Substring) throws -> [String: String] {
        var labels: [String: String] = [:]
        guard rest.first == "{" else { return labels }
        rest = rest.dropFirst()
        while rest.first != "}" {
            let name = String(rest.prefix { $0 != "=" })
            guard isName(name, colons: false), !name.hasPrefix("__") else {
                throw FixtureError("no label name")
            }
            rest = rest.dropFirst(name.count)
            guard rest.hasPrefix("=\"") else { throw FixtureError("a label without a value") }
            rest = rest.dropFirst(2)
            var value = ""
            while let character = rest.popFirst(), character != "\"" {
                guard character == "\\" else {
                    value.append(character)
                    continue
                }
                switch rest.popFirst() {
                case "n": value.append("\n")
                case "\\": value.append("\\")
                case "\"": value.append("\"")
                default: throw FixtureError("an unknown escape")
                }
            }
            guard labels.updateValue(value, forKey: name) == nil else {
                throw FixtureError("a label twice")
            }
            if rest.first == "," {
                rest = rest.dropFirst()
            } else if rest.first != "}" {
                throw FixtureError("labels that do not end")
            }
        }
        rest = rest.dropFirst()
        return labels
    }

    /// Buckets rise, the last is +Inf and equals the count.
    private func checkHistograms() throws {
        for (name, kind) in kinds where kind == "histogram" {
            var buckets: [[String: String]: [(bound: Double, count: Double)]] = [:]
            for (sample, value) in values where sample.name == name + "_bucket" {
                var labels = sample.labels
                guard let text = labels.removeValue(forKey: "le"),
                    let bound = text == "+Inf" ? .infinity : Double(text)
                else { throw FixtureError("\(name): a bucket without a bound") }
                buckets[labels, default: []].append((bound, value))
            }
            for (labels, unsorted) in buckets {
                let sorted = unsorted.sorted { $0.bound < $1.bound }
                guard sorted.map(\.count) == sorted.map(\.count).sorted() else {
                    throw FixtureError("\(name) \(labels): buckets are not cumulative")
                }
                guard let last = sorted.last, last.bound == .infinity,
                    values[Sample(name: name + "_count", labels: labels)] == last.count,
                    values[Sample(name: name + "_sum", labels: labels)] != nil
                else { throw FixtureError("\(name) \(labels): +Inf is not the count") }
            }
        }
        for name in kinds.keys where !helps.contains(name) {
            throw FixtureError("\(name) without HELP")
        }
    }

    private static func isName(_ text: String, colons: Bool) -> Bool {
        guard let first = text.utf8.first, !(0x30...0x39).contains(first) else { return false }
        return text.utf8.allSatisfy { byte in
            switch byte {
            case 0x30...0x39, 0x41...0x5A, 0x61...0x7A, 0x5F: true
            case 0x3A: colons
            default: false
            }
        }
    }
}
