import HCCore
import HCIO
import HCPostgres

/// One migration, applied to the scratch database and looked at after each statement.
@LoopActor
struct LintExamination {
    struct Outcome {
        var findings: [LintFinding] = []
        /// On tables that were there before; nil: not looked at.
        var locks: [TableLock]?
        /// PostgreSQL has taken all of it.
        var isApplied = true
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
    let step: MigrationStep
    let connection: PostgresConnection
    let deadline: Deadline
    private let statements: [SQLStatement]

    init(
        set: MigrationLint.DatabaseSet, step: MigrationStep, connection: PostgresConnection,
        deadline: Deadline
    ) {
        self.set = set
        self.step = step
        self.connection = connection
        self.deadline = deadline
        statements = SQLScript.statements(of: step.sql)
    }

    var migration: Migration { step.migration }

    func finding(of refusal: Refusal) -> LintFinding {
        finding(.init(rule: .doesNotApply, object: refusal.message), line: refusal.line)
    }

    /// As `migrate up` runs it: everything in one transaction, the ledger's row with it.
    ///
    /// - Throws: `Refusal`; then nothing of the migration was applied.
    func inTransaction(looks: Bool) async throws -> Outcome {
        try await connection.transaction(deadline: deadline) { transaction in
            var record: Record?
            if looks {
                record = Record(
                    start: try await look(transaction), isWaitedFor: step.servesFrom != nil)
            }
            for statement in statements {
                try await run(statement) { () throws(PostgresError) in
                    try await transaction.executeScript(statement.text)
                }
                if record != nil {
                    record?.add(try await look(transaction), after: statement, isBare: false)
                }
            }
            try await transaction.executeScript(ledgerLine)
            return Outcome(findings: record.map(findings) ?? [], locks: record?.tableLocks)
        }
    }

    /// A migration with a statement that PostgreSQL takes only outside a transaction: one after the other.
    func outsideTransaction() async throws -> Outcome {
        var record = Record(
            start: try await connection.transaction(deadline: deadline) { try await look($0) },
            isWaitedFor: step.servesFrom != nil)
        var findings: [LintFinding] = []
        var isNeeded = false
        for statement in statements {
            let isBare = try await isRefusedInTransaction(statement)
            let seen = isBare ? try await runBare(statement) : try await runInside(statement)
            record.add(seen, after: statement, isBare: isBare)
            record.forgetTransaction()
            guard isBare else { continue }
            isNeeded = true
            if let problem = try await problemOfRepeating(statement, seen) {
                findings.append(finding(problem, line: statement.line))
            }
        }
        try await connection.executeScript(ledgerLine, deadline: deadline)
        findings += self.findings(record)
        if let wrong = wrongTerms(isNeeded: isNeeded) {
            findings.append(
                finding(.init(rule: .transaction, object: wrong), line: statements[0].line))
        }
        return Outcome(
            findings: findings.sorted { $0.line < $1.line }, locks: record.tableLocks)
    }

    /// What `migrate up` would make of it otherwise.
    private func wrongTerms(isNeeded: Bool) -> String? {
        if migration.terms.isTransactional {
            return #"a statement cannot run in a transaction, and migration.json does not say so"#
        }
        if statements.count > 1 { return "beside \(statements.count - 1) other statements" }
        return isNeeded ? nil : "it can run in a transaction"
    }

    private struct Undone: Error {
        var fingerprint = ""
    }

    private func isRefusedInTransaction(_ statement: SQLStatement) async throws -> Bool {
        do {
            try await connection.transaction(deadline: deadline) { transaction in
                try await transaction.executeScript(statement.text)
                throw Undone()
            }
            return false
        } catch is Undone {
            return false
        } catch let error as PostgresError {
            return error.sqlstate == MigrationLint.activeTransaction
        }
    }

    private func runBare(_ statement: SQLStatement) async throws -> LintCatalogue {
        try await run(statement) { () throws(PostgresError) in
            try await connection.executeScript(statement.text, deadline: deadline)
        }
        return try await connection.transaction(deadline: deadline) { try await look($0) }
    }

    private func runInside(_ statement: SQLStatement) async throws -> LintCatalogue {
        try await connection.transaction(deadline: deadline) { transaction in
            try await run(statement) { () throws(PostgresError) in
                try await transaction.executeScript(statement.text)
            }
            return try await look(transaction)
        }
    }

    /// A process can die between the statement and its line in the ledger: then it is run once more.
    private func problemOfRepeating(
        _ statement: SQLStatement, _ seen: LintCatalogue
    ) async throws -> LintCatalogue.Problem? {
        do {
            try await connection.executeScript(statement.text, deadline: deadline)
        } catch {
            guard let refusal = Refusal(error, line: statement.line) else { throw error }
            return .init(rule: .repeatable, object: refusal.message)
        }
        let again = try await connection.transaction(deadline: deadline) { try await look($0) }
        let more = Set(again.relations.values.map(\.name))
            .symmetricDifference(seen.relations.values.map(\.name))
        return more.isEmpty
            ? nil : .init(rule: .repeatable, object: more.sorted().joined(separator: ", "))
    }

    /// Whether `down.sql` brings back what was there before, as `migrate down` would run it. Changes nothing.
    func wayBack(to fingerprint: String?) async throws -> [LintFinding] {
        guard let down = migration.down, let fingerprint else { return [] }
        var object = "the schema is not what it was before up.sql"
        do {
            try await connection.transaction(deadline: deadline) { transaction in
                try await transaction.executeScript(down)
                let row = try await transaction.execute(
                    [Query("SELECT hc_schema_fingerprint()")])[0][0]
                throw Undone(fingerprint: try row.text(0))
            }
        } catch let undone as Undone {
            if undone.fingerprint == fingerprint { return [] }
        } catch let error as PostgresError {
            guard let refusal = Refusal(error, line: 1) else { throw error }
            object = refusal.message
        }
        return [finding(.init(rule: .wayBack, object: object), line: 1, file: "down.sql")]
    }

    /// Whether `backfill.sql` is a batch of a clinic's rows: for one that has none it ends at once. Changes nothing.
    func batch() async throws -> [LintFinding] {
        var object = "for a clinic without rows it does not end: its second column is not NULL"
        do {
            try await connection.transaction(deadline: deadline) { transaction in
                let tenant = PostgresValue.uuid(UUID(high: 1, low: 1))
                let results = try await transaction.execute([
                    Query(
                        "INSERT INTO hc_tenant (tenant_id, epoch, state) VALUES ($1, 1, 'rw')",
                        [tenant]),
                    Query("SELECT hc_backfill_enter($1)", [tenant]),
                    .unsafeSQL(step.sql, [tenant, .optional(nil as String?), .int4(10)]),
                ])
                let line = try Backfill.line(results[2], "backfill.sql")
                if line.cursor == nil { throw Undone() }
            }
        } catch is Undone {
            return []
        } catch let error as ControlError {
            object = error.message
        } catch let error as PostgresError {
            guard let refusal = Refusal(error, line: 1) else { throw error }
            object = refusal.message
        }
        return [finding(.init(rule: .backfill, object: object), line: 1)]
    }

    /// Whether `verify.sql` reads only, and finds nothing where nothing is wrong.
    func verification() async throws -> [LintFinding] {
        guard let verify = migration.verify else { return [] }
        var object = "it finds something in an empty database"
        do {
            let isClean = try await connection.transaction(
                TransactionOptions(isReadOnly: true), deadline: deadline
            ) { transaction in
                try await transaction.execute(.unsafeSQL(verify, [])).rows.isEmpty
            }
            if isClean { return [] }
        } catch let error as PostgresError {
            guard let refusal = Refusal(error, line: 1) else { throw error }
            object = refusal.message
        }
        return [finding(.init(rule: .verify, object: object), line: 1, file: "verify.sql")]
    }

    /// Before the migration; nil if there is no schema yet.
    func fingerprint() async throws -> String? {
        guard migration.version > 1, migration.down != nil else { return nil }
        return try await connection.execute(
            Query("SELECT hc_schema_fingerprint()"), deadline: deadline
        ).single().text(0)
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

    private var ledgerLine: String {
        step.phase == .contract
            ? "UPDATE public.hc_schema SET phase = NULL WHERE version = \(migration.version)"
            : MigrationRunner.ledgerLine(of: migration)
    }

    private func findings(_ record: Record) -> [LintFinding] {
        record.problems().map { finding($0.problem, line: $0.line) }
    }

    private func finding(
        _ problem: LintCatalogue.Problem, line: Int, file: String? = nil
    ) -> LintFinding {
        LintFinding(
            rule: problem.rule,
            file: "\(set.rawValue)/" + (file.map { "\(migration.folder)/\($0)" } ?? step.file),
            line: line, object: problem.object)
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
        /// Every program that serves is known to do without what is taken away.
        private let isWaitedFor: Bool
        /// By table.
        private var locks: [UInt64: TableLock.Mode] = [:]

        init(start: LintCatalogue, isWaitedFor: Bool) {
            self.start = start
            self.isWaitedFor = isWaitedFor
            last = start
        }

        mutating func add(_ seen: LintCatalogue, after statement: SQLStatement, isBare: Bool) {
            var step = LintStep(start: start, before: last, after: seen)
            step.isBare = isBare
            found += step.problems().map { ($0, statement.line) }
            let lost = isWaitedFor ? [] : seen.lost(since: start)
            let problems = seen.problems.subtracting(start.problems).union(lost)
            open = open.filter { problems.contains($0.key) }
            for problem in problems where open[problem] == nil { open[problem] = statement.line }
            for lock in seen.locks.subtracting(start.locks)
            where start.relations[lock.relation]?.isTable == true {
                guard let mode = TableLock.Mode(rawValue: lock.mode) else { continue }
                locks[lock.relation] = max(locks[lock.relation] ?? mode, mode)
            }
            last = seen
        }

        /// By table's name, of each the strongest.
        var tableLocks: [TableLock] {
            locks.map { TableLock(table: start.name($0.key), mode: $0.value) }
                .sorted { $0.table < $1.table }
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
