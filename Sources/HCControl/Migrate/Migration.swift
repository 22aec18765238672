/// One numbered folder of SQL, `NNNN-name`.
package struct Migration: Sendable, Equatable {
    /// The number at the head of the folder's name, from 1 without gaps.
    package let version: Int
    package let name: String
    /// SHA-256 of `up.sql`, hex: an applied migration whose file changed is an error, never applied again.
    package let checksum: String
    /// `up.sql`.
    package let sql: String
    /// `down.sql`: takes it back, where that can be done.
    package let down: String?
    package let terms: MigrationTerms

    package init(
        version: Int, name: String, checksum: String, sql: String, down: String? = nil,
        terms: MigrationTerms = MigrationTerms()
    ) {
        self.version = version
        self.name = name
        self.checksum = checksum
        self.sql = sql
        self.down = down
        self.terms = terms
    }

    /// `0007-name`, as its folder is called.
    package var folder: String {
        let digits = String(version)
        return String(repeating: "0", count: max(0, 4 - digits.count)) + digits + "-" + name
    }
}
