/// A libpq connection string of the form that `deploy/local/services` writes: `key=value` or
/// `key='value'`, with `\'` and `\\` inside quotes.
package struct Conninfo: Sendable, CustomStringConvertible {
    private var parameters: [(name: String, value: String)] = []

    package init(_ text: String) throws {
        var rest = Substring(text)
        while true {
            rest = rest.drop(while: \.isWhitespace)
            guard !rest.isEmpty else { return }
            guard let equals = rest.firstIndex(of: "=") else {
                throw FixtureError("a connection string has no '=' where one belongs")
            }
            let name = String(rest[..<equals])
            rest = rest[rest.index(after: equals)...]
            parameters.append((name, try Self.value(from: &rest)))
        }
    }

    /// A value, to read and to change.
    package subscript(name: String) -> String? {
        get { parameters.first { $0.name == name }?.value }
        set {
            parameters.removeAll { $0.name == name }
            if let newValue { parameters.append((name, newValue)) }
        }
    }

    /// The same server and role, another database.
    package func database(_ name: String) -> Conninfo {
        var result = self
        result["dbname"] = name
        return result
    }

    /// The connection string, with the password: tests' servers only.
    package var description: String {
        parameters.map { parameter in
            let escaped = parameter.value.flatMap { character -> [Character] in
                character == "'" || character == "\\" ? ["\\", character] : [character]
            }
            return "\(parameter.name)='\(String(escaped))'"
        }.joined(separator: " ")
    }

    /// The environment in which psql connects so.
    package var environment: [String: String?] {
        [
            "PGHOST": self["host"], "PGPORT": self["port"], "PGDATABASE": self["dbname"],
            "PGUSER": self["user"], "PGPASSWORD": self["password"], "PGOPTIONS": nil,
            "PGSERVICE": nil, "PGCONNECT_TIMEOUT": "30",
        ]
    }

    private static func value(from rest: inout Substring) throws -> String {
        guard rest.first == "'" else {
            let value = rest.prefix { !$0.isWhitespace }
            rest = rest[value.endIndex...]
            return String(value)
        }
        rest = rest.dropFirst()
        var value = ""
        while let character = rest.popFirst() {
            switch character {
            case "'": return value
            case "\\": if let next = rest.popFirst() { value.append(next) }
            default: value.append(character)
            }
        }
        throw FixtureError("a connection string ends inside a quoted value")
    }
}
