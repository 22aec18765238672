import HCCore

/// What one server said of its clinics at one moment.
struct UseLook {
    struct Key: Hashable {
        let shard: String
        let tenant: String
    }

    struct Use {
        var waiting: Double
        var active: Double
        /// Since the server names the clinic.
        var transactions: Double
        var waits: Double
        var waitSeconds: Double
        var connectionSeconds: Double
        var rejected: Double
    }

    /// In seconds of the server's own clock.
    let at: Double
    let uses: [Key: Use]

    /// - Returns: nil for what is no such page.
    init?(_ bytes: [UInt8]) {
        let page: JSONValue
        do {
            page = try JSONReader.parse(bytes)
        } catch {
            return nil
        }
        func number(_ value: JSONValue, _ name: String) -> Double? {
            value[name]?.asDouble ?? value[name]?.asInteger.map { Double($0) }
        }
        guard let at = number(page, "at"), let entries = page["tenants"]?.asArray else {
            return nil
        }
        var uses: [Key: Use] = [:]
        for entry in entries {
            guard let shard = entry["shard"]?.asString, let tenant = entry["tenant"]?.asString,
                let waiting = number(entry, "waiting"), let active = number(entry, "active"),
                let transactions = number(entry, "transactions"),
                let waits = number(entry, "waits"), let waitTime = number(entry, "waitSeconds"),
                let used = number(entry, "connectionSeconds"),
                let rejected = number(entry, "rejected")
            else { return nil }
            uses[Key(shard: shard, tenant: tenant)] = Use(
                waiting: waiting, active: active, transactions: transactions, waits: waits,
                waitSeconds: waitTime, connectionSeconds: used, rejected: rejected)
        }
        self.at = at
        self.uses = uses
    }
}

/// What clinics used between two looks, of all servers together: who used most comes first.
struct UseTable {
    struct Line: Equatable {
        let shard: String
        let tenant: String
        var waiting = 0.0
        var active = 0.0
        var transactionsPerSecond = 0.0
        var waitsPerSecond = 0.0
        /// Of those that waited.
        var meanWaitSeconds = 0.0
        /// Connections that were in use on the average.
        var connections = 0.0
        var rejectedPerSecond = 0.0
    }

    let lines: [Line]
    let seconds: Double

    /// - Parameters:
    ///   - from: as many as `to`, in the same order of servers.
    ///   - shard: only this one; nil for all.
    init(from before: [UseLook], to after: [UseLook], shard: String?) {
        var found: [UseLook.Key: Line] = [:]
        var seconds = 0.0
        for (before, after) in zip(before, after) {
            let elapsed = max(0.001, after.at - before.at)
            seconds = max(seconds, elapsed)
            for (key, use) in after.uses where shard == nil || key.shard == shard {
                // A worker that was replaced, or names the clinic anew, begins at zero.
                func change(_ field: KeyPath<UseLook.Use, Double>) -> Double {
                    let earlier = before.uses[key]?[keyPath: field] ?? 0
                    let later = use[keyPath: field]
                    return later >= earlier ? later - earlier : later
                }
                var line = found[key] ?? Line(shard: key.shard, tenant: key.tenant)
                line.waiting += use.waiting
                line.active += use.active
                line.transactionsPerSecond += change(\.transactions) / elapsed
                line.waitsPerSecond += change(\.waits) / elapsed
                line.meanWaitSeconds += change(\.waitSeconds) / elapsed
                line.connections += change(\.connectionSeconds) / elapsed
                line.rejectedPerSecond += change(\.rejected) / elapsed
                found[key] = line
            }
        }
        lines = found.values.map { line in
            var line = line
            line.meanWaitSeconds =
                line.waitsPerSecond > 0 ? line.meanWaitSeconds / line.waitsPerSecond : 0
            return line
        }.sorted {
            ($1.connections, $1.waiting, $0.shard, $0.tenant)
                < ($0.connections, $0.waiting, $1.shard, $1.tenant)
        }
        self.seconds = seconds
    }

    func text(lines count: Int) -> String {
        let table = Table(
            header: [
                "CLINIC", "SHARD", "CONNECTIONS", "ACTIVE", "WAITING", "TX/S", "WAITED/S",
                "MEAN WAIT",
                "REJECTED/S",
            ],
            rows: lines.prefix(count).map {
                [
                    $0.tenant, $0.shard, UseTable.decimal($0.connections), "\(Int($0.active))",
                    "\(Int($0.waiting))", UseTable.decimal($0.transactionsPerSecond),
                    UseTable.decimal($0.waitsPerSecond),
                    "\(UseTable.decimal($0.meanWaitSeconds * 1000)) ms",
                    UseTable.decimal($0.rejectedPerSecond),
                ]
            })
        return lines.isEmpty ? "no clinic has asked for anything yet" : table.render()
    }

    func json(lines count: Int) -> JSONValue {
        [
            "seconds": .double(seconds),
            "tenants": .array(
                lines.prefix(count).map {
                    [
                        "tenant": .string($0.tenant), "shard": .string($0.shard),
                        "connections": .double($0.connections),
                        "active": .integer(Int64($0.active)),
                        "waiting": .integer(Int64($0.waiting)),
                        "transactionsPerSecond": .double($0.transactionsPerSecond),
                        "waitsPerSecond": .double($0.waitsPerSecond),
                        "meanWaitSeconds": .double($0.meanWaitSeconds),
                        "rejectedPerSecond": .double($0.rejectedPerSecond),
                    ]
                }),
        ]
    }

    /// With two digits after the point.
    static func decimal(_ value: Double) -> String {
        let hundredths = Int((value * 100).rounded())
        let rest = hundredths % 100
        return "\(hundredths / 100).\(rest < 10 ? "0" : "")\(rest)"
    }
}
