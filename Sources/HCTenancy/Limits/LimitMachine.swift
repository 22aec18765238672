import HCCore

/// The limits of one process, without input and output: requests go in, decisions and questions to Redis come out.
///
/// A request is decided at once if this process holds enough units of every bucket that has a say, or knows that one
/// of them has none; else Redis is asked for all buckets that lack units in one question, which charges all or none.
/// One question at a time is under way for a bucket; requests that need it meanwhile wait for its answer, first come,
/// first served. What a request still lacks after `roundsMax` answers is asked exactly.
///
/// **What can be admitted beyond a limit.** Every unit is charged in Redis before it is used, and used within
/// `leaseLife`. So in any stretch of time all processes together admit at most what Redis allows in it, and what was
/// leased and not used when it began: live processes x chunk, where a chunk is a tenth of a second of the rate at most
/// (100 ms of measured use), or what one request asks for if that is more. Units of a process that dies are lost. Where
/// Redis loses its data, each bucket begins with its reserve and one chunk (`BucketShape.floor`). Without Redis
/// `LocalShare` and `OutageMachine` say what is admitted.
///
/// Not bound to an actor: whoever owns it calls it from one place.
final class LimitMachine {
    let limits: Limits
    let processes: Int
    let metrics: LimitMetrics
    private(set) var outage: OutageMachine
    private(set) var outbox: [LimitFlight] = []
    private let tenants: LimitTable
    private let subjects: LimitTable
    /// Groups that hold leases.
    private var listed: [LimitGroup] = []
    private var isProbing = false
    private var restUntil = MonotonicTime.zero
    // As plain numbers, for they are compared for every request.
    private let life: Int64
    private let knowledge: Int64
    private let spacing: Int64

    init(processes: Int, limits: Limits = Limits(), metrics: LimitMetrics) {
        precondition(processes > 0, "this process is one")
        self.limits = limits
        self.processes = processes
        self.metrics = metrics
        outage = OutageMachine(graceMax: limits.graceMax, rearmAfter: limits.rearmAfter)
        tenants = LimitTable(capacityMax: limits.tenantsMax)
        subjects = LimitTable(capacityMax: limits.subjectsMax)
        life = limits.leaseLife.inNanoseconds
        knowledge = limits.knowledgeLife.inNanoseconds
        spacing = limits.spacing.inNanoseconds
    }

    var groupCount: Int { tenants.count + subjects.count }
    var isHolding: Bool { !listed.isEmpty }

    /// - Returns: the questions that came up, to be asked now.
    func takeOutbox() -> [LimitFlight] {
        guard !outbox.isEmpty else { return [] }
        defer { outbox = [] }
        return outbox
    }

    // MARK: Deciding

    /// - Parameters:
    ///   - clinic: whose request it is.
    ///   - targets: of the request, now.
    ///   - isConnected: whether there is a Redis to ask.
    /// - Returns: nil if Redis has to be asked: then call `ask`.
    func decide(
        _ request: LimitRequest, _ clinic: TenantLimits, _ targets: LimitTargets,
        now: MonotonicTime, isConnected: Bool
    ) -> RateDecision? {
        guard
            let decision = found(request, clinic, targets, now: now, isConnected: isConnected)
        else { return nil }
        metrics.decided(decision, request.kind)
        return decision
    }

    private func found(
        _ request: LimitRequest, _ clinic: TenantLimits, _ targets: LimitTargets,
        now: MonotonicTime, isConnected: Bool
    ) -> RateDecision? {
        if !isConnected { lost(now) }
        let isWell = outage.phase(at: now) == .well
        if !request.isExact,
            let decision = decideWithLeases(request, clinic, targets, now.nanoseconds, isWell)
        {
            return decision
        }
        if isWell {
            return request.isExact ? refusedAsKnown(request, targets, now.nanoseconds) : nil
        }
        guard isConnected, !isProbing, now >= restUntil else {
            return decideAlone(request, targets, now)
        }
        return nil
    }

    /// Has Redis asked about a request that `decide` could not decide.
    ///
    /// - Returns: it is finished by `answered` or `failed`, unless whoever asks finishes it before.
    func ask(
        _ request: LimitRequest, _ clinic: TenantLimits, _ targets: LimitTargets,
        now: MonotonicTime
    ) -> PendingLimit {
        let pending = PendingLimit(request, clinic, targets)
        step(pending, demand: 0, now)
        return pending
    }

    /// - Parameter forAll: also those whose rules say nothing about this class.
    func targets(
        of request: LimitRequest, _ clinic: TenantLimits, forAll: Bool = false
    ) -> LimitTargets {
        let plan = clinic.plan
        let tenant = tenantGroup(clinic)
        var user: LimitGroup?
        if let id = request.user, !plan.range(of: .user).isEmpty {
            user = group(
                LimitKey(tenant: clinic.tenant, scope: .user, subject: id), clinic,
                in: subjects)
        }
        var address: LimitGroup?
        if let bits = request.address?.bits,
            forAll
                ? !plan.range(of: .address).isEmpty
                : !plan.places(of: .address)[request.kind].isEmpty
        {
            address = group(
                LimitKey(tenant: clinic.tenant, scope: .address, subject: bits), clinic,
                in: subjects)
        }
        return LimitTargets(tenant: tenant, user: user, address: address)
    }

    private func tenantGroup(_ clinic: TenantLimits) -> LimitGroup {
        if let known = clinic.group {
            known.isRecent = true
            follow(clinic, known)
            return known
        }
        let found = group(
            LimitKey(tenant: clinic.tenant, scope: .tenant, subject: .zero), clinic, in: tenants)
        found.beFound(by: clinic)
        return found
    }

    private func group(
        _ key: LimitKey, _ clinic: TenantLimits, in table: LimitTable
    ) -> LimitGroup {
        let group = table.group(key, clinic.plan, generation: clinic.map.generation)
        follow(clinic, group)
        return group
    }

    private func follow(_ clinic: TenantLimits, _ group: LimitGroup) {
        if group.plan !== clinic.plan,
            let held = group.adopt(clinic.plan, generation: clinic.map.generation)
        {
            metrics.revocations.increment(by: held)
        }
    }

    // MARK: With leases

    private func decideWithLeases(
        _ request: LimitRequest, _ clinic: TenantLimits, _ targets: LimitTargets, _ now: Int64,
        _ isWell: Bool
    ) -> RateDecision? {
        let lane = request.lane
        var isLacking = false
        var isDry = false
        var isUnknown = false
        targets.forEachPlace(request.kind) { group, index in
            let bucket = group.buckets[index]
            let units = bucket.shape.charge(request.units, lane)
            let balance = bucket.balance(lane, now)
            guard balance < units else { return }
            isLacking = true
            // Of a bucket that was never asked for nobody can say how long it makes a request wait.
            if bucket.known == nil { isUnknown = true }
            if isWell,
                bucket.dryFor(units - balance, lane, now, life: knowledge) > 0
            {
                isDry = true
            }
        }
        if isDry, !isUnknown { return refusal(request, targets, .lease, now) }
        guard !isLacking else { return nil }
        var wantsRefill = false
        var tightest = Tightest()
        targets.forEach(request.kind) { bucket, place in
            bucket.take(bucket.shape.charge(request.units, lane), now)
            if isWell, bucket.wantsRefill(now) { wantsRefill = true }
            tightest.consider(bucket, place, lane, now)
        }
        if wantsRefill { refill(request, clinic, targets, now) }
        return admission(request, targets, tightest, .lease, now)
    }

    /// An exact request need not ask for what is known not to be there.
    private func refusedAsKnown(
        _ request: LimitRequest, _ targets: LimitTargets, _ now: Int64
    ) -> RateDecision? {
        var isDry = false
        var isUnknown = false
        targets.forEach(request.kind) { bucket, _ in
            let units = bucket.shape.charge(request.units, request.lane)
            if bucket.known == nil { isUnknown = true }
            guard now - bucket.knownAt <= knowledge else { return }
            if bucket.waitFor(units, request.lane, now) > 0 { isDry = true }
        }
        return isDry && !isUnknown ? refusal(request, targets, .lease, now) : nil
    }

    // MARK: What is told

    /// Of several buckets the one of which the smallest part is left.
    private struct Tightest {
        private(set) var place: LimitTargets.Place?
        private var least: Int64 = 0
        private var whole: Int64 = 1

        @inline(__always)
        mutating func consider(
            _ bucket: borrowing LeasedBucket, _ other: LimitTargets.Place, _ lane: LimitLane,
            _ now: Int64
        ) {
            let left = bucket.roughlyLeft(lane, now)
            let capacity = bucket.shape.capacity
            guard place == nil || left * whole < least * capacity else { return }
            place = other
            least = left
            whole = capacity
        }
    }

    private func tightest(
        of request: LimitRequest, _ targets: LimitTargets, _ now: Int64
    ) -> Tightest {
        var tightest = Tightest()
        targets.forEach(request.kind) { bucket, place in
            tightest.consider(bucket, place, request.lane, now)
        }
        return tightest
    }

    private func admission(
        _ request: LimitRequest, _ targets: LimitTargets, _ tightest: Tightest,
        _ origin: RateDecision.Origin, _ now: Int64
    ) -> RateDecision {
        decision(
            request, targets, tightest.place, isAllowed: true, origin,
            told: outlook(targets, tightest.place, request.lane, now), retryAfter: nil)
    }

    private func outlook(
        _ targets: LimitTargets, _ place: LimitTargets.Place?, _ lane: LimitLane, _ now: Int64
    ) -> LeasedBucket.Outlook? {
        guard let place else { return nil }
        return targets.withGroup(place) { $0.buckets[place.index].outlook(lane, now) }
    }

    /// - Parameters:
    ///   - place: of the bucket that is told of; nil if no rule speaks of the request.
    ///   - told: of that bucket; nil before Redis was asked for it.
    private func decision(
        _ request: LimitRequest, _ targets: LimitTargets, _ place: LimitTargets.Place?,
        isAllowed: Bool, _ origin: RateDecision.Origin, told: LeasedBucket.Outlook?,
        retryAfter: Duration?
    ) -> RateDecision {
        func decision(_ plan: LimitPlan, _ rule: Int?) -> RateDecision {
            RateDecision(
                isAllowed: isAllowed, origin: origin, plan: plan,
                policy: LimitPlan.policyPlace(of: request.kind, withUser: request.user != nil),
                rule: rule, remaining: Int(told?.left ?? 0),
                resetMilliseconds: told?.untilFull ?? 0, retryAfter: retryAfter)
        }
        guard let place else { return decision(targets.tenant.plan, nil) }
        return targets.withGroup(place) { decision($0.plan, $0.firstRule + place.index) }
    }

    /// The wait is that of the bucket that makes the request wait longest, for all that the request costs: what is
    /// leased now will have run out by then.
    private func refusal(
        _ request: LimitRequest, _ targets: LimitTargets, _ origin: RateDecision.Origin,
        _ now: Int64
    ) -> RateDecision {
        var refusing: LimitTargets.Place?
        var longest: Int64 = 0
        targets.forEach(request.kind) { bucket, place in
            let units = bucket.shape.charge(request.units, request.lane)
            let missing = units - bucket.balance(request.lane, now)
            let wait = max(
                bucket.waitFor(units, request.lane, now),
                missing > 0 ? bucket.dryFor(missing, request.lane, now, life: knowledge) : 0)
            if wait > longest || refusing == nil {
                refusing = place
                longest = wait
            }
        }
        return decision(
            request, targets, refusing, isAllowed: false, origin,
            told: outlook(targets, refusing, request.lane, now),
            retryAfter: .nanoseconds(max(1_000_000, longest)))
    }

    // MARK: Alone

    /// Without Redis: each bucket's local share, all or none.
    func decideAlone(
        _ request: LimitRequest, _ targets: LimitTargets, _ now: MonotonicTime
    ) -> RateDecision {
        let isGrace = outage.phase(at: now) == .grace
        var refusing: LimitTargets.Place?
        var longest: Int64 = 0
        var tightest: LimitTargets.Place?
        var least: Int64 = 0
        var full: Int64 = 0
        targets.forEachPlace(request.kind) { group, index in
            let place = LimitTargets.Place(scope: group.key.scope, index: index)
            let (share, measure) = share(of: index, in: group, now)
            let units = group.buckets[index].shape.charge(request.units, request.lane)
            let left = share.available(measure, request.lane)
            if left < units {
                let wait = share.wait(for: units, measure, request.lane)
                if wait >= longest {
                    refusing = place
                    longest = wait
                }
            }
            if tightest == nil || left < least {
                tightest = place
                least = left
                full = share.wait(
                    for: measure.capacity / LocalShare.unit, measure, .safety)
            }
        }
        if refusing == nil {
            targets.forEach(request.kind) { bucket, _ in
                bucket.share.take(bucket.shape.charge(request.units, request.lane))
            }
        }
        return decision(
            request, targets, refusing ?? tightest, isAllowed: refusing == nil,
            isGrace ? .grace : .share, told: (max(0, least), full),
            retryAfter: refusing == nil ? nil : .milliseconds(max(1, longest)))
    }

    /// A bucket's share as of now.
    func share(
        of index: Int, in group: LimitGroup, _ now: MonotonicTime
    ) -> (share: LocalShare, measure: LocalShare.Measure) {
        let isGrace = outage.phase(at: now) == .grace
        let before = isGrace ? group.buckets[index].lastShare : nil
        let measure = LocalShare.Measure(
            group.rule(of: index), processes: processes, before: before)
        group.buckets[index].share.advance(
            measure, clock: outage.clock(at: now).inNanoseconds, era: outage.era)
        return (group.buckets[index].share, measure)
    }

    /// Whether requests are decided without Redis.
    func isAway(at now: MonotonicTime) -> Bool { outage.phase(at: now) != .well }

    /// Something else that was asked of Redis has not been answered.
    func lookUpFailed(now: MonotonicTime) {
        lost(now)
        restUntil = now + limits.restAfterFailure
    }

    private func lost(_ now: MonotonicTime) {
        var next = outage
        if next.failed(at: now) { metrics.isAway.set(1) }
        outage = next
    }

    private func heard(_ now: MonotonicTime) {
        // By way of a copy, here and above: who only looks need not be guarded against a change that is under way.
        var next = outage
        next.answered(at: now)
        outage = next
    }

    // MARK: Questions

    /// What a request that waits for Redis does next.
    ///
    /// - Parameter demand: units for which others wait behind it.
    private func step(_ pending: PendingLimit, demand: Int64, _ now: MonotonicTime) {
        let request = pending.request
        let isProbe = outage.phase(at: now) != .well
        if isProbe { isProbing = true }
        guard !request.isExact, pending.rounds < limits.roundsMax else {
            return launchExact(pending, isProbe: isProbe, now.nanoseconds)
        }
        let lane = request.lane
        var inFlight: LimitGroup?
        var questions = LimitQuestions(prefix: pending.clinic.redisPrefix)
        pending.targets.forEachPlace(request.kind) { group, index in
            let bucket = group.buckets[index]
            let units = bucket.shape.charge(request.units, lane)
            let need = units - bucket.balance(lane, now.nanoseconds)
            guard need > 0 else { return }
            if bucket.isInFlight { inFlight = inFlight ?? group }
            let want = bucket.want(need, waiting: units + demand, lane, now.nanoseconds)
            questions.append(group, index, need: need, want: want)
        }
        if let inFlight {
            guard inFlight.waiting.count < limits.waitingMax else {
                return launchExact(pending, isProbe: isProbe, now.nanoseconds)
            }
            inFlight.waiting.append(pending)
            return
        }
        for place in questions.places { place.group.buckets[place.index].isInFlight = true }
        outbox.append(
            LimitFlight(
                .lease, questions, lane: lane, sentAt: now.nanoseconds, owner: pending,
                isProbe: isProbe))
    }

    private func launchExact(_ pending: PendingLimit, isProbe: Bool, _ now: Int64) {
        let request = pending.request
        var questions = LimitQuestions(prefix: pending.clinic.redisPrefix)
        pending.targets.forEachPlace(request.kind) { group, index in
            let units = group.buckets[index].shape.charge(request.units, request.lane)
            questions.append(group, index, need: units, want: units)
        }
        outbox.append(
            LimitFlight(
                .exact, questions, lane: request.lane, sentAt: now, owner: pending,
                isProbe: isProbe))
    }

    /// Ahead of exhaustion, and nobody waits for it.
    private func refill(
        _ request: LimitRequest, _ clinic: TenantLimits, _ targets: LimitTargets, _ now: Int64
    ) {
        var questions = LimitQuestions(prefix: clinic.redisPrefix)
        targets.forEachPlace(request.kind) { group, index in
            guard group.buckets[index].wantsRefill(now) else { return }
            group.buckets[index].isInFlight = true
            let want = group.buckets[index].want(0, waiting: 0, .ordinary, now)
            questions.append(group, index, need: 0, want: want)
        }
        metrics.refills.increment()
        outbox.append(LimitFlight(.refill, questions, lane: .ordinary, sentAt: now))
    }

    // MARK: Answers

    func answered(_ flight: LimitFlight, _ answer: LimitAnswer, now: MonotonicTime) {
        heard(now)
        if flight.isProbe { isProbing = false }
        metrics.isAway.set(0)
        guard flight.purpose != .giveBack else { return }
        let time = now.nanoseconds
        for index in flight.questions.places.indices {
            accept(answer, to: flight, index, time)
        }
        switch flight.purpose {
        case .lease, .refill: settle(flight, now)
        case .exact: finishExact(flight, answer, time)
        case .look, .giveBack: break
        }
    }

    private func accept(
        _ answer: LimitAnswer, to flight: LimitFlight, _ index: Int, _ now: Int64
    ) {
        let (given, question) = (answer.parts[index], flight.questions.parts[index])
        let place = flight.questions.places[index]
        let group = place.group
        // Under rules that no longer hold, too: Redis has charged it, and nobody uses it.
        let isLease = flight.purpose == .lease || flight.purpose == .refill
        if isLease, answer.passes { metrics.leased.observe(given.given) }
        guard place.isCurrent else { return }
        group.buckets[place.index].learn(given.state, redisTime: answer.now, now)
        switch flight.purpose {
        case .lease, .refill:
            group.buckets[place.index].isInFlight = false
            if answer.passes {
                group.buckets[place.index].deposit(
                    given.given, wanted: question.want, flight.lane, since: given.state.at,
                    sentAt: flight.sentAt, life: life, spacing: spacing, now)
                list(group)
            } else if group.buckets[place.index].available(flight.lane, now) ?? 0 < question.need {
                group.buckets[place.index].pause(flight.lane, until: now + spacing)
            }
        case .exact:
            if answer.passes { group.buckets[place.index].use(given.given, now) }
        case .look, .giveBack: break
        }
    }

    private func finishExact(_ flight: LimitFlight, _ answer: LimitAnswer, _ now: Int64) {
        guard let pending = flight.owner, !pending.isDone else { return }
        finish(
            pending,
            answer.passes
                ? admission(
                    pending.request, pending.targets,
                    tightest(of: pending.request, pending.targets, now), .redis, now)
                : refusal(pending.request, pending.targets, .redis, now))
    }

    private func finish(_ pending: PendingLimit, _ decision: RateDecision) {
        guard !pending.isDone else { return }
        metrics.decided(decision, pending.request.kind)
        pending.finish(decision)
    }

    /// A question has no answer, or none that can be used.
    func failed(_ flight: LimitFlight, _ failure: LimitMetrics.Failure, now: MonotonicTime) {
        if flight.isProbe { isProbing = false }
        metrics.failed(failure)
        // Too many questions of our own say nothing about Redis.
        if failure != .overloaded { lost(now) }
        // One that is gone says so at once; one that hangs or talks nonsense is not to be asked by everybody.
        if [.timeout, .garbage, .refused].contains(failure) {
            restUntil = now + limits.restAfterFailure
        }
        guard flight.purpose == .lease || flight.purpose == .refill else {
            if let owner = flight.owner, !owner.isDone {
                finish(owner, decideAlone(owner.request, owner.targets, now))
            }
            return
        }
        for place in flight.questions.places where place.isCurrent {
            place.group.buckets[place.index].isInFlight = false
        }
        for pending in takeWaiting(flight) where !pending.isDone {
            let (request, targets) = (pending.request, pending.targets)
            finish(
                pending,
                decideWithLeases(request, pending.clinic, targets, now.nanoseconds, false)
                    ?? decideAlone(request, targets, now))
        }
    }

    private func takeWaiting(_ flight: LimitFlight) -> [PendingLimit] {
        var all = flight.owner.map { [$0] } ?? []
        for place in flight.questions.places where !place.group.waiting.isEmpty {
            all += place.group.waiting
            place.group.waiting = []
        }
        return all
    }

    /// Gives what has come to those who wait, in their order; who still lacks something asks on.
    private func settle(_ flight: LimitFlight, _ now: MonotonicTime) {
        var left: [PendingLimit] = []
        for pending in takeWaiting(flight) where !pending.isDone {
            pending.rounds += 1
            if var decision = decideWithLeases(
                pending.request, pending.clinic, pending.targets, now.nanoseconds, true)
            {
                if pending === flight.owner { decision = decision.decided(by: .redis) }
                finish(pending, decision)
            } else {
                left.append(pending)
            }
        }
        var demand = left.reduce(Int64(0)) { $0 + Int64($1.request.units) }
        for pending in left {
            demand -= Int64(pending.request.units)
            step(pending, demand: demand, now)
        }
        shed(flight, now.nanoseconds)
    }

    /// What was asked for requests that have gone away meanwhile goes back.
    private func shed(_ flight: LimitFlight, _ now: Int64) {
        guard flight.owner != nil else { return }
        for place in flight.questions.places
        where place.isCurrent && place.group.waiting.isEmpty {
            let bucket = place.group.buckets[place.index]
            let most = max(
                bucket.chunk, bucket.shape.charge(RequestCost.write.units, .ordinary))
            let leases = place.group.buckets[place.index].shed(to: most, now)
            giveBack(leases, place.group, place.index, prefix: flight.questions.prefix, now)
        }
    }

    // MARK: Giving back

    private func list(_ group: LimitGroup) {
        guard !group.isListed else { return }
        group.isListed = true
        listed.append(group)
    }

    /// Takes away what has run out, and gives back what is not being used. To be called a few times a second while
    /// `isHolding`.
    func sweep(now: MonotonicTime) {
        let time = now.nanoseconds
        let idle = limits.idleAfter.inNanoseconds
        listed.removeAll { group in
            for index in group.buckets.indices {
                let isIdle =
                    time - group.buckets[index].usedAt >= idle && !group.buckets[index].isInFlight
                let held = group.buckets[index].heldUnits
                guard held > 0 else { continue }
                let leases = group.buckets[index].empty(time, all: isIdle)
                let back = leases.reduce(0) { $0 + $1.units }
                metrics.expired.increment(
                    by: Int(held - back - group.buckets[index].heldUnits))
                giveBack(leases, group, index, prefix: group.knownPrefix, time)
            }
            group.isListed = group.buckets.contains { $0.isHolding }
            return !group.isListed
        }
        metrics.graceLeft.set(outage.graceLeft(at: now).inSeconds)
        metrics.buckets.set(groupCount)
    }

    private func giveBack(
        _ leases: [Lease], _ group: LimitGroup, _ index: Int, prefix: String, _ now: Int64
    ) {
        for lease in leases where lease.units > 0 {
            metrics.givenBack.increment(by: Int(lease.units))
            var questions = LimitQuestions(prefix: prefix)
            questions.append(group, index, need: 0, want: -lease.units, since: lease.since)
            outbox.append(LimitFlight(.giveBack, questions, lane: .ordinary, sentAt: now))
        }
    }
}
