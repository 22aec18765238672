import HCCore
import HCIO
import HCPostgres

/// One migration, applied to the scratch database and looked at after each statement.
@LoopActor
struct LintExamination {
    struct Outcome {
        var findings: [LintFinding]
    }

    /// PostgreSQL does not take a statement.
    struct Refusal: Error {
        var line: Int
        var sqlstate: SQLState?
        var message: String

        /// - Returns: nil for what is no answer of the server to this statement.
        init?(_ error: PostgresError, line: Int) {
            self.line = line
            switch error.kind {
            case .server(let server):
                sqlstate = server.sqlstate
                message = "\(server.message.reveal()) (SQLSTATE \(server.sqlstate))"
            case .misuse(let rule):
                message = "\(rule)"
            default:
                return nil
            }
        }
    }

    let set: MigrationLint.DatabaseSet
    let migration: Migration
    let connection: PostgresConnection
    let deadline: Deadline
    private let statements: [SQLStatement]

    init(
        set: MigrationLint.DatabaseSet, migration: Migration, connection: PostgresConnection,
        deadline: Deadline
    ) {
        self.set = set
        self.migration = migration
        self.connection = connection
        self.deadline = deadline
        statements = SQLScript.statements(of: migration.sql)
    }

    func finding(of refusal: Refusal) -> LintFinding {
        finding(.init(rule: .doesNotApply, object: refusal.message), line: refusal.line)
    }

    /// As `migrate up` runs it: everything in one transaction, the ledger's row with it.
    ///
    /// - Throws: `Refusal`; then nothing of the migration was applied.
    func inTransaction(looks: Bool) async throws -> Outcome {
        try await connection.transaction(deadline: deadline) { transaction in
            var record: Record?
            if looks { record = Record(start: try await look(transaction)) }
            for statement in statements {
                try await run(statement) { () throws(PostgresError) in
                    try await transaction.executeScript(statement.text)
                }
                if record != nil {
                    record?.add(try await look(transaction), after: statement, isBare: false)
                }
            }
            try await transaction.executeScript(ledgerLine)
            return Outcome(findings: record.map(findings) ?? [])
        }
    }

    /// A migration with a statement that PostgreSQL takes only outside a transaction: one after the other.
    func outsideTransaction() async throws -> Outcome {
        var record = Record(
            start: try await connection.transaction(deadline: deadline) { try await look($0) })
        var bare: SQLStatement?
        for statement in statements {
            do {
                let seen = try await connection.transaction(deadline: deadline) { transaction in
                    try await run(statement) { () throws(PostgresError) in
                        try await transaction.executeScript(statement.text)
                    }
                    return try await look(transaction)
                }
                record.add(seen, after: statement, isBare: false)
            } catch let refusal as Refusal {
                guard refusal.sqlstate?.code == "25001" else { throw refusal }
                bare = bare ?? statement
                try await run(statement) { () throws(PostgresError) in
                    try await connection.executeScript(statement.text, deadline: deadline)
                }
                let seen = try await connection.transaction(deadline: deadline) {
                    try await look($0)
                }
                record.add(seen, after: statement, isBare: true)
            }
            record.forgetTransaction()
        }
        try await connection.executeScript(ledgerLine, deadline: deadline)
        var findings = findings(record)
        if let bare, statements.count > 1 {
            let problem = LintCatalogue.Problem(
                rule: .transaction, object: "beside \(statements.count - 1) other statements")
            findings.append(finding(problem, line: bare.line))
        }
        return Outcome(findings: findings)
    }

    // MARK: Details

    private func run(
        _ statement: SQLStatement, _ body: () async throws(PostgresError) -> Void
    ) async throws {
        do {
            try await body()
        } catch {
            guard let refusal = Refusal(error, line: statement.line) else { throw error }
            throw refusal
        }
    }

    private func look(_ transaction: PostgresTransaction) async throws -> LintCatalogue {
        try LintCatalogue(try await transaction.execute(LintCatalogue.queries(of: set)), set: set)
    }

    /// The name and the checksum come from `MigrationCatalog`, which lets only [a-z0-9_-] pass.
    private var ledgerLine: String {
        """
        INSERT INTO public.hc_schema (version, name, checksum, fingerprint)
        VALUES (\(migration.version), '\(migration.name)', '\(migration.checksum)',
            public.hc_schema_fingerprint())
        """
    }

    private func findings(_ record: Record) -> [LintFinding] {
        record.problems().map { finding($0.problem, line: $0.line) }
    }

    private func finding(_ problem: LintCatalogue.Problem, line: Int) -> LintFinding {
        let digits = String(migration.version)
        let number = String(repeating: "0", count: max(0, 4 - digits.count)) + digits
        return LintFinding(
            rule: problem.rule, file: "\(set.rawValue)/\(number)_\(migration.name).sql", line: line,
            object: problem.object)
    }
}

extension LintExamination {
    /// What was found so far.
    private struct Record {
        let start: LintCatalogue
        private var last: LintCatalogue
        private var found: [(problem: LintCatalogue.Problem, line: Int)] = []
        /// Rules of the schema that are broken now and were not before the migration, and since which line.
        private var open: [LintCatalogue.Problem: Int] = [:]

        init(start: LintCatalogue) {
            self.start = start
            last = start
        }

        mutating func add(_ seen: LintCatalogue, after statement: SQLStatement, isBare: Bool) {
            var step = LintStep(start: start, before: last, after: seen)
            step.isBare = isBare
            found += step.problems().map { ($0, statement.line) }
            open = open.filter { seen.problems.contains($0.key) }
            for problem in seen.problems.subtracting(start.problems) where open[problem] == nil {
                open[problem] = statement.line
            }
            last = seen
        }

        /// Locks, and what is counted within a transaction, have ended with it.
        mutating func forgetTransaction() {
            last.locks = []
            last.rewrites = []
            for relation in last.relations.keys { last.relations[relation]?.scans = 0 }
        }

        func problems() -> [(problem: LintCatalogue.Problem, line: Int)] {
            (found + open.map { ($0.key, $0.value) }).sorted {
                ($0.line, $0.problem.rule.rawValue, $0.problem.object)
                    < ($1.line, $1.problem.rule.rawValue, $1.problem.object)
            }
        }
    }
}
