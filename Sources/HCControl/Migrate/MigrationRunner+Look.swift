import HCCore
import HCIO
import HCPostgres
import HCTenancy

/// What a shard has, asked in one round trip.
extension MigrationRunner {
    /// A shard at one moment.
    struct Sight: Sendable {
        /// The last migration of which at least a part was applied.
        var version: Int
        var pending: [MigrationStep]
        var mark: SchemaMark
        /// If its schema was known: where it was looked at.
        var server: LockWaits.Server?
    }

    /// What a step has left at a database.
    struct Outcome: Sendable {
        var mark: SchemaMark
        var servesFrom: Int
    }

    /// - Parameters:
    ///   - known: the schema as it was last seen; its fingerprint is made again only if something was changed since.
    ///   - waits: are asked for with it, if nobody has.
    func look(
        at shard: Shard, knowing known: SchemaMark? = nil, _ waits: LockWaits? = nil
    ) async throws -> Sight {
        let connection = try await plane.shard(reference: shard.reference, .owner)
        // The stamp comes first: what is changed in between is then not taken for known.
        var questions = [
            MigrationRunner.ledgerQuestion, SchemaMark.question,
            known == nil ? MigrationRunner.fingerprintQuestion : LockWaits.Server.question,
        ]
        if let question = waits?.question(with: shard) { questions.append(question) }
        let results = try await plane.attempt("shard \(shard.id) cannot be looked at") {
            try await answers(to: questions, connection)
        }
        guard let results else {
            let pending = try MigrationPlan(
                database: shard.id, catalog: catalog.shard, applied: []
            ).pending
            return Sight(version: 0, pending: pending, mark: SchemaMark(fingerprint: ""))
        }
        let applied = try MigrationRunner.ledger(results[0], shard.id)
        var mark = SchemaMark(fingerprint: "", stamp: try results[1][0].text(0))
        if let known, known.stamp == mark.stamp {
            mark.fingerprint = known.fingerprint
        } else if known != nil {
            mark.fingerprint = try await fingerprint(of: connection, shard.id)
        } else {
            mark.fingerprint = try results[2][0].text(0)
        }
        var server: LockWaits.Server?
        if known != nil {
            let here = LockWaits.Server(
                systemIdentifier: shard.systemIdentifier,
                startedAt: Int64(try results[2].single().int(0)))
            if results.count > 3 { try waits?.note(results[3], of: here) }
            server = here
        }
        return Sight(
            version: applied.last?.version ?? 0,
            pending: try MigrationPlan(
                database: shard.id, catalog: catalog.shard, applied: applied
            ).pending,
            mark: applied.isEmpty ? SchemaMark(fingerprint: "") : mark,
            server: server)
    }

    /// What a step that was just taken has left: asked over the connection that has taken it, whose ledger has the
    /// fingerprint already.
    ///
    /// - Parameter before: the schema before the step.
    func outcome(
        of step: MigrationStep, at target: Target, from before: SchemaMark
    ) async throws -> Outcome {
        try await plane.attempt("the ledger of \(target.database) cannot be read") {
            // Whoever gets the connection next need not ask for it.
            let results = try await target.connection.executeAndReset(
                [
                    SchemaMark.kept,
                    Query(
                        "SELECT fingerprint FROM hc_schema WHERE version = $1",
                        [.int4(Int32(step.version))]),
                    SchemaState.question,
                ], deadline: plane.deadline)
            let after = SchemaMark(
                fingerprint: try results[1].single().text(0), stamp: try results[0][0].text(0))
            return Outcome(
                mark: step.changesSchema ? after : before,
                servesFrom: try SchemaState(results[2]).servesFrom)
        }
    }

    // MARK: Details

    /// As JSON: ledgers from before there were phases have no such column.
    private static let ledgerQuestion = Query(
        """
        SELECT version, name, checksum, to_jsonb(line) ->> 'phase'
        FROM public.hc_schema AS line ORDER BY version
        """)
    private static let fingerprintQuestion = Query("SELECT public.hc_schema_fingerprint()")

    func ledger(
        of connection: PostgresConnection, _ database: String
    ) async throws -> [MigrationPlan.Applied] {
        try await plane.attempt("the ledger of \(database) cannot be read") {
            let results = try await answers(to: [MigrationRunner.ledgerQuestion], connection)
            return try results.map { try MigrationRunner.ledger($0[0], database) } ?? []
        }
    }

    func fingerprint(
        of connection: PostgresConnection, _ database: String
    ) async throws -> String {
        try await plane.attempt("the schema of \(database) cannot be read") {
            try await connection.execute(
                MigrationRunner.fingerprintQuestion, deadline: plane.deadline
            ).single().text(0)
        }
    }

    /// - Returns: nil if the database has no ledger.
    private func answers(
        to questions: [Query], _ connection: PostgresConnection
    ) async throws -> [PostgresResult]? {
        do {
            return try await connection.execute(questions, deadline: plane.deadline)
        } catch {
            guard error.sqlstate == .undefinedTable else { throw error }
            return nil
        }
    }

    private static func ledger(
        _ result: PostgresResult, _ database: String
    ) throws -> [MigrationPlan.Applied] {
        try result.rows.map { row in
            let phase = try row.textIfPresent(3)
            guard phase == nil || phase.flatMap(MigrationPlan.Phase.init) != nil else {
                throw ControlError(
                    .refused, code: "migration-unknown",
                    "the ledger of \(database) has the unknown phase '\(phase ?? "")'",
                    remedy: "Use the newest release of hc-admin.")
            }
            return MigrationPlan.Applied(
                version: try row.int(0), name: try row.text(1), checksum: try row.text(2),
                phase: phase.flatMap(MigrationPlan.Phase.init))
        }
    }
}
