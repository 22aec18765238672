import HCCore
import HCCrypto

@testable import HCTenancy

/// Values that tests of the pure parts are made of.
enum Sample {
    static func tenant(_ number: UInt64) -> TenantID { TenantID(UUID(high: 0x7000, low: number)) }

    static func record(
        _ number: UInt64 = 1, hosts: [String]? = nil, tier: String = "basic",
        state: TenantRecord.State = .active, shard: String = "s1", epoch: Int64 = 1,
        placement: TenantRecord.PlacementState = .serving, keys: [WrappedKey] = [],
        origins: [String] = []
    ) -> TenantRecord {
        TenantRecord(
            id: tenant(number), slug: "clinic\(number)", name: "Clinic \(number)",
            hosts: hosts ?? ["clinic\(number).localhost"], tierName: tier, state: state,
            timeZone: "UTC", locale: "en", origins: origins, shard: ShardID(shard), epoch: epoch,
            placement: placement,
            keys: keys)
    }

    static func shard(_ id: String, timeline: Int = 1, reference: String? = nil) -> ShardRecord {
        ShardRecord(
            id: ShardID(id), reference: reference ?? id, state: .open,
            identity: ShardIdentity(
                systemIdentifier: "7000000000000000001", timeline: timeline, databaseOID: 16384),
            connectionLimit: 100)
    }

    static let basic = TierDefinition(name: "basic", unitsPerSecond: 50, burstUnits: 1000)

    static func map(
        version: Int64 = 1, source: String = "7/1", _ tenants: [TenantRecord]
    ) -> DirectorySnapshot {
        DirectorySnapshot(
            source: source, version: version, tenants: tenants, shards: [shard("s1"), shard("s2")],
            tiers: [basic])
    }

    static func master(_ seed: UInt8 = 1) throws -> MasterKey {
        try MasterKey(
            keys: [
                (id: "m\(seed)", key: SecretBytes((0..<32).map { UInt8($0) &* 7 &+ seed }))
            ])
    }

    static let metrics = TenancyMetrics(MetricsRegistry())
}

extension TierDefinition {
    /// One bucket for everything.
    init(name: String, unitsPerSecond: Int, burstUnits: Int) {
        self.init(name: name, rates: [.bucket(units: unitsPerSecond, burst: burstUnits)])
    }
}
