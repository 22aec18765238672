import HCTenancy

/// What a shard says of its clinics at one moment, and what follows from two of them. Pure.
struct LoadSample: Sendable, Equatable {
    /// `hc_load` of one clinic: counters that only grow, until the table is emptied.
    struct Counters: Sendable, Equatable {
        var execution = 0
        var pool = 0
        var rows = 0
        var rowsChanged = 0

        /// What was added since; everything, if they began anew.
        func since(_ earlier: Counters) -> Counters {
            guard execution >= earlier.execution, pool >= earlier.pool, rows >= earlier.rows,
                rowsChanged >= earlier.rowsChanged
            else { return self }
            return Counters(
                execution: execution - earlier.execution, pool: pool - earlier.pool,
                rows: rows - earlier.rows, rowsChanged: rowsChanged - earlier.rowsChanged)
        }
    }

    struct Clinic: Sendable, Equatable {
        var counters = Counters()
        /// Microseconds of connections in its busiest minute since the last sample.
        var busiest = 0
        var bytes = 0.0
        var rowsStored = 0.0
    }

    /// Seconds since 1970, by the shard's clock.
    var at: Double
    var timeline: Int
    /// End of the log, bytes.
    var position: Int
    var clinics: [TenantID: Clinic]

    /// What is known of the sample before.
    struct Before: Sendable, Equatable {
        var at: Double
        var timeline: Int
        var position: Int
    }

    /// What is kept of a clinic from one sample to the next.
    struct Kept: Sendable, Equatable {
        var history = LoadHistory()
        var counters = Counters()
    }

    /// Less than this between two samples says nothing: their difference is not looked at.
    static let elapsedMin = 1.0
    /// A first look shows disks and no rates: it counts for one second, as good as nothing once there is another.
    private static let firstLook = 1.0

    /// The clinics after this sample.
    ///
    /// The log is nobody's by itself: what it grew by is shared out by the rows that clinics changed.
    ///
    /// - Parameters:
    ///   - before: nil for the first sample of the shard.
    ///   - kept: of the clinics that were on this shard at the last sample.
    ///   - placed: clinics that the shard serves now.
    /// - Returns: nil if the last sample is so fresh that nothing follows from this one.
    func follow(
        _ before: Before?, kept: [TenantID: Kept], placed: [TenantID]
    ) -> [TenantID: Kept]? {
        let elapsed = before.map { at - $0.at } ?? LoadSample.firstLook
        guard elapsed >= LoadSample.elapsedMin else { return nil }
        var changes: [TenantID: Counters] = [:]
        if before != nil {
            for id in placed {
                let counters = clinics[id]?.counters ?? Counters()
                changes[id] = counters.since(kept[id]?.counters ?? Counters())
            }
        }
        let changed = changes.values.reduce(0) { $0 + $1.rowsChanged }
        let log =
            before.map { $0.timeline == timeline ? max(0, position - $0.position) : 0 } ?? 0
        var after: [TenantID: Kept] = [:]
        for id in placed {
            let clinic = clinics[id] ?? Clinic()
            var now = kept[id] ?? Kept()
            var load = LoadVector()
            if let change = changes[id] {
                load[.execution] = Double(change.execution) / 1e6 / elapsed
                load[.pool] = Double(change.pool) / 1e6 / elapsed
                load[.rows] = Double(change.rows) / elapsed
                let share = Double(change.rowsChanged) / Double(max(1, changed))
                load[.wal] = Double(log) * share / elapsed
                load[.connections] = Double(clinic.busiest) / 60e6
            }
            load[.disk] = clinic.bytes
            now.history.note(load, elapsed: elapsed, now: Int(at))
            now.counters = clinic.counters
            after[id] = now
        }
        return after
    }
}
