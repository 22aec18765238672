import HCPostgres

/// A function, or a procedure, as those see it who call it.
struct LintFunction: Sendable {
    let schema: String
    let name: String
    /// `pg_proc.prokind`.
    private let kind: String
    private let arguments: String
    private let result: String
    /// Of what is put in, in order; a nameless one is "".
    private let types: [String]
    private let names: [String]
    /// How many arguments have no default.
    private let required: Int
    private let isVariadic: Bool
    /// The roles of programs that may execute it.
    let callers: [String]

    /// - Parameter row: of `LintCatalogue.functions`.
    init(_ row: PostgresRow) throws {
        schema = try row.text(1)
        name = try row.text(2)
        kind = try row.text(3)
        arguments = try row.text(4)
        result = try row.text(5)
        types = try row.texts(6)
        names = try row.texts(7)
        required = try row.int(8)
        isVariadic = try row.bool(9)
        callers = try row.texts(10)
    }

    /// For people.
    var title: String {
        (schema == "public" ? "" : "\(schema).") + arguments
            + (result.isEmpty ? "" : " RETURNS \(result)")
    }

    /// Whether every call that `old` takes means this one when `old` is gone: by place or by name, with or without its
    /// defaults (PostgreSQL manual, 4.3 and 10.3). A result with one column more is another one: `SELECT f()` sees it.
    func takesCalls(of old: LintFunction) -> Bool {
        guard name == old.name, kind == old.kind, result == old.result, isVariadic == old.isVariadic
        else { return false }
        guard types.starts(with: old.types), !isVariadic || types.count == old.types.count,
            required <= old.required
        else { return false }
        return zip(old.names, names).allSatisfy { $0.isEmpty || $0 == $1 }
    }
}
