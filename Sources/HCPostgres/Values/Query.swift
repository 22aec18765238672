/// One SQL statement and the values of its parameters.
///
/// The text is a literal of the program, so data cannot become SQL; it is also the identity under which the
/// connection keeps a prepared statement.
package struct Query: Sendable {
    enum Text: Sendable {
        case fixed(StaticString)
        case unsafe(String)
    }

    let text: Text
    package var binds: [PostgresValue]

    package init(_ text: StaticString, _ binds: [PostgresValue] = []) {
        precondition(text.hasPointerRepresentation, "SQL is a string literal")
        self.text = .fixed(text)
        self.binds = binds
    }

    private init(unsafe text: String, _ binds: [PostgresValue]) {
        self.text = .unsafe(text)
        self.binds = binds
    }

    /// SQL that was put together at run time: for names that cannot be parameters (DDL, LISTEN, COPY of a table).
    /// Never for values. It is not kept as a prepared statement.
    package static func unsafeSQL(_ text: String, _ binds: [PostgresValue] = []) -> Query {
        Query(unsafe: text, binds)
    }

    /// Quotes a name for use in ``unsafeSQL(_:_:)`` (PostgreSQL manual, 4.1.1).
    /// - Returns: nil for an empty name, one longer than the server's 63 bytes, or one with a NUL.
    package static func quotedIdentifier(_ name: String) -> String? {
        guard !name.isEmpty, name.utf8.count <= 63, !name.utf8.contains(0) else { return nil }
        var quoted = "\""
        for scalar in name.unicodeScalars {
            if scalar == "\"" { quoted.unicodeScalars.append("\"") }
            quoted.unicodeScalars.append(scalar)
        }
        return quoted + "\""
    }
}

extension Query: CustomStringConvertible, CustomReflectable {
    /// The text without the values.
    package var description: String {
        switch text {
        case .fixed(let text): text.description
        case .unsafe: "***"
        }
    }
    package var customMirror: Mirror { Mirror(self, children: [], displayStyle: .struct) }
}
