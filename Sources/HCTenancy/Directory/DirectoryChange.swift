/// What of a map changed from one version to another.
struct DirectoryChange: Equatable {
    var source: String
    var after: Int64
    var version: Int64
    var tenants: [TenantRecord]
    var gone: [TenantID]
    /// All of them, if any changed.
    var shards: [ShardRecord]?
    var tiers: [TierDefinition]?
}

/// What changed lately in this process' map, so that a file of an older version is brought up to date by what it
/// lacks and not by everything.
struct RecentChanges {
    /// The file is replaced when its changes are longer than the map in it, and than this.
    static let fileChangesMin = 1 << 20

    /// Everything that changed after this version is known.
    private(set) var floor: Int64
    private var tenants: [TenantID: Int64] = [:]
    private var shards: Int64?
    private var tiers: Int64?
    private let tenantsMax: Int

    /// - Parameter version: of the map as it was read.
    init(from version: Int64, tenantsMax: Int = 20_000) {
        floor = version
        self.tenantsMax = tenantsMax
    }

    mutating func note(_ reading: FollowerMachine.Reading) {
        for tenant in reading.tenants { tenants[tenant] = reading.version }
        if reading.shards { shards = reading.version }
        if reading.tiers { tiers = reading.version }
        if tenants.count > tenantsMax {
            self = RecentChanges(from: reading.version, tenantsMax: tenantsMax)
        }
    }

    /// The file holds all up to here.
    mutating func forget(through version: Int64) {
        guard version > floor else { return }
        floor = version
        tenants = tenants.filter { $0.value > version }
        if let last = shards, last <= version { shards = nil }
        if let last = tiers, last <= version { tiers = nil }
    }

    enum Saving: Equatable {
        /// The file is as new, or newer.
        case nothing
        case append(DirectoryChange)
        case replace
    }

    /// - Parameter file: nil if there is none that can be read.
    func saving(_ map: DirectorySnapshot, over file: DirectoryFile.State?) -> Saving {
        guard let file, file.source == map.source, file.revision >= DirectoryFile.revision else {
            return .replace
        }
        if file.version >= map.version { return .nothing }
        let changesLength = file.end - file.mapLength
        guard file.version >= floor,
            changesLength <= max(RecentChanges.fileChangesMin, file.mapLength)
        else { return .replace }
        var change = DirectoryChange(
            source: map.source, after: file.version, version: map.version, tenants: [], gone: [])
        for (tenant, version) in tenants where version > file.version {
            if let record = map.find(tenant) {
                change.tenants.append(record)
            } else {
                change.gone.append(tenant)
            }
        }
        if let shards, shards > file.version { change.shards = Array(map.shardRecords) }
        if let tiers, tiers > file.version { change.tiers = Array(map.tierDefinitions) }
        return .append(change)
    }
}
