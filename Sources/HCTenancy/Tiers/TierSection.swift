import HCCore

/// Everything that is wrong with a file of tiers, each with the place where it is.
package struct TierFileError: Error, Equatable, Sendable, CustomStringConvertible {
    package let problems: [String]

    package var description: String { problems.joined(separator: "\n") }
}

/// Where the sections of one reading put what they find.
final class TierProblems {
    private(set) var all: [String] = []

    func add(_ path: String, _ problem: String) { all.append("\(path): \(problem)") }
}

/// One object of a definition. Its getters always give a value: one that the bounds allow if what is written is
/// wrong, which is then among the problems.
final class TierSection {
    let path: String
    private let object: JSONObject
    private let problems: TierProblems
    private let isStrict: Bool
    /// Whether anything was found in this section; what is in sections below does not count.
    private(set) var hasProblem = false

    /// - Returns: nil, with a problem, for what is no object.
    init?(_ value: JSONValue, _ path: String, _ problems: TierProblems, isStrict: Bool) {
        guard let object = value.asObject else {
            problems.add(path, "is \(value.kind), not an object")
            return nil
        }
        self.path = path
        self.object = object
        self.problems = problems
        self.isStrict = isStrict
    }

    func has(_ name: String) -> Bool { object[name] != nil }

    func problem(_ name: String, _ text: String) {
        hasProblem = true
        problems.add("\(path).\(name)", text)
    }

    /// Every other name is a problem in a file: a limit that is misspelt would not hold.
    func know(_ names: String...) {
        guard isStrict else { return }
        for name in object.names where !names.contains(name) {
            problem(name, "is not known; there are \(names.joined(separator: ", "))")
        }
    }

    /// The rule of the `tier` table, and of rules.
    func name(_ name: String) -> String {
        let text = object[name]?.asString ?? ""
        let bytes = Array(text.utf8)
        let isName =
            (1...31).contains(bytes.count) && (0x61...0x7A).contains(bytes[0])
            && bytes.allSatisfy {
                (0x61...0x7A).contains($0) || (0x30...0x39).contains($0)
                    || $0 == UInt8(ascii: "-")
            }
        if !isName { problem(name, "must be 1 to 31 of a-z, 0-9 and '-', a letter first") }
        return text
    }

    func integer(_ name: String, in range: ClosedRange<Int>, default standard: Int? = nil) -> Int {
        value(
            name, standard, fallback: range.lowerBound,
            "an integer from \(range.lowerBound) to \(range.upperBound)"
        ) { value in
            value.asInteger.flatMap { Int(exactly: $0) }.flatMap { range.contains($0) ? $0 : nil }
        }
    }

    func duration(
        _ name: String, in range: ClosedRange<Duration>, default standard: Duration? = nil
    ) -> Duration {
        value(
            name, standard, fallback: range.lowerBound,
            "a time with its unit, such as \"500ms\", \"10s\", \"1m\", \"1h\", from"
                + " \"\(Quantity.text(range.lowerBound))\" to \"\(Quantity.text(range.upperBound))\""
        ) { value in
            value.asString.flatMap { Quantity.duration($0) }
                .flatMap { range.contains($0) ? $0 : nil }
        }
    }

    func size(_ name: String, in range: ClosedRange<Int>, default standard: Int? = nil) -> Int {
        value(
            name, standard, fallback: range.lowerBound,
            "a size with its unit, such as \"512KiB\" or \"8MiB\", from"
                + " \"\(Quantity.text(bytes: range.lowerBound))\""
                + " to \"\(Quantity.text(bytes: range.upperBound))\""
        ) { value in
            guard let text = value.asString, text.last == "B" else { return nil }
            return Quantity.bytes(text).flatMap { range.contains($0) ? $0 : nil }
        }
    }

    func choice<Choice: CaseIterable & RawRepresentable>(
        _ name: String, fallback: Choice
    ) -> Choice where Choice.RawValue == String {
        value(name, nil, fallback: fallback, TierSection.choices(of: Choice.self)) { value in
            value.asString.flatMap { Choice(rawValue: $0) }
        }
    }

    /// A list of different ones, at least one; nil if it is not there.
    func choices<Choice: CaseIterable & RawRepresentable & Hashable>(
        _ name: String
    ) -> Set<Choice>? where Choice.RawValue == String {
        guard let value = object[name] else { return nil }
        guard let entries = value.asArray, !entries.isEmpty else {
            problem(name, "must be a list of at least one; leave it out for all")
            return nil
        }
        var found: Set<Choice> = []
        for (index, entry) in entries.enumerated() {
            guard let choice = entry.asString.flatMap({ Choice(rawValue: $0) }) else {
                problem(
                    "\(name)[\(index)]",
                    "is \(entry.text); must be \(TierSection.choices(of: Choice.self))")
                continue
            }
            if !found.insert(choice).inserted {
                problem("\(name)[\(index)]", "'\(choice.rawValue)' is there twice")
            }
        }
        return found
    }

    /// A section that may be missing: then it is empty.
    func section(_ name: String) -> TierSection {
        let value = object[name] ?? [:]
        if let section = TierSection(value, "\(path).\(name)", problems, isStrict: isStrict) {
            return section
        }
        return TierSection(empty: "\(path).\(name)", problems, isStrict: isStrict)
    }

    private init(empty path: String, _ problems: TierProblems, isStrict: Bool) {
        self.path = path
        object = JSONObject()
        self.problems = problems
        self.isStrict = isStrict
    }

    /// A list of at least one object.
    func sections(_ name: String, countMax: Int) -> [TierSection] {
        guard let entries = object[name]?.asArray, (1...countMax).contains(entries.count) else {
            problem(name, "must be a list of 1 to \(countMax) objects")
            return []
        }
        return entries.enumerated().compactMap { index, entry in
            TierSection(entry, "\(path).\(name)[\(index)]", problems, isStrict: isStrict)
        }
    }

    private func value<Value>(
        _ name: String, _ standard: Value?, fallback: Value, _ form: @autoclosure () -> String,
        _ read: (JSONValue) -> Value?
    ) -> Value {
        guard let present = object[name] else {
            if let standard { return standard }
            problem(name, "is missing; must be \(form())")
            return fallback
        }
        if let value = read(present) { return value }
        problem(name, "is \(TierSection.shown(present)); must be \(form())")
        return fallback
    }

    private static func choices<Choice: CaseIterable & RawRepresentable>(
        of type: Choice.Type
    ) -> String where Choice.RawValue == String {
        "one of " + type.allCases.map(\.rawValue).joined(separator: ", ")
    }

    /// What is written, unless it is long.
    private static func shown(_ value: JSONValue) -> String {
        let text = value.text
        return text.utf8.count <= 40 ? text : value.kind
    }
}
