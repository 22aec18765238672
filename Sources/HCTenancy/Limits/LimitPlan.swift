import HCCore
import HCIO

/// One rule of a tier, made ready for deciding.
final class LimitRule: Sendable {
    let rule: RateRule
    let shape: BucketShape
    /// The end of its buckets' keys in Redis: its classes and its place among the rules of the same scope and classes.
    /// Not its name: a tier whose rules are called otherwise must not begin with full buckets.
    let keySuffix: String
    /// Most units that a process holds of one bucket beyond what a request asks for: a tenth of a second's worth.
    let chunkMax: Int64
    /// Of one process when Redis is away: billionths of a unit per second, never nothing.
    let nanosPerSecond: Int64

    init(_ rule: RateRule, reservePercent: Int, ordinal: Int) {
        self.rule = rule
        shape = BucketShape(rule, reservePercent: reservePercent)
        let classes = LimitClass.allCases.enumerated()
            .reduce(0) { $0 | (rule.covers($1.element) ? 1 << $1.offset : 0) }
        keySuffix = String(classes, radix: 16) + "." + String(ordinal)
        let milliseconds = max(1, rule.window.inMilliseconds)
        chunkMax = BucketShape.tenth(rate: Int64(rule.units), milliseconds: milliseconds)
        // In 128 bits, for units of a whole day are few billionths of a second's; at most 10^18 come out.
        nanosPerSecond = max(
            1, Int64(Int128(rule.units) * 1_000_000_000_000 / Int128(milliseconds)))
    }

    /// The members of a JSON object that say what the rule is.
    var members: [UInt8] {
        var json = JSONWriter()
        json.member("name", rule.name)
        json.member("scope", rule.scope.rawValue)
        if let classes = rule.classes {
            json.member("classes", LimitClass.allCases.filter(classes.contains).map(\.rawValue))
        }
        json.member("algorithm", rule.algorithm.rawValue)
        json.member("units", rule.units)
        json.member("per", Quantity.text(rule.window))
        json.member("capacity", rule.capacity)
        json.member("safetyReserve", shape.reserve)
        return json.finish().bytes
    }

    /// `RateLimit` begins so; two numbers follow. At most 35 bytes: `TierSection.name` bounds names.
    var fieldStart: [UInt8] { Array("\"\(rule.name)\";r=".utf8) }

    /// `RateLimit-Policy` (draft-ietf-httpapi-ratelimit-headers-10, 3): quota and window in seconds; of a bucket, the
    /// time in which it fills.
    var policy: String {
        let seconds: Int64
        if rule.algorithm == .tokenBucket {
            let ticks = shape.capacity * shape.window / shape.rate
            seconds = (shape.milliseconds(ticks) + 999) / 1000
        } else {
            seconds = rule.window.inSecondsRoundedUp
        }
        return "\"\(rule.name)\";q=\(shape.capacity);w=\(max(1, seconds))"
    }
}

/// Texts that are written once and told often, in one piece: who reads one of them counts no reference to it.
final class PackedTexts: Sendable {
    private let bytes: [UInt8]
    private let ends: [Int]

    init(_ texts: [[UInt8]]) {
        bytes = Array(texts.joined())
        var end = 0
        ends = texts.map { text in
            end += text.count
            return end
        }
    }

    func withText<Answer>(
        _ index: Int, _ body: (UnsafeRawBufferPointer) -> Answer
    ) -> Answer {
        let start = index == 0 ? 0 : ends[index - 1]
        return bytes.withUnsafeBytes {
            body(UnsafeRawBufferPointer(rebasing: $0[start..<ends[index]]))
        }
    }
}

/// A tier's rules, sorted for deciding: one object for each definition that the map has had, so that whoever holds units
/// under an older one is known by its identity.
package final class LimitPlan: Sendable {
    /// Some of the rules of a scope: bits by their place among those, for these are gone through several times for
    /// each request.
    struct Places: Sequence, IteratorProtocol, Sendable {
        private var bits: UInt32 = 0

        var isEmpty: Bool { bits == 0 }

        init(_ places: some Sequence<Int>) {
            for place in places {
                precondition(place < UInt32.bitWidth, "a tier has \(RateRule.countMax) rules")
                bits |= 1 << UInt32(place)
            }
        }

        /// In ascending order.
        @inline(__always)
        mutating func next() -> Int? {
            guard bits != 0 else { return nil }
            defer { bits &= bits - 1 }
            return bits.trailingZeroBitCount
        }
    }

    /// Which rules of a scope each class has. Held in place, as it is looked at several times for each request.
    struct ClassPlaces: Sendable {
        private var places: InlineArray<7, Places>

        init(_ rules: [LimitRule]) {
            precondition(LimitClass.allCases.count == 7, "a place for each class")
            places = InlineArray { index in
                let kind = LimitClass.allCases[index]
                return Places(rules.indices.filter { rules[$0].rule.covers(kind) })
            }
        }

        subscript(kind: LimitClass) -> Places { places[kind.index] }
    }

    package let tier: TierDefinition
    /// The member of a JSON object that names the tier.
    let tierMember: [UInt8]
    /// Those of the clinic, then those of an account, then those of an address.
    let rules: [LimitRule]
    private let firstOfUser: Int
    private let firstOfAddress: Int
    private let tenantPlaces: ClassPlaces
    private let userPlaces: ClassPlaces
    private let addressPlaces: ClassPlaces
    /// `RateLimit-Policy`, by `policyPlace`.
    let policies: PackedTexts
    /// `LimitRule.members` of each rule.
    let members: PackedTexts
    /// `LimitRule.fieldStart` of each rule.
    let fieldStarts: PackedTexts

    package init(_ tier: TierDefinition) {
        self.tier = tier
        var json = JSONWriter()
        json.member("tier", tier.name)
        tierMember = json.finish().bytes
        var ordinals: [String: Int] = [:]
        func made(_ scope: RateScope) -> [LimitRule] {
            tier.rates.filter { $0.scope == scope }.map { rule in
                let names = LimitClass.allCases.filter(rule.covers).map(\.rawValue)
                let key = ([scope.rawValue] + names).joined(separator: ",")
                let ordinal = ordinals[key, default: 0]
                ordinals[key] = ordinal + 1
                return LimitRule(
                    rule, reservePercent: tier.safetyReservePercent, ordinal: ordinal)
            }
        }
        let (tenant, user, address) = (made(.tenant), made(.user), made(.address))
        rules = tenant + user + address
        firstOfUser = tenant.count
        firstOfAddress = tenant.count + user.count
        tenantPlaces = ClassPlaces(tenant)
        userPlaces = ClassPlaces(user)
        addressPlaces = ClassPlaces(address)
        policies = PackedTexts(
            LimitClass.allCases.flatMap { kind in
                [address, user + address].map { others in
                    let rules = (tenant + others).filter { $0.rule.covers(kind) }
                    return Array(rules.map(\.policy).joined(separator: ", ").utf8)
                }
            })
        members = PackedTexts(rules.map(\.members))
        fieldStarts = PackedTexts(rules.map(\.fieldStart))
    }

    func rules(of scope: RateScope) -> ArraySlice<LimitRule> { rules[range(of: scope)] }

    /// Where the rules of a scope stand in `rules`.
    func range(of scope: RateScope) -> Range<Int> {
        switch scope {
        case .tenant: 0..<firstOfUser
        case .user: firstOfUser..<firstOfAddress
        case .address: firstOfAddress..<rules.count
        }
    }

    func places(of scope: RateScope) -> ClassPlaces {
        switch scope {
        case .tenant: tenantPlaces
        case .user: userPlaces
        case .address: addressPlaces
        }
    }

    /// In `policies`: what all rules say that speak of a request.
    static func policyPlace(of kind: LimitClass, withUser: Bool) -> Int {
        kind.index * 2 + (withUser ? 1 : 0)
    }
}

/// Stands for one map that plans were made of.
final class LimitMap: Sendable {
    /// Grows with every map: of two plans for one clinic the one of the higher generation is the newer.
    let generation: Int

    init(generation: Int) {
        self.generation = generation
    }
}

/// What the limits know of a clinic under one map: found by its first request, and then at hand with its record.
final class TenantLimits: Sendable {
    let tenant: TenantID
    /// Of the clinic's keys in Redis.
    let redisPrefix: String
    let plan: LimitPlan
    let map: LimitMap
    /// The clinic's own buckets, once they were found: until their table forgets them. Touched by the one machine of the
    /// door that made this, which is called from one place.
    nonisolated(unsafe) var group: LimitGroup?

    init(_ plan: LimitPlan, of record: TenantRecord, under map: LimitMap) {
        tenant = record.id
        redisPrefix = record.redisPrefix
        self.plan = plan
        self.map = map
    }
}

/// The plans of the map's tiers. A tier that has not changed keeps its plan.
final class LimitPlans {
    private var byName: [String: LimitPlan] = [:]
    private(set) var map = LimitMap(generation: 0)

    func follow(_ tiers: some Collection<TierDefinition>) {
        map = LimitMap(generation: map.generation + 1)
        var plans: [String: LimitPlan] = [:]
        for tier in tiers {
            let known = byName[tier.name]
            plans[tier.name] = known?.tier == tier ? known : LimitPlan(tier)
        }
        byName = plans
    }

    /// Of the map that was followed last: what a record knows from another, or from another door's, is not asked.
    @LoopActor
    func limits(of record: TenantRecord) -> TenantLimits {
        if let known = record.limits, known.map === map { return known }
        let made = TenantLimits(plan(named: record.tierName), of: record, under: map)
        record.limits = made
        return made
    }

    /// A tier that cannot be read must not close the clinics that have it: they get little.
    func plan(named name: String) -> LimitPlan {
        if let known = byName[name] { return known }
        let least = LimitPlan(.least(name))
        byName[name] = least
        return least
    }
}

extension LimitClass {
    var index: Int {
        switch self {
        case .login: 0
        case .otp: 1
        case .booking: 2
        case .search: 3
        case .export: 4
        case .upload: 5
        case .default: 6
        }
    }
}

extension RateScope {
    var index: Int {
        switch self {
        case .tenant: 0
        case .user: 1
        case .address: 2
        }
    }
}
