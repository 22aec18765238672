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
        let exempt = set == .control ? baseline.control : baseline.shard
        let seen = try await examine(
            migrations(of: set).flatMap(\.steps), of: set, server: server
        ) { $0.version > exempt }
        return seen.flatMap { $0.outcome.findings }
    }

    /// Which locks steps take, as an empty database shows it.
    ///
    /// - Returns: by the steps' order; without those that come after one that does not apply.
    /// - Throws: `ControlError`, when there is no server to look at it with.
    package func locks(
        of steps: [MigrationStep], in set: DatabaseSet, server: String = "control"
    ) async throws -> [Int: [TableLock]] {
        let orders = Set(steps.map(\.order))
        guard let last = orders.max() else { return [:] }
        let all = migrations(of: set).flatMap(\.steps).filter { $0.order <= last }
        let seen = try await examine(all, of: set, server: server) { orders.contains($0.order) }
        return Dictionary(
            uniqueKeysWithValues: seen.compactMap { step, outcome in
                outcome.locks.map { (step.order, $0) }
            })
    }

    private func migrations(of set: DatabaseSet) -> [Migration] {
        set == .control ? catalog.control : catalog.shard
    }

    /// Applies steps to a scratch database.
    ///
    /// - Parameter isMeant: of the others nothing is told, unless they do not apply.
    /// - Returns: up to the first that does not apply.
    private func examine(
        _ steps: [MigrationStep], of set: DatabaseSet, server: String,
        _ isMeant: (MigrationStep) -> Bool
    ) async throws -> [(step: MigrationStep, outcome: LintExamination.Outcome)] {
        let scratch = try await LintScratch.make(plane: plane, server: server)
        var seen: [(step: MigrationStep, outcome: LintExamination.Outcome)] = []
        do {
            for step in steps {
                plane.progress("\(set.rawValue): looking at \(step.title)")
                let examination = LintExamination(
                    set: set, step: step, connection: scratch.owner,
                    deadline: .after(
                        MigrationLint.migrationTimeout, from: plane.clocks.monotonic()))
                let outcome = try await look(examination, isMeant: isMeant(step))
                if isMeant(step) || !outcome.isApplied { seen.append((step, outcome)) }
                guard outcome.isApplied else { break }
            }
        } catch {
            try await scratch.remove()
            throw error
        }
        try await scratch.remove()
        return seen
    }

    private func look(
        _ examination: LintExamination, isMeant: Bool
    ) async throws -> LintExamination.Outcome {
        do {
            var outcome = try await take(examination, looks: isMeant)
            if examination.step.isLast {
                outcome.findings += try await examination.verification()
            }
            return outcome
        } catch let error as LintExamination.Refusal {
            return .init(findings: [examination.finding(of: error)], isApplied: false)
        }
    }

    private func take(
        _ examination: LintExamination, looks: Bool
    ) async throws -> LintExamination.Outcome {
        switch examination.step.phase {
        case .up, .expand:
            let before = try await examination.fingerprint()
            var outcome = try await apply(examination, looks: looks)
            outcome.findings += try await examination.wayBack(to: before)
            return outcome
        case .backfill:
            return .init(findings: try await examination.batch())
        case .contract:
            return try await examination.inTransaction(looks: looks)
        }
    }

    /// As its `migration.json` says; where that is wrong, as PostgreSQL will have it.
    private func apply(
        _ examination: LintExamination, looks: Bool
    ) async throws -> LintExamination.Outcome {
        guard examination.migration.terms.isTransactional else {
            return try await examination.outsideTransaction()
        }
        do {
            return try await examination.inTransaction(looks: looks)
        } catch let error as LintExamination.Refusal {
            guard error.sqlstate == MigrationLint.activeTransaction else { throw error }
            return try await examination.outsideTransaction()
        }
    }
}
