import HCCore
import HCTenancy

/// What clinics use of their shards' connections, over all workers of a supervisor: `GET /tenants/use`.
struct TenantUsePage {
    private struct Key: Hashable, Comparable {
        let shard: String
        let tenant: String

        static func < (left: Key, right: Key) -> Bool {
            (left.shard, left.tenant) < (right.shard, right.tenant)
        }
    }

    /// In the order of `TenantMetrics.names`.
    private var values: [Key: [Double]] = [:]

    init(_ page: MetricsSnapshot) {
        for (index, (name, _)) in TenantMetrics.names.enumerated() {
            for (labels, value) in page.families[name]?.samples ?? [:] {
                guard let shard = labels["shard"], let tenant = labels["tenant"],
                    case .gauge(let number) = value
                else { continue }
                let none = [Double](repeating: 0, count: TenantMetrics.names.count)
                values[Key(shard: shard, tenant: tenant), default: none][index] += number
            }
        }
    }

    /// - Parameter now: so that the time between two pages is known to who reads them.
    func json(at now: MonotonicTime) -> JSONValue {
        [
            "at": .double(Double(now.nanoseconds) / 1e9),
            "tenants": .array(
                values.sorted { $0.key < $1.key }.map { key, values in
                    [
                        "shard": .string(key.shard), "tenant": .string(key.tenant),
                        "waiting": .integer(Int64(values[0])), "active": .integer(Int64(values[1])),
                        "transactions": .integer(Int64(values[2])),
                        "waits": .integer(Int64(values[3])), "waitSeconds": .double(values[4]),
                        "connectionSeconds": .double(values[5]),
                        "rejected": .integer(Int64(values[6])),
                    ]
                }),
        ]
    }
}
