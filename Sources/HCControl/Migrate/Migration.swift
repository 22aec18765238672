/// One numbered folder of SQL, `NNNN-name`.
package struct Migration: Sendable, Equatable {
    /// The number at the head of the folder's name, from 1 without gaps.
    package let version: Int
    package let name: String
    /// SHA-256 of `up.sql`, hex, or of all phases: an applied migration whose files changed is an error, never applied again.
    package let checksum: String
    /// `up.sql`; of a migration in phases, `expand.sql`.
    package let sql: String
    /// `backfill.sql`: one statement, which goes through the rows of one clinic, a batch at a time.
    package let backfill: String?
    /// `contract.sql`: what no program that serves needs any more goes.
    package let contract: String?
    /// `verify.sql`: one statement, whose rows say what is wrong afterwards.
    package let verify: String?
    /// `down.sql`: takes `sql` back, where that can be done.
    package let down: String?
    package let terms: MigrationTerms

    package init(
        version: Int, name: String, checksum: String, sql: String, backfill: String? = nil,
        contract: String? = nil, verify: String? = nil, down: String? = nil,
        terms: MigrationTerms = MigrationTerms()
    ) {
        self.version = version
        self.name = name
        self.checksum = checksum
        self.sql = sql
        self.backfill = backfill
        self.contract = contract
        self.verify = verify
        self.down = down
        self.terms = terms
    }

    /// `0007-name`, as its folder is called.
    package var folder: String {
        let digits = String(version)
        return String(repeating: "0", count: max(0, 4 - digits.count)) + digits + "-" + name
    }

    package var isPhased: Bool { backfill != nil || contract != nil }

    /// The migration that a program must know at least to work with the schema when all of it is applied; nil: any.
    package var servesFrom: Int? { terms.servesFrom ?? (contract == nil ? nil : version) }

    /// What is done of it, in order.
    package var steps: [MigrationStep] {
        guard isPhased else { return [MigrationStep(migration: self, phase: .up)] }
        var phases = [MigrationStep.Phase.expand]
        if backfill != nil { phases.append(.backfill) }
        if contract != nil { phases.append(.contract) }
        return phases.map { MigrationStep(migration: self, phase: $0) }
    }
}

/// What is done at a time: a migration, or one phase of it.
package struct MigrationStep: Sendable, Equatable {
    package enum Phase: Int, Sendable {
        case up
        case expand
        case backfill
        case contract

        package var name: String { "\(self)" }
    }

    package let migration: Migration
    package let phase: Phase

    package init(migration: Migration, phase: Phase) {
        self.migration = migration
        self.phase = phase
    }

    package var version: Int { migration.version }

    /// `later`, or `later (backfill)`.
    package var name: String {
        phase == .up ? migration.name : "\(migration.name) (\(phase.name))"
    }

    package var title: String { "\(version) \(name)" }

    /// The script, as it is in its file.
    package var sql: String {
        switch phase {
        case .up, .expand: migration.sql
        case .backfill: migration.backfill ?? ""
        case .contract: migration.contract ?? ""
        }
    }

    /// `0007-name/contract.sql`, below the folder of its set.
    package var file: String { "\(migration.folder)/\(phase.name).sql" }

    /// The migration that every program that serves must know before this step; nil: any may serve.
    package var servesFrom: Int? {
        switch phase {
        case .up, .contract: migration.servesFrom
        case .expand, .backfill: nil
        }
    }

    /// Whether the schema is another one afterwards: then no clinic may be on the move.
    package var changesSchema: Bool { phase != .backfill }

    /// Nothing of its migration comes after it.
    package var isLast: Bool { migration.steps.last == self }

    /// Grows from step to step of a set.
    package var order: Int { version << 2 + phase.rawValue }
}
