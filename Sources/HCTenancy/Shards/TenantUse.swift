import HCCore

/// The clinics that use a shard's connections most, and all others as one: what a process shows of them, however many
/// there are. Pure.
///
/// Numbers begin when a clinic comes among the named, and begin anew when it does so again.
struct TenantUse {
    typealias Use = FairQueue<TenantID>.Use
    typealias View = FairQueue<TenantID>.FlowView

    /// One line of what is shown.
    struct Line: Equatable {
        /// Nil: all that are not named.
        var tenant: TenantID?
        var waiting = 0
        var active = 0
        var use = Use()
    }

    /// Clinics of a shard that are named.
    private let namedMax: Int
    private var seen: [TenantID: Use] = [:]
    private var seenForgotten = Use()
    /// What a clinic used lately, older use counting less.
    private var scores: [TenantID: Double] = [:]
    private var named: [TenantID: Use] = [:]
    private var others = Use()

    init(namedMax: Int) {
        self.namedMax = namedMax
    }

    /// Takes in what a queue remembers now. Costs O(n log n) in the clinics that are remembered.
    mutating func update(_ views: [View], forgotten: Use) -> [Line] {
        var (changes, lately): ([TenantID: Use], [TenantID: Double]) = ([:], [:])
        var now: [TenantID: Use] = [:]
        for view in views {
            now[view.flow] = view.use
            let change = view.use.since(seen[view.flow] ?? Use())
            changes[view.flow] = change
            lately[view.flow] =
                (scores[view.flow] ?? 0) / 2 + change.usedTime / .milliseconds(1)
                + Double(change.requests + change.rejected + view.waiting)
        }
        let top = Set(
            lately.filter { $0.value > 0.01 }
                .sorted { ($1.value, $0.key.uuid) < ($0.value, $1.key.uuid) }
                .prefix(namedMax).map(\.key))
        others.add(forgottenChange(forgotten, now))
        (seen, scores) = (now, lately)
        // What was shown by name goes on in the sum.
        for (tenant, use) in named where !top.contains(tenant) {
            others.add(use)
            named[tenant] = nil
        }
        var lines: [Line] = []
        var rest = Line(tenant: nil)
        for view in views {
            let change = changes[view.flow] ?? Use()
            if top.contains(view.flow) {
                named[view.flow, default: Use()].add(change)
                lines.append(
                    Line(
                        tenant: view.flow, waiting: view.waiting, active: view.active,
                        use: named[view.flow] ?? Use()))
            } else {
                others.add(change)
                rest.waiting += view.waiting
                rest.active += view.active
            }
        }
        rest.use = others
        return lines + [rest]
    }

    /// What clinics used between the last look and the moment in which the queue forgot them.
    private mutating func forgottenChange(_ forgotten: Use, _ now: [TenantID: Use]) -> Use {
        var change = forgotten.since(seenForgotten)
        seenForgotten = forgotten
        for (tenant, use) in seen where now[tenant] == nil { change = change.since(use) }
        return change
    }
}

extension FairQueue.Use {
    /// What was added since; nothing where it began anew.
    func since(_ earlier: Self) -> Self {
        guard requests >= earlier.requests else { return self }
        return Self(
            requests: requests - earlier.requests, waits: max(0, waits - earlier.waits),
            waitTime: max(.zero, waitTime - earlier.waitTime),
            usedTime: max(.zero, usedTime - earlier.usedTime),
            rejected: max(0, rejected - earlier.rejected))
    }
}

/// The metrics of clinics, as a worker sends them and `hc-admin tenant top` reads them.
package enum TenantMetrics {
    package static let names: [(name: String, help: String)] = [
        ("hc_tenant_waiting", "Transactions of a clinic that wait for a connection to its shard"),
        ("hc_tenant_active", "Transactions of a clinic that have a connection to its shard"),
        ("hc_tenant_transactions", "Transactions of a clinic since the worker names it"),
        ("hc_tenant_waits", "Transactions of a clinic that did not get a connection at once"),
        ("hc_tenant_wait_seconds", "Time that transactions of a clinic waited for a connection"),
        ("hc_tenant_connection_seconds", "Time for which a clinic used connections"),
        ("hc_tenant_rejected", "Transactions of a clinic that got no connection"),
    ]

    /// All clinics of a shard that are not named.
    package static let others = "other"
    /// The platform's own work.
    package static let platform = "platform"

    /// Appends one sample for each name. They are gauges: of one worker, and gone with it.
    static func append(
        _ line: TenantUse.Line, shard: ShardID, tenant: String, to snapshot: inout MetricsSnapshot
    ) {
        let values: [Double] = [
            Double(line.waiting), Double(line.active), Double(line.use.requests),
            Double(line.use.waits), line.use.waitTime / .seconds(1),
            line.use.usedTime / .seconds(1), Double(line.use.rejected),
        ]
        let labels = MetricLabels([("shard", shard.text), ("tenant", tenant)])
        for ((name, help), value) in zip(names, values) {
            var family =
                snapshot.families[name]
                ?? MetricsSnapshot.Family(help: help, kind: .gauge, samples: [:])
            family.samples[labels] = .gauge(value)
            snapshot.families[name] = family
        }
    }
}
