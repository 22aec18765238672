import HCCore
package import HCIO
import HCRedis

/// Whose buckets they are: a clinic's, or those of one account or network address in a clinic.
struct LimitKey: Hashable {
    let tenant: TenantID
    let scope: RateScope
    let subject: UUID

    // Written out, for this is done three times for each request: an enumeration of texts would be hashed as its text.
    func hash(into hasher: inout Hasher) {
        hasher.combine(tenant.uuid.low)
        hasher.combine(subject.high)
        hasher.combine(subject.low &+ UInt64(truncatingIfNeeded: scope.index))
    }

    static func == (left: LimitKey, right: LimitKey) -> Bool {
        left.tenant.uuid.low == right.tenant.uuid.low && left.subject.low == right.subject.low
            && left.subject.high == right.subject.high
            && left.tenant.uuid.high == right.tenant.uuid.high
            && left.scope.index == right.scope.index
    }
}

/// The network address of a client as limits see it: an IPv4 address, or the /64 of an IPv6 address, which is what one
/// customer of a provider has.
package struct LimitAddress: Hashable, Sendable {
    let bits: UUID

    /// - Parameter address: as judged by the server: of the connection, or what a trusted proxy has said.
    package init(_ address: SocketAddress) {
        switch address.unmapped {
        case .ipv4(let address, _): bits = UUID(high: 4, low: UInt64(address))
        case .ipv6(let high, _, _, _): bits = UUID(high: 6, low: high)
        case .unix: bits = UUID(high: 1, low: 0)
        }
    }
}

/// The buckets of one scope for one clinic, account or address.
final class LimitGroup {
    let key: LimitKey
    private(set) var plan: LimitPlan
    /// Of the plan: which buckets have a say in which class.
    private(set) var places: LimitPlan.ClassPlaces
    /// Of the plan's rules: that of the first bucket. Those of the others follow.
    private(set) var firstRule: Int
    private(set) var generation: Int
    var buckets: ContiguousArray<LeasedBucket>
    /// Grows when other buckets take the place of these.
    private(set) var edition = 0
    /// Requests that wait for a question about one of these buckets, the first first.
    var waiting: [PendingLimit] = []
    /// Of the keys that were asked for last.
    private(set) var knownPrefix = ""
    private var names: [String] = []
    /// The names as they are sent.
    private var words: [RedisWord] = []
    /// Looked at since the hand of the table's clock came by.
    var isRecent = true
    /// Where requests of a clinic find its group without asking the table.
    private var finder: TenantLimits?
    /// Is in the list of those that hold leases.
    var isListed = false

    init(_ key: LimitKey, _ plan: LimitPlan, generation: Int) {
        self.key = key
        self.plan = plan
        self.generation = generation
        places = plan.places(of: key.scope)
        firstRule = plan.range(of: key.scope).lowerBound
        buckets = LimitGroup.buckets(plan, key.scope)
    }

    private static func buckets(
        _ plan: LimitPlan, _ scope: RateScope
    ) -> ContiguousArray<LeasedBucket> {
        ContiguousArray(plan.rules(of: scope).map { LeasedBucket($0) })
    }

    func rule(of index: Int) -> LimitRule { plan.rules[firstRule + index] }

    /// Follows the map: what was leased under other rules is void.
    ///
    /// - Returns: how many buckets held something; nil if the plan is the same, or this one is newer.
    func adopt(_ plan: LimitPlan, generation: Int) -> Int? {
        guard plan !== self.plan, generation >= self.generation else { return nil }
        let held = buckets.count { $0.isHolding }
        self.plan = plan
        self.generation = generation
        places = plan.places(of: key.scope)
        firstRule = plan.range(of: key.scope).lowerBound
        buckets = LimitGroup.buckets(plan, key.scope)
        edition += 1
        names = []
        return held
    }

    /// - Parameter next: from now on finds this group, and nobody else does: what the table has forgotten has no say.
    func beFound(by next: TenantLimits?) {
        finder?.group = nil
        finder = next
        next?.group = self
    }

    /// The key of a bucket in Redis: `<shard>:{<tenant>}:<epoch>:limit:<scope><subject>:<rule>`.
    func name(of index: Int, prefix: String) -> String {
        if !isNamed(prefix) { makeNames(prefix) }
        return names[index]
    }

    func word(of index: Int, prefix: String) -> RedisWord {
        if !isNamed(prefix) { makeNames(prefix) }
        return words[index]
    }

    private func isNamed(_ prefix: String) -> Bool { !names.isEmpty && knownPrefix == prefix }

    private func makeNames(_ prefix: String) {
        knownPrefix = prefix
        let subject: String
        switch key.scope {
        case .tenant: subject = "t"
        case .user: subject = "u\(key.subject)"
        case .address:
            subject =
                "a\(String(key.subject.high, radix: 16)).\(String(key.subject.low, radix: 16))"
        }
        names = plan.rules(of: key.scope).map { "\(prefix)limit:\(subject):\($0.keySuffix)" }
        words = names.map { RedisWord(.text($0)) }
    }
}

/// Groups by key, at most `capacityMax`: who has not been seen for longest goes, by the clock algorithm.
final class LimitTable {
    let capacityMax: Int
    private var byKey: [LimitKey: LimitGroup] = [:]
    private var ring: ContiguousArray<LimitGroup> = []
    private var hand = 0
    private(set) var evictions = 0

    init(capacityMax: Int) {
        precondition(capacityMax > 0, "a table has room for something")
        self.capacityMax = capacityMax
    }

    /// Groups and those who find them hold each other.
    deinit {
        for group in ring { group.beFound(by: nil) }
    }

    var count: Int { ring.count }

    func peek(_ key: LimitKey) -> LimitGroup? { byKey[key] }

    func group(
        _ key: LimitKey, _ plan: LimitPlan, generation: Int
    ) -> LimitGroup {
        if let known = byKey[key] {
            known.isRecent = true
            return known
        }
        let made = LimitGroup(key, plan, generation: generation)
        if ring.count < capacityMax {
            ring.append(made)
        } else {
            while ring[hand].isRecent {
                ring[hand].isRecent = false
                hand = hand + 1 == ring.count ? 0 : hand + 1
            }
            // Whoever still has a question under way for it keeps it alive; what it holds runs out unused.
            ring[hand].beFound(by: nil)
            byKey[ring[hand].key] = nil
            ring[hand] = made
            evictions += 1
            hand = hand + 1 == ring.count ? 0 : hand + 1
        }
        byKey[key] = made
        return made
    }
}
