package import HCTenancy

/// Shards, clinics and what is asked of their places: everything a plan is made from. A value; the order of the
/// clinics decides between equals, so the same fleet gives the same plan.
package struct RebalanceFleet: Sendable {
    package struct Shard: Sendable, Equatable {
        package enum Status: String, Sendable {
            /// Takes clinics.
            case open
            /// Is to have none.
            case draining
            /// Has none and takes none.
            case closed
        }

        package var id: String
        package var status: Status
        /// What it can do; 0: nobody has told, and the dimension does not count for it.
        package var capacity: LoadVector
        /// Most that the tier weights of its clinics may add up to.
        package var weightMax: Int
        /// Clinics never leave their region. Empty: the one that has no name.
        package var region: String
        /// Only for clinics that are dedicated to the same name.
        package var dedicatedTo: String?

        package init(
            id: String, status: Status = .open, capacity: LoadVector, weightMax: Int,
            region: String = "", dedicatedTo: String? = nil
        ) {
            self.id = id
            self.status = status
            self.capacity = capacity
            self.weightMax = weightMax
            self.region = region
            self.dedicatedTo = dedicatedTo
        }
    }

    package struct Clinic: Sendable, Equatable {
        package var id: TenantID
        /// Index of its shard.
        package var shard: Int
        package var load: LoadVector
        /// What a move copies.
        package var bytes: Double
        /// Of its tier: what it reserves on a shard, and how much its pause costs.
        package var weight: Int
        /// Index of the shard that it has to be on.
        package var pin: Int?
        /// Clinics of one group are never on one shard.
        package var group: Int?
        /// Nil: that of the shard it is on.
        package var region: String?
        package var dedicatedTo: String?
        /// It moves, or moved lately: no move for balance.
        package var isResting: Bool
        /// It cannot be moved at all: a move of it is under way.
        package var isFixed: Bool

        package init(
            id: TenantID, shard: Int, load: LoadVector, bytes: Double, weight: Int = 1,
            pin: Int? = nil, group: Int? = nil, region: String? = nil, dedicatedTo: String? = nil,
            isResting: Bool = false, isFixed: Bool = false
        ) {
            self.id = id
            self.shard = shard
            self.load = load
            self.bytes = bytes
            self.weight = weight
            self.pin = pin
            self.group = group
            self.region = region
            self.dedicatedTo = dedicatedTo
            self.isResting = isResting
            self.isFixed = isFixed
        }
    }

    package var shards: [Shard]
    package var clinics: [Clinic]

    package init(shards: [Shard], clinics: [Clinic]) {
        self.shards = shards
        self.clinics = clinics
    }

    /// Shards among which a clinic may be moved: those of one region and one dedication.
    struct Pool: Hashable {
        var region: String
        var dedicatedTo: String?
    }

    func pool(of shard: Shard) -> Pool {
        Pool(region: shard.region, dedicatedTo: shard.dedicatedTo)
    }

    func pool(of clinic: Clinic) -> Pool {
        Pool(region: clinic.region ?? shards[clinic.shard].region, dedicatedTo: clinic.dedicatedTo)
    }

    /// The regions that some clinics of a shard may be in, and its own.
    func regions(of clinics: Set<TenantID>, on shard: String) -> Set<String> {
        guard let index = shards.firstIndex(where: { $0.id == shard }) else { return [] }
        return Set(
            self.clinics.filter { $0.shard == index && clinics.contains($0.id) }
                .map { pool(of: $0).region }
        ).union([shards[index].region])
    }

    /// Of each group, its clinics.
    func groups() -> [Int: [TenantID]] {
        var groups: [Int: Set<TenantID>] = [:]
        for clinic in clinics {
            if let group = clinic.group { groups[group, default: []].insert(clinic.id) }
        }
        return groups.mapValues { $0.sorted { "\($0)" < "\($1)" } }
    }

    /// What contradicts itself, in words; empty when a plan can be made.
    package var problems: [String] {
        var problems: [String] = []
        for shard in shards where !shard.capacity.isSound {
            problems.append("the capacity of shard \(shard.id) is no amount")
        }
        for clinic in clinics {
            guard shards.indices.contains(clinic.shard) else {
                problems.append("clinic \(clinic.id) is on no shard")
                continue
            }
            if !clinic.load.isSound || !clinic.bytes.isFinite || clinic.bytes < 0 {
                problems.append("the load of clinic \(clinic.id) is no amount")
            }
            guard let pin = clinic.pin else { continue }
            guard shards.indices.contains(pin) else {
                problems.append("clinic \(clinic.id) is pinned to no shard")
                continue
            }
            if pool(of: shards[pin]) != pool(of: clinic) {
                problems.append(
                    "clinic \(clinic.id) is pinned to shard \(shards[pin].id), which is not for its"
                        + " region or dedication")
            }
        }
        return problems
    }
}
