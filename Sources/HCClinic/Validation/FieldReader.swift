package import HCCore

/// Reads the members of a JSON object one by one and gathers every problem, so that a client learns all
/// of them at once. Members that nobody asked for are problems too.
///
///     var fields = try FieldReader(body)
///     let name = fields.required("name", .personName)
///     let phone = fields.optional("phone", .phone)
///     try fields.finish()        // throws with all problems; until then `name` may be a stand-in
package struct FieldReader {
    private let object: JSONObject
    private var asked: Set<String> = []
    private var problems: [InvalidField] = []

    /// Unknown members that are named in an answer; a text of a thousand is answered with these.
    private static let unknownNamedMax = 20

    /// - Throws: `invalid-input` if the body is no object.
    package init(_ body: JSONValue) throws(ClinicError) {
        guard let object = body.asObject else {
            throw .invalid("", .wrongType, "the body must be a JSON object, not \(body.kind)")
        }
        self.object = object
    }

    /// A member that must be there. Null counts as missing.
    package mutating func required<Value>(_ name: String, _ rule: FieldRule<Value>) -> Value {
        guard let json = take(name), !json.isNull else {
            problems.append(InvalidField(name, .missing, "is required"))
            return rule.placeholder
        }
        return read(name, json, rule) ?? rule.placeholder
    }

    /// A member that may be missing or null.
    package mutating func optional<Value>(_ name: String, _ rule: FieldRule<Value>) -> Value? {
        guard let json = take(name), !json.isNull else { return nil }
        return read(name, json, rule)
    }

    /// A member of a merge patch (RFC 7396): missing keeps, null clears.
    package mutating func clearable<Value>(
        _ name: String, _ rule: FieldRule<Value>
    ) -> Change<Value> {
        guard let json = take(name) else { return .keep }
        if json.isNull { return .clear }
        return read(name, json, rule).map { .set($0) } ?? .keep
    }

    /// A member of a merge patch that has always a value: missing keeps, null is a problem.
    package mutating func change<Value>(_ name: String, _ rule: FieldRule<Value>) -> Value? {
        guard let json = take(name) else { return nil }
        if json.isNull {
            problems.append(InvalidField(name, .notAllowed, "cannot be cleared"))
            return nil
        }
        return read(name, json, rule)
    }

    /// Whether the member is there, with any value.
    package func has(_ name: String) -> Bool {
        object[name] != nil
    }

    /// A problem that only shows when fields are seen together.
    package mutating func refuse(_ name: String, _ code: InvalidField.Code, _ message: String) {
        problems.append(InvalidField(name, code, message))
    }

    package var isValidSoFar: Bool { problems.isEmpty }

    /// - Throws: `invalid-input` with every problem.
    package consuming func finish() throws(ClinicError) {
        var unknown = 0
        for name in object.names where !asked.contains(name) {
            unknown += 1
            guard unknown <= FieldReader.unknownNamedMax else { break }
            problems.append(
                InvalidField(
                    FieldReader.shortened(name), .unknown, "is not a field of this request"))
        }
        if !problems.isEmpty { throw ClinicError(.invalidInput, fields: problems) }
    }

    /// A name is the client's and may be of any length and content.
    private static func shortened(_ name: String) -> String {
        let scalars = name.unicodeScalars.prefix(64).map { scalar in
            scalar.value < 0x20 || (0x7F...0x9F).contains(scalar.value) ? "\u{FFFD}" : scalar
        }
        return String(String.UnicodeScalarView(scalars))
    }

    private mutating func take(_ name: String) -> JSONValue? {
        asked.insert(name)
        return object[name]
    }

    private mutating func read<Value>(
        _ name: String, _ json: JSONValue, _ rule: FieldRule<Value>
    ) -> Value? {
        do {
            return try rule.read(json)
        } catch {
            problems.append(InvalidField(name, error.code, error.message))
            return nil
        }
    }
}

/// What a merge patch says about one member.
package enum Change<Value: Sendable>: Sendable {
    case keep
    case clear
    case set(Value)

    package func applied(to current: Value?) -> Value? {
        switch self {
        case .keep: current
        case .clear: nil
        case .set(let value): value
        }
    }

    package var isKeep: Bool {
        if case .keep = self { true } else { false }
    }
}
