import HCCore

/// The map of all clinics as of one version of `placement_log`. A value: a request holds the record that it
/// found, and a later change does not alter it.
///
/// Invariants: a host leads to the record that lists it; a clinic is in both tables or in neither; a host that
/// is not there leads nowhere, and no clinic is ever found by computing.
package struct DirectorySnapshot: Sendable {
    /// The last line of `placement_log` that is contained.
    package private(set) var version: Int64
    private var tables: Tables

    /// One object, so that a copy of the map, which every request makes to find its clinic, counts one reference.
    ///
    /// `@unchecked Sendable`: changed by `changing` only, where nobody else has it.
    private final class Tables: @unchecked Sendable {
        let source: String
        var byID: [TenantID: TenantRecord] = [:]
        var byHost: [String: TenantRecord] = [:]
        var shards: [ShardID: ShardRecord] = [:]
        var tiers: [String: TierDefinition] = [:]
        /// Where clinics were before their last move that this process has seen: other processes may not have.
        var former: [TenantID: TenantRecord] = [:]

        init(source: String) {
            self.source = source
        }

        init(copyOf other: Tables) {
            source = other.source
            byID = other.byID
            byHost = other.byHost
            shards = other.shards
            tiers = other.tiers
            former = other.former
        }
    }

    /// In place, if no other copy of the map has the tables.
    private var changing: Tables {
        mutating get {
            if !isKnownUniquelyReferenced(&tables) { tables = Tables(copyOf: tables) }
            return tables
        }
    }

    package init(
        source: String, version: Int64, tenants: [TenantRecord] = [], shards: [ShardRecord],
        tiers: [TierDefinition]
    ) {
        self.version = version
        tables = Tables(source: source)
        add(tenants)
        replaceShards(shards)
        replaceTiers(tiers)
    }

    /// Which control database it came from: versions of two databases cannot be compared.
    package var source: String { tables.source }
    package var tenantCount: Int { tables.byID.count }
    package var tenants: some Collection<TenantRecord> { tables.byID.values }
    var shardRecords: some Collection<ShardRecord> { tables.shards.values }
    var tierDefinitions: some Collection<TierDefinition> { tables.tiers.values }

    /// - Parameter host: lower case, without port.
    package func find(host: String) -> TenantRecord? { tables.byHost[host] }
    package func find(_ tenant: TenantID) -> TenantRecord? { tables.byID[tenant] }
    func formerRecord(of tenant: TenantID) -> TenantRecord? { tables.former[tenant] }
    func find(_ shard: ShardID) -> ShardRecord? { tables.shards[shard] }
    package func findTier(_ name: String) -> TierDefinition? { tables.tiers[name] }

    // MARK: Changes

    /// Takes in a part of the map that is being read for the first time.
    mutating func add(_ tenants: [TenantRecord]) {
        for record in tenants { insert(record) }
    }

    /// The clinics whose record is another one here than there, or is in one of the two only.
    func differences(from other: DirectorySnapshot) -> [TenantID] {
        var different = tables.byID.values.filter { other.tables.byID[$0.id] != $0 }.map(\.id)
        different += other.tables.byID.keys.filter { tables.byID[$0] == nil }
        return different
    }

    /// Takes in what was read again after `version` lines of the log: records that are there, and the ids of
    /// those that were asked for.
    ///
    /// - Returns: the clinics whose record changed, appeared or went.
    @discardableResult
    mutating func apply(
        version: Int64, asked: [TenantID], found: [TenantRecord], shards: [ShardRecord]?,
        tiers: [TierDefinition]?
    ) -> [TenantID] {
        precondition(version >= self.version, "a map does not grow older")
        self.version = version
        var changed: [TenantID] = []
        var missing = Set(asked)
        for record in found {
            missing.remove(record.id)
            if insert(record) { changed.append(record.id) }
        }
        for tenant in missing where remove(tenant) { changed.append(tenant) }
        if let shards { replaceShards(shards) }
        if let tiers { replaceTiers(tiers) }
        return changed
    }

    /// - Returns: false when nothing changed. A record of a lower epoch is an old reading and changes nothing.
    @discardableResult
    private mutating func insert(_ record: TenantRecord) -> Bool {
        if let old = tables.byID[record.id] {
            if old == record || old.epoch > record.epoch { return false }
            dropHosts(of: old)
            if record.isElsewhere(than: old) { changing.former[record.id] = old }
        }
        changing.byID[record.id] = record
        for host in record.hosts { changing.byHost[host] = record }
        return true
    }

    private mutating func remove(_ tenant: TenantID) -> Bool {
        guard let old = changing.byID.removeValue(forKey: tenant) else { return false }
        dropHosts(of: old)
        changing.former[tenant] = nil
        return true
    }

    /// A host may have gone to another clinic meanwhile: that entry stays.
    private mutating func dropHosts(of record: TenantRecord) {
        for host in record.hosts where tables.byHost[host]?.id == record.id {
            changing.byHost[host] = nil
        }
    }

    private mutating func replaceShards(_ records: [ShardRecord]) {
        changing.shards = Dictionary(
            records.map { ($0.id, $0) }, uniquingKeysWith: { _, new in new })
    }

    private mutating func replaceTiers(_ definitions: [TierDefinition]) {
        changing.tiers = Dictionary(
            definitions.map { ($0.name, $0) }, uniquingKeysWith: { _, new in new })
    }
}
