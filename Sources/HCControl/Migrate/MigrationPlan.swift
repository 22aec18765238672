/// What a database's ledger says, compared with the catalog.
package struct MigrationPlan: Sendable {
    /// `hc_schema.phase`.
    package enum Phase: String, Sendable {
        case expanded
        case backfilled
    }

    /// One line of `hc_schema`.
    package struct Applied: Sendable, Equatable {
        package let version: Int
        package let name: String
        package let checksum: String
        /// What has been done of it; nil: all.
        package let phase: Phase?

        package init(version: Int, name: String, checksum: String, phase: Phase? = nil) {
            self.version = version
            self.name = name
            self.checksum = checksum
            self.phase = phase
        }
    }

    /// To be done, in order.
    package let pending: [MigrationStep]

    /// - Throws: `ControlError` (`migration-changed`, `migration-unknown`) when the ledger and the files cannot
    ///   both be right: then nothing may be applied before a person has looked.
    package init(
        database: String, catalog: [Migration], applied: [Applied]
    ) throws(ControlError) {
        for (position, line) in applied.enumerated() {
            guard position < catalog.count, line.version == catalog[position].version else {
                throw ControlError(
                    .refused, code: "migration-unknown",
                    "\(database) has migration \(line.version) (\(line.name)), which these files do not have",
                    remedy: "Use the migrations of the newest release that was applied.")
            }
            guard line.checksum == catalog[position].checksum else {
                throw ControlError(
                    .refused, code: "migration-changed",
                    "migration \(line.version) (\(line.name)) was changed after \(database) had applied it",
                    remedy: "Restore the file, and put the change into a new migration.")
            }
        }
        var open: [MigrationStep] = []
        for (position, line) in applied.enumerated() {
            guard let phase = line.phase else { continue }
            guard position == applied.count - 1 else {
                throw ControlError(
                    .refused, code: "migration-unknown",
                    "\(database) has migrations after \(line.version) (\(line.name)), which is only"
                        + " \(phase.rawValue)",
                    remedy: "Somebody has changed its ledger by hand: put it right.")
            }
            let done: MigrationStep.Phase = phase == .expanded ? .expand : .backfill
            open = catalog[position].steps.filter { $0.phase.rawValue > done.rawValue }
        }
        pending = open + catalog.dropFirst(applied.count).flatMap(\.steps)
    }
}
