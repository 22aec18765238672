import HCCore
import HCPostgres
import HCTenancy

extension TenantKeys {
    /// Opens a sealed column where it lies in the result.
    ///
    /// - Throws: `TenancyError.sealBroken` also where there is nothing.
    func open(
        _ row: PostgresRow, _ column: Int, table: StaticString, column name: StaticString, id: UUID
    ) throws -> [UInt8] {
        try row.withBytes(column) { sealed in
            guard let sealed else { throw TenancyError.sealBroken }
            return try open(sealed, table: table, column: name, row: id)
        }
    }
}
