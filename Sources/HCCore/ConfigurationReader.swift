/// One thing that is wrong with a configuration, and what to do about it.
package struct ConfigurationProblem: Equatable, Sendable, CustomStringConvertible {
    /// `pools.shards.hard`, or the environment variable that was read instead: `HC_PORT`.
    package let path: String
    package let problem: String
    package let remedy: String

    package init(path: String, problem: String, remedy: String) {
        self.path = path
        self.problem = problem
        self.remedy = remedy
    }

    package var description: String { "\(path): \(problem): \(remedy)" }
}

/// Everything that is wrong with a configuration, so that it is mended in one go.
package struct ConfigurationError: Error, Equatable, Sendable, CustomStringConvertible {
    /// The file.
    package let source: String
    package let problems: [ConfigurationProblem]

    package init(source: String, problems: [ConfigurationProblem]) {
        self.source = source
        self.problems = problems
    }

    package var description: String {
        "\(source) cannot be used:\n" + problems.map { "  \($0)" }.joined(separator: "\n")
    }
}

/// Reads settings from a JSON object, with environment variables that win over it.
///
/// A getter never throws: it notes the problem and gives a value that fits, so that reading goes on and
/// every problem is found. `finish()` throws them all, together with the names nobody asked for. So the
/// values are good only after `finish()`. `null` counts as not set.
package struct ConfigurationReader {
    /// What all sections of one configuration share. Used by one task at a time, while a program starts.
    private final class Notes {
        let source: String
        let overrides: [String: (variable: String, value: String)]
        var problems: [ConfigurationProblem] = []
        var asked: [String: Set<String>] = [:]
        var sections: [(path: String, object: JSONObject)] = []

        init(source: String, overrides: [String: (variable: String, value: String)]) {
            self.source = source
            self.overrides = overrides
        }
    }

    private enum Setting {
        case file(JSONValue)
        case environment(variable: String, value: String)
    }

    private let notes: Notes
    private let object: JSONObject
    /// Empty for the outermost.
    package let path: String

    /// - Parameters:
    ///   - root: an object; anything else is a problem.
    ///   - source: the file's name, for messages.
    ///   - environment: the process's variables.
    ///   - overrides: which variable, if set and not empty, replaces which path: `("HC_PORT", "server.port")`.
    package init(
        _ root: JSONValue, source: String, environment: [String: String] = [:],
        overrides: [(variable: String, path: String)] = []
    ) {
        var values: [String: (variable: String, value: String)] = [:]
        for (variable, path) in overrides {
            if let value = environment[variable], !value.isEmpty {
                values[path] = (variable, value)
            }
        }
        notes = Notes(source: source, overrides: values)
        path = ""
        object = root.asObject ?? JSONObject()
        notes.sections.append(("", object))
        if root.asObject == nil {
            report("", "is \(root.kind)", "write an object: { … }")
        }
    }

    /// Reads the bytes of a file.
    ///
    /// - Throws: `ConfigurationError` with line and column if they are no JSON.
    package static func parse(
        _ bytes: [UInt8], source: String, environment: [String: String] = [:],
        overrides: [(variable: String, path: String)] = []
    ) throws(ConfigurationError) -> ConfigurationReader {
        do {
            let root = try JSONReader.parse(bytes, limits: JSONLimits(bytesMax: 1024 * 1024))
            return ConfigurationReader(
                root, source: source, environment: environment, overrides: overrides)
        } catch {
            let before = bytes.prefix(error.offset)
            let line = before.count { $0 == 0x0a } + 1
            let column = error.offset - (before.lastIndex(of: 0x0a).map { $0 + 1 } ?? 0) + 1
            throw ConfigurationError(
                source: source,
                problems: [
                    ConfigurationProblem(
                        path: "line \(line), column \(column)", problem: error.reason.rawValue,
                        remedy: "correct the JSON")
                ])
        }
    }

    private init(notes: Notes, object: JSONObject, path: String) {
        self.notes = notes
        self.object = object
        self.path = path
        notes.sections.append((path, object))
    }

    private func full(_ key: String) -> String {
        if path.isEmpty { return key }
        return key.isEmpty ? path : "\(path).\(key)"
    }

    private func find(_ key: String) -> Setting? {
        notes.asked[path, default: []].insert(key)
        if let (variable, value) = notes.overrides[full(key)] {
            return .environment(variable: variable, value: value)
        }
        guard let value = object[key], !value.isNull else { return nil }
        return .file(value)
    }

    // MARK: Problems

    /// Notes a problem that a getter cannot know: a path that is no directory, two values that disagree.
    package func report(_ key: String, _ problem: String, _ remedy: String) {
        let name = full(key)
        let shown = notes.overrides[name]?.variable ?? (name.isEmpty ? "the configuration" : name)
        notes.problems.append(
            ConfigurationProblem(path: shown, problem: problem, remedy: remedy))
    }

    /// - Throws: all problems in the order they were found, then the names nobody asked for.
    package func finish() throws(ConfigurationError) {
        var problems = notes.problems
        for (path, object) in notes.sections {
            let asked = notes.asked[path] ?? []
            for name in object.names where !asked.contains(name) {
                let known = asked.sorted().joined(separator: ", ")
                problems.append(
                    ConfigurationProblem(
                        path: path.isEmpty ? name : "\(path).\(name)", problem: "unknown key",
                        remedy: known.isEmpty ? "remove it" : "remove it or use one of: \(known)"))
            }
        }
        if !problems.isEmpty { throw ConfigurationError(source: notes.source, problems: problems) }
    }

    // MARK: Sections

    /// The object at `key`; one that is not there reads as empty, so that defaults and overrides apply.
    package func section(_ key: String) -> ConfigurationReader {
        optionalSection(key)
            ?? ConfigurationReader(notes: notes, object: JSONObject(), path: full(key))
    }

    /// The object at `key`, or nil if it is not there.
    package func optionalSection(_ key: String) -> ConfigurationReader? {
        guard case .file(let value)? = find(key) else { return nil }
        guard let object = value.asObject else {
            report(key, "is \(value.kind)", "write an object: { … }")
            return nil
        }
        return ConfigurationReader(notes: notes, object: object, path: full(key))
    }

    /// The objects of the array at `key`; none if it is not there.
    package func sections(_ key: String) -> [ConfigurationReader] {
        guard case .file(let value)? = find(key) else { return [] }
        guard let values = value.asArray else {
            report(key, "is \(value.kind)", "write an array of objects: [ { … } ]")
            return []
        }
        var readers: [ConfigurationReader] = []
        for (position, value) in values.enumerated() {
            let name = "\(key)[\(position)]"
            if let object = value.asObject {
                readers.append(
                    ConfigurationReader(notes: notes, object: object, path: full(name)))
            } else {
                report(name, "is \(value.kind)", "write an object: { … }")
            }
        }
        return readers
    }

    /// The objects of the object at `key` by their names, which are the writer's choice.
    package func namedSections(_ key: String) -> [(name: String, section: ConfigurationReader)] {
        guard let outer = optionalSection(key) else { return [] }
        return outer.object.names.compactMap { name in
            outer.optionalSection(name).map { (name, $0) }
        }
    }

    // MARK: Values

    /// - Parameter default: nil makes it required. Empty text counts as missing.
    package func string(_ key: String, default standard: String? = nil) -> String {
        if let value = optionalString(key) { return value }
        return standard ?? missing(key, "write a text", "")
    }

    package func optionalString(_ key: String) -> String? {
        switch find(key) {
        case nil: return nil
        case .environment(_, let value): return value
        case .file(.string(let value)) where !value.isEmpty: return value
        case .file(let value):
            wrong(key, value, "write a text that is not empty")
            return nil
        }
    }

    /// Texts: an array in the file, separated by commas in the environment.
    package func strings(_ key: String, default standard: [String]? = nil) -> [String] {
        switch find(key) {
        case nil: return standard ?? missing(key, "write an array of texts", [])
        case .environment(_, let value): return value.split(separator: ",").map(String.init)
        case .file(let value):
            let texts = value.asArray?.compactMap(\.asString)
            guard let texts, texts.count == value.asArray?.count else {
                return wrong(key, value, "write an array of texts", standard ?? [])
            }
            return texts
        }
    }

    /// - Parameter range: both ends allowed.
    package func integer(
        _ key: String, in range: ClosedRange<Int>, default standard: Int? = nil
    ) -> Int {
        let remedy = "write an integer from \(range.lowerBound) to \(range.upperBound)"
        let fallback = standard ?? range.lowerBound
        switch find(key) {
        case nil: return standard ?? missing(key, remedy, fallback)
        case .environment(_, let text):
            guard let value = Int(text), range.contains(value) else {
                return wrong(key, text: text, remedy, fallback)
            }
            return value
        case .file(let json):
            guard let value = json.asInteger.map({ Int($0) }), range.contains(value) else {
                return wrong(key, json, remedy, fallback)
            }
            return value
        }
    }

    package func number(
        _ key: String, in range: ClosedRange<Double>, default standard: Double? = nil
    ) -> Double {
        let remedy = "write a number from \(range.lowerBound) to \(range.upperBound)"
        let fallback = standard ?? range.lowerBound
        switch find(key) {
        case nil: return standard ?? missing(key, remedy, fallback)
        case .environment(_, let text):
            guard let value = Double(text), range.contains(value) else {
                return wrong(key, text: text, remedy, fallback)
            }
            return value
        case .file(let json):
            guard let value = json.asDouble, range.contains(value) else {
                return wrong(key, json, remedy, fallback)
            }
            return value
        }
    }

    /// `true` or `false`; in the environment also `1` and `0`.
    package func bool(_ key: String, default standard: Bool? = nil) -> Bool {
        switch find(key) {
        case nil: return standard ?? missing(key, "write true or false", false)
        case .environment(_, "true"), .environment(_, "1"), .file(.bool(true)): return true
        case .environment(_, "false"), .environment(_, "0"), .file(.bool(false)): return false
        case .environment(_, let text):
            return wrong(key, text: text, "write true or false", standard ?? false)
        case .file(let value): return wrong(key, value, "write true or false", standard ?? false)
        }
    }

    /// A text with a unit: `250ms`, `30s`, `5m`, `2h`, `7d`.
    package func duration(
        _ key: String, in range: ClosedRange<Duration>, default standard: Duration? = nil
    ) -> Duration {
        let remedy =
            "write a duration such as 250ms, 30s, 5m, 2h or 7d, from \(Quantity.text(range.lowerBound))"
            + " to \(Quantity.text(range.upperBound))"
        let fallback = standard ?? range.lowerBound
        return measure(key, remedy, standard, fallback) { text in
            Quantity.duration(text).flatMap { range.contains($0) ? $0 : nil }
        }
    }

    /// Bytes: an integer, or a text with a unit: `512B`, `8KiB`, `50MiB`, `1GiB`.
    package func byteCount(
        _ key: String, in range: ClosedRange<Int>, default standard: Int? = nil
    ) -> Int {
        let remedy =
            "write a size such as 8KiB, 50MiB or 1GiB, from \(range.lowerBound) to \(range.upperBound) bytes"
        let fallback = standard ?? range.lowerBound
        return measure(key, remedy, standard, fallback) { text in
            Quantity.bytes(text).flatMap { range.contains($0) ? $0 : nil }
        }
    }

    /// One of the raw values of an enumeration.
    package func choice<Choice: CaseIterable & RawRepresentable>(
        _ key: String, default standard: Choice? = nil
    ) -> Choice where Choice.RawValue == String {
        let all = Array(Choice.allCases)
        precondition(!all.isEmpty, "a choice needs something to choose from")
        let remedy = "write one of: " + all.map(\.rawValue).joined(separator: ", ")
        return measure(key, remedy, standard, standard ?? all[0]) { Choice(rawValue: $0) }
    }

    /// The value as it is, for what has a reader of its own.
    package func json(_ key: String) -> JSONValue? {
        switch find(key) {
        case nil: nil
        case .environment(_, let value): .string(value)
        case .file(let value): value
        }
    }

    private func measure<Value>(
        _ key: String, _ remedy: String, _ standard: Value?, _ fallback: Value,
        _ convert: (String) -> Value?
    ) -> Value {
        switch find(key) {
        case nil: return standard ?? missing(key, remedy, fallback)
        case .environment(_, let text):
            return convert(text) ?? wrong(key, text: text, remedy, fallback)
        case .file(.string(let text)):
            return convert(text) ?? wrong(key, text: text, remedy, fallback)
        case .file(let value):
            // Only sizes convert from bare digits; a bare number of time would leave the unit to guess.
            if let number = value.asInteger, let converted = convert(String(number)) {
                return converted
            }
            return wrong(key, value, remedy, fallback)
        }
    }

    private func missing<Value>(_ key: String, _ remedy: String, _ fallback: Value) -> Value {
        report(key, "is missing", remedy)
        return fallback
    }

    private func wrong(_ key: String, _ value: JSONValue, _ remedy: String) {
        report(key, "is \(value.shown)", remedy)
    }

    private func wrong<Value>(
        _ key: String, _ value: JSONValue, _ remedy: String, _ fallback: Value
    ) -> Value {
        wrong(key, value, remedy)
        return fallback
    }

    private func wrong<Value>(
        _ key: String, text: String, _ remedy: String, _ fallback: Value
    ) -> Value {
        report(key, "is \(JSONValue.string(text).shown)", remedy)
        return fallback
    }
}

extension JSONValue {
    /// For messages: numbers and truth values as they are, short texts quoted, the rest by kind.
    fileprivate var shown: String {
        switch self {
        case .string(let value): value.count <= 40 ? text : kind
        case .integer, .double, .bool: text
        default: kind
        }
    }
}
