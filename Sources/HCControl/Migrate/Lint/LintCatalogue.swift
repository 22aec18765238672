import HCPostgres

/// What a scratch database's catalogue says between two statements.
struct LintCatalogue: Sendable {
    struct Relation: Sendable {
        var name: String
        /// `pg_class.relkind`.
        var kind: String
        var file: UInt64
        /// How often the transaction has begun to read all of it.
        var scans: Int

        var isTable: Bool { kind == "r" || kind == "p" || kind == "m" }
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

    init(_ results: [PostgresResult], set: MigrationLint.DatabaseSet) throws {
        for row in results[0].rows {
            relations[try row.unsigned(0)] = Relation(
                name: try row.text(1), kind: try row.text(2), file: try row.unsigned(3),
                scans: try row.int(4))
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
    }

    /// The tables that a lock of this mode keeps, of those in `tables`.
    func locked(_ mode: String, of tables: Set<UInt64>) -> Set<UInt64> {
        Set(locks.lazy.filter { $0.mode == mode }.map(\.relation)).intersection(tables)
    }

    func name(_ relation: UInt64) -> String { relations[relation]?.name ?? "\(relation)" }
}
