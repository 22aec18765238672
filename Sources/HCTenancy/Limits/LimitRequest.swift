import HCCore
import HCRedis

/// One request as the limits see it; of which clinic is said beside it.
struct LimitRequest {
    var kind: LimitClass
    var units: Int
    var lane: LimitLane
    /// Whether Redis is to be asked for this very request.
    var isExact: Bool
    /// The account; nil before a login.
    var user: UUID?
    /// Nil for what comes from no network: jobs, tools.
    var address: LimitAddress?

    init(
        kind: LimitClass, units: Int, lane: LimitLane = .ordinary, isExact: Bool = false,
        user: UUID? = nil, address: LimitAddress? = nil
    ) {
        self.kind = kind
        self.units = units
        self.lane = lane
        self.isExact = isExact
        self.user = user
        self.address = address
    }
}

/// The groups whose buckets a request is counted in.
struct LimitTargets {
    let tenant: LimitGroup
    let user: LimitGroup?
    let address: LimitGroup?

    /// One of their buckets.
    struct Place {
        let scope: RateScope
        let index: Int
    }

    /// Each bucket that has a say in requests of a class. Rules are those of the group: a request that was made under
    /// an older map follows the newer one.
    @inline(__always)
    func forEach(_ kind: LimitClass, _ body: (inout LeasedBucket, Place) -> Void) {
        forEachPlace(kind) { group, index in
            body(&group.buckets[index], Place(scope: group.key.scope, index: index))
        }
    }

    /// As `forEach`, with the group.
    @inline(__always)
    func forEachPlace(_ kind: LimitClass, _ body: (LimitGroup, Int) -> Void) {
        for index in tenant.places[kind] { body(tenant, index) }
        if let user {
            for index in user.places[kind] { body(user, index) }
        }
        if let address {
            for index in address.places[kind] { body(address, index) }
        }
    }

    /// Each bucket, whatever its rule speaks of.
    @inline(__always)
    func forEachBucket(_ body: (LimitGroup, Int) -> Void) {
        for index in tenant.buckets.indices { body(tenant, index) }
        if let user {
            for index in user.buckets.indices { body(user, index) }
        }
        if let address {
            for index in address.buckets.indices { body(address, index) }
        }
    }

    /// Lends the group that a bucket is of.
    func withGroup<Answer>(_ place: Place, _ body: (LimitGroup) -> Answer) -> Answer {
        switch (place.scope, user, address) {
        case (.tenant, _, _): body(tenant)
        case (.user, let user?, _): body(user)
        case (.address, _, let address?): body(address)
        default: preconditionFailure("a place is found in these groups")
        }
    }

    var groups: [LimitGroup] { [tenant] + [user, address].compactMap { $0 } }
}

/// A request that Redis has to be asked about, and who waits for what comes of it.
final class PendingLimit {
    let request: LimitRequest
    let clinic: TenantLimits
    let targets: LimitTargets
    /// Questions that it has waited for.
    var rounds = 0
    /// The first one counts.
    private(set) var decision: RateDecision?
    private var waiter: UnsafeContinuation<Void, Never>?

    init(_ request: LimitRequest, _ clinic: TenantLimits, _ targets: LimitTargets) {
        self.request = request
        self.clinic = clinic
        self.targets = targets
    }

    var isDone: Bool { decision != nil }

    func finish(_ decision: RateDecision) {
        guard self.decision == nil else { return }
        self.decision = decision
        waiter?.resume()
        waiter = nil
    }

    /// Waits for the decision. To be called once.
    ///
    /// Without a deadline and deaf to cancellation, which would cost more than the wait: every question has its answer
    /// or has failed within `Gate.timeout`, and who has less time than it may take is finished by a timer.
    func value() async -> RateDecision {
        if decision == nil { await withUnsafeContinuation { waiter = $0 } }
        guard let decision else { preconditionFailure("a wait ends with a decision") }
        return decision
    }
}

/// What is asked of Redis in one step, about one bucket or several.
struct LimitQuestions {
    /// One bucket of the edition that the group had when the question was asked.
    struct Place {
        let group: LimitGroup
        let index: Int
        let edition: Int
        /// The key, as it is sent.
        let word: RedisWord

        /// Otherwise its rule holds no longer, and what is said of it is void.
        var isCurrent: Bool { edition == group.edition }
    }

    let prefix: String
    /// What is asked, and by the same index what of: apart, so that who goes through the numbers counts no references.
    private(set) var parts: ContiguousArray<LimitScript.Part> = []
    private(set) var places: ContiguousArray<Place> = []

    /// - Parameter prefix: of the keys.
    init(prefix: String) {
        self.prefix = prefix
        // Mostly a rule of the clinic, one of the account and one of the address.
        parts.reserveCapacity(3)
        places.reserveCapacity(3)
    }

    mutating func append(
        _ group: LimitGroup, _ index: Int, need: Int64, want: Int64, since: Int64 = 0
    ) {
        parts.append(
            LimitScript.Part(
                shape: group.buckets[index].shape, need: need, want: want, since: since))
        places.append(
            Place(
                group: group, index: index, edition: group.edition,
                word: group.word(of: index, prefix: prefix)))
    }

    var isEmpty: Bool { parts.isEmpty }
    var names: [String] { places.map { $0.group.name(of: $0.index, prefix: prefix) } }
}

/// A question to Redis, for the shell to ask.
final class LimitFlight {
    enum Purpose {
        /// Units in advance, for a request that waits.
        case lease
        /// Units in advance, for requests to come.
        case refill
        /// One request, as it is.
        case exact
        /// What is left; nothing is taken.
        case look
        /// What was not used.
        case giveBack
    }

    let purpose: Purpose
    let questions: LimitQuestions
    let lane: LimitLane
    /// Nanoseconds of the steady clock.
    let sentAt: Int64
    let owner: PendingLimit?
    /// Asked while Redis is thought to be away.
    let isProbe: Bool

    init(
        _ purpose: Purpose, _ questions: LimitQuestions, lane: LimitLane, sentAt: Int64,
        owner: PendingLimit? = nil, isProbe: Bool = false
    ) {
        self.purpose = purpose
        self.questions = questions
        self.lane = lane
        self.sentAt = sentAt
        self.owner = owner
        self.isProbe = isProbe
    }

    /// As a run of `LimitScript.script`.
    func write(to runs: inout RedisCommands, birth: Int64) {
        let count = questions.parts.count
        runs.appendRun(
            of: LimitScript.script, keys: count, key: { questions.places[$0].word },
            argumentBytes: LimitScript.argumentBytes(count),
            argument: { LimitScript.write(lane: lane, birth: birth, questions.parts, to: $0) })
    }
}
