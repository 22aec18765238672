import HCPostgres

/// What a scratch database's catalogue says between two statements.
struct LintCatalogue: Sendable {
    struct Relation: Sendable {
        var name: String
        var schema: String
        /// `pg_class.relkind`.
        var kind: String
        var file: UInt64
        /// How often the transaction has begun to read all of it.
        var scans: Int

        var isTable: Bool { kind == "r" || kind == "p" || kind == "m" }
        /// Statements of programs name it.
        var isRead: Bool { isTable || kind == "v" || kind == "f" }
    }

    struct Column: Sendable {
        var name: String
        var isNotNull: Bool
        /// The rows that are there have its value without being written (`pg_attribute.atthasmissing`).
        var hasMissing: Bool
    }

    struct ColumnKey: Hashable, Sendable {
        var table: UInt64
        var number: Int
    }

    struct Constraint: Sendable {
        var table: UInt64
        var name: String
        /// `pg_constraint.contype`.
        var kind: String
        var isValid: Bool
        var columns: [Int]
    }

    struct Index: Sendable {
        var table: UInt64
        var isValid: Bool
    }

    struct Lock: Hashable, Sendable {
        var relation: UInt64
        var mode: String
    }

    /// A table that ALTER TABLE has written anew, and the bits that say why (`pg_event_trigger_table_rewrite_reason`).
    struct Rewrite: Sendable {
        var table: UInt64
        var reason: Int
    }

    /// A rule of the shards' schema that is broken.
    struct Problem: Hashable, Sendable {
        var rule: LintRule
        var object: String
    }

    var relations: [UInt64: Relation] = [:]
    var columns: [ColumnKey: Column] = [:]
    var constraints: [UInt64: Constraint] = [:]
    var indexes: [UInt64: Index] = [:]
    /// Of this transaction.
    var locks: Set<Lock> = []
    var rewrites: [Rewrite] = []
    var problems: Set<Problem> = []
    var functions: [UInt64: LintFunction] = [:]

    init(_ results: [PostgresResult], set: MigrationLint.DatabaseSet) throws {
        for row in results[0].rows {
            relations[try row.unsigned(0)] = Relation(
                name: try row.text(1), schema: try row.text(5), kind: try row.text(2),
                file: try row.unsigned(3), scans: try row.int(4))
        }
        for row in results[1].rows {
            let key = ColumnKey(table: try row.unsigned(0), number: try row.int(1))
            columns[key] = Column(
                name: try row.text(2), isNotNull: try row.bool(3), hasMissing: try row.bool(4))
        }
        for row in results[2].rows {
            constraints[try row.unsigned(0)] = Constraint(
                table: try row.unsigned(1), name: try row.text(2), kind: try row.text(3),
                isValid: try row.bool(4), columns: try row.int8s(5).map { Int($0) })
        }
        for row in results[3].rows {
            indexes[try row.unsigned(0)] = Index(
                table: try row.unsigned(1), isValid: try row.bool(2))
        }
        for row in results[4].rows {
            locks.insert(Lock(relation: try row.unsigned(0), mode: try row.text(1)))
        }
        for word in try results[5][0].text(0).split(separator: " ") {
            let parts = word.split(separator: ":")
            if parts.count == 2, let table = UInt64(parts[0]), let reason = Int(parts[1]) {
                rewrites.append(Rewrite(table: table, reason: reason))
            }
        }
        for row in results[6].rows where set == .shard {
            guard let rule = LintRule(rawValue: try row.text(0)) else {
                preconditionFailure("the catalogue's query names a rule that is none")
            }
            problems.insert(Problem(rule: rule, object: try row.text(1)))
        }
        for row in results[7].rows { functions[try row.unsigned(0)] = try LintFunction(row) }
    }

    /// The tables that a lock of this mode keeps, of those in `tables`.
    func locked(_ mode: String, of tables: Set<UInt64>) -> Set<UInt64> {
        Set(locks.lazy.filter { $0.mode == mode }.map(\.relation)).intersection(tables)
    }

    func name(_ relation: UInt64) -> String { relations[relation]?.name ?? "\(relation)" }

    /// What statements of programs can name: tables, views and their columns, of schema public. A table is column 0.
    private var readable: [String: ColumnKey] {
        var names: [String: ColumnKey] = [:]
        for (identity, relation) in relations where relation.isRead && relation.schema == "public" {
            names[relation.name] = ColumnKey(table: identity, number: 0)
        }
        for (key, column) in columns {
            guard let table = relations[key.table], names[table.name]?.table == key.table else {
                continue
            }
            names["\(table.name).\(column.name)"] = key
        }
        return names
    }

    /// What could be read under its name at `start` and cannot be any more, each with what it is called now, if it is there
    /// at all. A view that was made anew is as good as before; a table or column has lost what was in it.
    func lost(since start: LintCatalogue) -> Set<Problem> {
        let names = readable
        func isLost(_ name: String, _ key: ColumnKey) -> Bool {
            guard let now = names[name] else { return true }
            return now != key && start.relations[key.table]?.isTable == true
        }
        var problems: Set<Problem> = []
        for (name, key) in start.readable where isLost(name, key) {
            // Where the table is lost, that says it.
            let table = ColumnKey(table: key.table, number: 0)
            if key != table, isLost(start.name(key.table), table) { continue }
            let now = called(key).map { ", which is now \($0)" } ?? ""
            problems.insert(Problem(rule: .takesAway, object: name + now))
        }
        return problems.union(lostFunctions(since: start))
    }

    /// What could be called at `start`, as it was called then and by whom, and cannot be any more.
    private func lostFunctions(since start: LintCatalogue) -> [Problem] {
        start.functions.compactMap { identity, function in
            guard function.schema == "public" else { return nil }
            let heirs = functions.values.filter {
                $0.schema == "public" && $0.takesCalls(of: function)
            }
            let orphans = function.callers.filter { caller in
                !heirs.contains { $0.callers.contains(caller) }
            }
            guard !orphans.isEmpty else { return nil }
            // Made anew it has another identity, and its old name at most.
            let successors = functions.filter {
                $0.key == identity
                    || start.functions[$0.key] == nil && $0.value.name == function.name
            }
            let now =
                heirs.isEmpty
                ? successors.values.map(\.title).sorted().first.map { ", which is now \($0)" } ?? ""
                : ", for \(orphans.joined(separator: ", "))"
            return Problem(rule: .takesAway, object: function.title + now)
        }
    }

    /// Nil if it is gone.
    private func called(_ key: ColumnKey) -> String? {
        guard key.number == 0 else { return columns[key]?.name }
        return relations[key.table].map {
            $0.schema == "public" ? $0.name : "\($0.schema).\($0.name)"
        }
    }
}
