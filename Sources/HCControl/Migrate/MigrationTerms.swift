import HCCore

/// On what terms a migration is applied: its `migration.json`, every member of which may be left out.
package struct MigrationTerms: Sendable, Equatable {
    /// Whether the script and its line in the ledger are one transaction. Where not, it is one statement, which PostgreSQL
    /// takes only outside of one and which may be run once more.
    package var isTransactional = true
    /// For how long one attempt waits for a lock; whoever comes later waits behind it.
    package var lockTimeout = Duration.milliseconds(100)
    /// For how long locks are asked for again and again.
    package var lockTotal = Duration.seconds(60)
    /// For how long the script may run.
    package var timeout = Duration.seconds(600)
    /// The migration that a program must know to go on with the database after this one; nil: any may, for this one only
    /// adds. What takes away names the migration whose programs do without: see `SchemaRange`.
    package var servesFrom: Int?

    /// Of a backfill: how many rows its statement takes at a time,
    package var batchRows = 500
    /// which part of the time it works: the slower the shard answers, the longer it rests,
    package var busyPercent = 25
    /// and how far replicas may be behind before it waits for them.
    package var replicaLagBytesMax = 64 << 20

    package init() {}

    private static let lockTimeouts = 10...1000
    private static let lockTotals = 1...3600
    private static let timeouts = 1...86400
    private static let batches = 1...10_000
    private static let percents = 1...100
    private static let lagMegabytes = 1...10_240

    /// - Parameter version: the migration's own.
    /// - Throws: `ControlError` (`bad-migrations`) with every problem of the file.
    init(_ bytes: [UInt8], file: String, version: Int) throws(ControlError) {
        let value: JSONValue
        do {
            value = try JSONReader.parse(bytes)
        } catch {
            throw MigrationCatalog.refuse("\(file) is no JSON: \(error)")
        }
        guard let object = value.asObject else {
            throw MigrationCatalog.refuse("\(file) is no JSON object")
        }
        var problems: [String] = []
        func integer(_ name: String, in range: ClosedRange<Int>) -> Int64? {
            guard let value = object[name] else { return nil }
            if let number = value.asInteger, range.contains(Int(number)) { return number }
            problems.append(
                "\(name) is a whole number from \(range.lowerBound) to \(range.upperBound)")
            return nil
        }
        for name in object.names {
            switch name {
            case "transaction":
                if let flag = object[name]?.asBool {
                    isTransactional = flag
                } else {
                    problems.append("\(name) is true or false")
                }
            case "lockTimeoutMilliseconds":
                lockTimeout =
                    integer(name, in: MigrationTerms.lockTimeouts).map { .milliseconds($0) }
                    ?? lockTimeout
            case "lockTotalSeconds":
                lockTotal =
                    integer(name, in: MigrationTerms.lockTotals).map { .seconds($0) } ?? lockTotal
            case "servesFrom":
                servesFrom = integer(name, in: 1...version).map { Int($0) } ?? servesFrom
            case "timeoutSeconds":
                timeout = integer(name, in: MigrationTerms.timeouts).map { .seconds($0) } ?? timeout
            case "batchRows":
                batchRows = integer(name, in: MigrationTerms.batches).map { Int($0) } ?? batchRows
            case "busyPercent":
                busyPercent =
                    integer(name, in: MigrationTerms.percents).map { Int($0) } ?? busyPercent
            case "replicaLagMegabytesMax":
                replicaLagBytesMax =
                    integer(name, in: MigrationTerms.lagMegabytes).map { Int($0) << 20 }
                    ?? replicaLagBytesMax
            default: problems.append("\(name) is not known")
            }
        }
        guard problems.isEmpty else {
            throw MigrationCatalog.refuse("\(file): " + problems.joined(separator: "; "))
        }
    }
}
