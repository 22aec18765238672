/// What a database's ledger says, compared with the catalog.
package struct MigrationPlan: Sendable {
    /// One line of `hc_schema`.
    package struct Applied: Sendable, Equatable {
        package let version: Int
        package let name: String
        package let checksum: String

        package init(version: Int, name: String, checksum: String) {
            self.version = version
            self.name = name
            self.checksum = checksum
        }
    }

    /// To be applied, in order.
    package let pending: [Migration]

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
        pending = Array(catalog.dropFirst(applied.count))
    }
}
