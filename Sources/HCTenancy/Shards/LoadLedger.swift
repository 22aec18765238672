import HCPostgres

/// What clinics used of one shard since it was last taken out. Pure.
///
/// Bounded: a clinic beyond `tenantsMax` is not counted until the next time. No more than that is asked of a ledger
/// from which averages are made.
struct LoadLedger {
    struct Entry: Equatable {
        /// For which connections were held.
        var pool = Duration.zero
        var work = PostgresWork()
    }

    private let tenantsMax: Int
    private(set) var entries: [TenantID: Entry] = [:]
    /// Additions that found no place.
    private(set) var missed = 0

    init(tenantsMax: Int) {
        self.tenantsMax = tenantsMax
    }

    mutating func add(_ tenant: TenantID, pool: Duration, _ work: PostgresWork) {
        guard entries[tenant] != nil || entries.count < tenantsMax else {
            missed += 1
            return
        }
        entries[tenant, default: Entry()].add(pool, work)
    }

    /// Everything, and the ledger is empty.
    mutating func take() -> [TenantID: Entry] {
        defer {
            entries.removeAll(keepingCapacity: true)
            missed = 0
        }
        return entries
    }
}

extension LoadLedger.Entry {
    fileprivate mutating func add(_ pool: Duration, _ work: PostgresWork) {
        self.pool += pool
        self.work.time += work.time
        self.work.rows += work.rows
        self.work.rowsChanged += work.rowsChanged
    }
}
