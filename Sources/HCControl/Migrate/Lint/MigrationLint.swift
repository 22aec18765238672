import HCCore
package import HCIO
import HCPostgres

/// Checks migrations before they are run anywhere: PostgreSQL applies them to a scratch database, statement by statement,
/// and its catalogue, locks and statistics say what each one did.
///
/// Emptiness hides nothing: whether a table is written anew, read or locked does not depend on its rows.
@LoopActor
package struct MigrationLint {
    package enum DatabaseSet: String, Sendable {
        case control
        case shard
    }

    /// Migrations up to these are applied everywhere and cannot be changed: they are the ground that the next ones meet.
    package struct Baseline: Sendable {
        package var control: Int
        package var shard: Int

        /// Of this repository: written before there was a linter. Never raised to silence a finding.
        package static let released = Baseline(control: 7, shard: 5)

        package init(control: Int, shard: Int) {
            self.control = control
            self.shard = shard
        }
    }

    let plane: ControlPlane
    let catalog: MigrationCatalog
    let baseline: Baseline

    private static let migrationTimeout = Duration.seconds(600)
    /// "… cannot run inside a transaction block".
    static let activeTransaction = SQLState("25001")

    package init(plane: ControlPlane, catalog: MigrationCatalog, baseline: Baseline = .released) {
        self.plane = plane
        self.catalog = catalog
        self.baseline = baseline
    }

    /// - Parameter shard: on whose server the scratch databases are made; nil: the control database's.
    /// - Returns: in the order of files and lines; after a migration that does not apply, its set ends.
    /// - Throws: `ControlError`, when there is no server to check with.
    package func run(shard: String? = nil) async throws -> [LintFinding] {
        var server = "control"
        if let shard {
            server = "shards/\(try await ShardRegistry(plane: plane).find(shard).reference)"
        }
        return try await run(.control, server: server) + run(.shard, server: server)
    }

    /// One set of migrations.
    func run(_ set: DatabaseSet, server: String) async throws -> [LintFinding] {
        let scratch = try await LintScratch.make(plane: plane, server: server)
        let findings: [LintFinding]
        do {
            findings = try await examine(set, on: scratch.owner)
        } catch {
            try await scratch.remove()
            throw error
        }
        try await scratch.remove()
        return findings
    }

    private func examine(
        _ set: DatabaseSet, on connection: PostgresConnection
    ) async throws -> [LintFinding] {
        let (migrations, exempt) =
            switch set {
            case .control: (catalog.control, baseline.control)
            case .shard: (catalog.shard, baseline.shard)
            }
        var findings: [LintFinding] = []
        for step in migrations.flatMap(\.steps) {
            plane.progress("\(set.rawValue): looking at \(step.title)")
            let examination = LintExamination(
                set: set, step: step, connection: connection,
                deadline: .after(MigrationLint.migrationTimeout, from: plane.clocks.monotonic()))
            let isExempt = step.version <= exempt
            do {
                let more = try await look(examination, isExempt: isExempt)
                if !isExempt { findings += more }
            } catch let error as LintExamination.Refusal {
                return findings + [examination.finding(of: error)]
            }
            if step.isLast { findings += try await examination.verification() }
        }
        return findings
    }

    private func look(
        _ examination: LintExamination, isExempt: Bool
    ) async throws -> [LintFinding] {
        switch examination.step.phase {
        case .up, .expand:
            let before = try await examination.fingerprint()
            return try await apply(examination, isExempt: isExempt).findings
                + examination.wayBack(to: before)
        case .backfill:
            return try await examination.batch()
        case .contract:
            return try await examination.inTransaction(looks: !isExempt).findings
        }
    }

    /// As its `migration.json` says; where that is wrong, as PostgreSQL will have it.
    private func apply(
        _ examination: LintExamination, isExempt: Bool
    ) async throws -> LintExamination.Outcome {
        guard examination.migration.terms.isTransactional else {
            return try await examination.outsideTransaction()
        }
        do {
            return try await examination.inTransaction(looks: !isExempt)
        } catch let error as LintExamination.Refusal {
            guard error.sqlstate == MigrationLint.activeTransaction else { throw error }
            return try await examination.outsideTransaction()
        }
    }
}
