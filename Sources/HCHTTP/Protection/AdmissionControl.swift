package import HCCore

/// Decides which requests a worker takes on when there are more than it can answer in time. No I/O; time and the
/// measure of queueing come in.
///
/// How many it takes at once follows the standing queue, wherever in the worker or behind it that stands. Two things show
/// it: the least delay with which the loop came to a request in an interval, and for each route the least time that one
/// of its answers took. The least, for a burst that passes shortens it to nothing and a standing queue does not (CoDel,
/// RFC 8289 4.1). Routes vote, each with its requests: those that are answered from memory say nothing about a queue for
/// connections, and a slow shard or one slow client is no queue as long as the same route is quick for others; its
/// requests have limits of their own and must not make the worker refuse others.
///
/// Above the target the limit becomes the part of what was in flight that Little's law gives: N requests that take S are
/// `N * target / S` that take the target. Only requests that came after the last cut count, for those before it saw a
/// queue that is gone (TCP reduces once in a round trip, RFC 5681 3.1). Below the target the limit grows by an eighth.
///
/// Lanes share the limit in the order of their importance: each is refused from a fill level on, `bulk` from the
/// lowest. Whoever is refused, a more important lane would have been let in; and care has slots that nobody else
/// can take. A clinic that has less in flight than half of its even share of the limit is let in as if the worker did
/// not queue: whoever made the queue waits for it.
package struct AdmissionControl: Sendable {
    package struct Limits: Sendable {
        /// Requests in flight that are never exceeded.
        package var inFlightMax = 2048
        /// The limit is not cut below this: so few requests are no overload.
        package var inFlightMin = 64
        /// Queueing above this is a standing queue, if nothing in the interval was below; and an answer that takes
        /// longer than this has stood in one, if none of its route took less.
        package var queueTarget: Duration = .milliseconds(100)
        package var interval: Duration = .milliseconds(300)
        /// Of the answers of an interval, those of slow routes that make it an overload, in percent.
        package var slowPercent = 33
        /// The fill level, in percent of the limit, from which a lane is refused; by `RequestLane.index`.
        package var fillPercent = [50, 65, 80, 100]

        package init() {}

        package func problems() -> [String] {
            var found: [String] = []
            // With one place there is none to keep for care.
            if inFlightMax < 2 { found.append("inFlightMax: must be at least 2") }
            if inFlightMin < 1 || inFlightMin > inFlightMax {
                found.append("inFlightMin: must be from 1 to inFlightMax")
            }
            if queueTarget <= .zero { found.append("queueTarget: must be above 0") }
            if interval <= .zero { found.append("interval: must be above 0") }
            if !(1...100).contains(slowPercent) { found.append("slowPercent: from 1 to 100") }
            if fillPercent.count != RequestLane.allCases.count
                || fillPercent != fillPercent.sorted()
                || fillPercent.contains(where: { !(1...100).contains($0) })
            {
                found.append("fillPercent: one from 1 to 100 for each lane, rising")
            }
            return found
        }
    }

    package enum Refusal: String, Sendable, CaseIterable {
        /// The worker has as many requests of that lane as it may have at any time.
        case full
        /// It has fewer, and they queue already.
        case queueing
    }

    package enum Decision: Sendable, Equatable {
        /// `finish` is owed, with this.
        case admitted(Place)
        case refused(Refusal, retryAfter: Duration)
    }

    /// Where an admitted request is counted until it ends.
    package struct Place: Sendable, Equatable {
        fileprivate let lane: RequestLane
        fileprivate let clinic: Int
    }

    package let limits: Limits
    /// Requests that are let in at once, now.
    package private(set) var limit: Int
    package private(set) var inFlight = 0
    private var inFlightByLane = [0, 0, 0, 0]
    private var clinics = InFlightClinics()

    private var intervalEnd: MonotonicTime
    /// Intervals that have ended.
    package private(set) var intervalCount = 0
    private var leastDelay: Duration?
    /// The answers of this interval, by route.
    private var answers: [Answers] = []
    private var answersCount = 0
    /// Whoever came before this saw another limit.
    private var cutAt = MonotonicTime.zero
    /// Since the last cut nobody has had an answer who came after it: the queue from before is still there.
    private var isUnproven = false
    private var peak = 0

    private struct Answers {
        var count = 0
        var least: Duration = .zero
    }

    /// Intervals of overload in a row.
    private var overloadedCount = 0
    /// The least queueing of the last interval.
    package private(set) var queueing: Duration = .zero

    /// - Precondition: `limits.problems()` is empty.
    package init(limits: Limits, now: MonotonicTime) {
        let problems = limits.problems()
        precondition(problems.isEmpty, "\(problems)")
        self.limits = limits
        limit = limits.inFlightMax
        intervalEnd = now + limits.interval
    }

    package func inFlight(_ lane: RequestLane) -> Int { inFlightByLane[lane.index] }

    /// - Parameters:
    ///   - clinic: whose request it is, as far as can be said before it is looked at: its host.
    ///   - delay: how long the request may have waited before anybody looked at it.
    ///   - random: spreads the times at which the refused come again.
    package mutating func admit(
        _ lane: RequestLane, of clinic: String = "", delay: Duration, now: MonotonicTime,
        using random: inout some RandomNumberGenerator
    ) -> Decision {
        if now >= intervalEnd { endInterval(now) }
        leastDelay = min(leastDelay ?? delay, delay)
        let known = clinics.find(clinic)
        let isAdmitted =
            inFlight < level(limit, lane)
            // Nobody else can fill the hard limit so far, so this does not exceed it.
            || lane == .safety && inFlight(.safety) < min(limit, reserve)
            || inFlight < level(limits.inFlightMax, lane) && isModest(known)
        guard isAdmitted else {
            let isFull = inFlight >= level(limits.inFlightMax, lane)
            return .refused(
                isFull ? .full : .queueing, retryAfter: retryAfter(lane, using: &random))
        }
        inFlight += 1
        inFlightByLane[lane.index] += 1
        let place = known ?? clinics.insert(clinic)
        clinics.add(at: place)
        peak = max(peak, inFlight)
        return .admitted(Place(lane: lane, clinic: place))
    }

    /// An admitted request has got an answer that was work: neither refused nor failed.
    ///
    /// - Parameters:
    ///   - route: its number: routes are told apart by it.
    ///   - receivedAt: when the worker read it.
    package mutating func answered(_ route: Int, receivedAt: MonotonicTime, now: MonotonicTime) {
        guard receivedAt >= cutAt else { return }
        let time = now - receivedAt
        while answers.count <= route { answers.append(Answers()) }
        if answers[route].count == 0 || time < answers[route].least { answers[route].least = time }
        answers[route].count += 1
        answersCount += 1
    }

    /// An admitted request has ended.
    package mutating func finish(_ place: Place) {
        precondition(inFlightByLane[place.lane.index] > 0, "more requests ended than began")
        inFlight -= 1
        inFlightByLane[place.lane.index] -= 1
        clinics.remove(at: place.clinic)
    }

    /// Whether a clinic has little in flight beside others that have much.
    private func isModest(_ clinic: Int?) -> Bool {
        let own = clinic.map { clinics.count(at: $0) } ?? 0
        let all = clinics.busyCount + (own == 0 ? 1 : 0)
        return all > 1 && own < max(1, limit / (2 * all))
    }

    private func level(_ limit: Int, _ lane: RequestLane) -> Int {
        max(1, limit * limits.fillPercent[lane.index] / 100)
    }

    /// What care may have in flight whoever filled the limit before it fell: of the hard limit the part that nobody
    /// else can take. Care alone has no more than the limit either: it would wait behind itself.
    private var reserve: Int {
        max(1, limits.inFlightMax - level(limits.inFlightMax, .interactive))
    }

    private mutating func endInterval(_ now: MonotonicTime) {
        let standing = standing
        if answersCount > 0 || inFlight == 0 { isUnproven = false }
        queueing = max(leastDelay ?? .zero, standing)
        if queueing > limits.queueTarget {
            overloadedCount += 1
            // At most half at once: what was measured was other requests than those that come.
            let part = min(0.9, max(0.5, limits.queueTarget / queueing))
            limit = max(limits.inFlightMin, Int(Double(min(limit, peak)) * part))
            cutAt = now
            isUnproven = standing > limits.queueTarget
        } else if !isUnproven {
            overloadedCount = 0
            grow()
        }
        // Intervals in which nothing came were no overload.
        var missed = (now - intervalEnd) / limits.interval
        if missed >= 1 { isUnproven = false }
        while missed >= 1, limit < limits.inFlightMax {
            overloadedCount = 0
            grow()
            missed -= 1
        }
        leastDelay = nil
        for route in answers.indices { answers[route] = Answers() }
        answersCount = 0
        clinics.forgetIdle()
        peak = inFlight
        intervalCount += 1
        intervalEnd = now + limits.interval
    }

    /// What routes of which every answer took longer than the target needed at least, each counted with its answers.
    private var standing: Duration {
        var (all, slow) = (0, 0)
        var sum = Duration.zero
        for answers in answers {
            all += answers.count
            guard answers.least > limits.queueTarget else { continue }
            slow += answers.count
            sum += answers.least * answers.count
        }
        guard slow > 0, slow * 100 >= all * limits.slowPercent else { return .zero }
        return sum / slow
    }

    private mutating func grow() {
        limit = min(limits.inFlightMax, limit + max(1, limit / 8))
    }

    /// One second and a part of a span that is longer for what can wait, and the longer the overload lasts.
    private func retryAfter(
        _ lane: RequestLane, using random: inout some RandomNumberGenerator
    ) -> Duration {
        let spans = [8000, 4000, 2000, 1000]
        let span = spans[lane.index] * (1 + min(3, overloadedCount / 16))
        return .milliseconds(1000 + Int.random(in: 0...span, using: &random))
    }
}

/// How many requests each clinic has in flight. A clinic is looked for by its host when a request comes, and has a number
/// from then on. It keeps that for a while when it has nothing in flight: most answers are made before the next request
/// comes.
private struct InFlightClinics {
    private var places: [String: Int] = [:]
    private var counts: [Int] = []
    private var free: [Int] = []
    /// Clinics that have something in flight.
    private(set) var busyCount = 0

    func find(_ host: String) -> Int? { places[host] }
    func count(at place: Int) -> Int { counts[place] }

    /// - Precondition: `find` has not found it.
    mutating func insert(_ host: String) -> Int {
        let place = free.popLast() ?? counts.count
        if place == counts.count { counts.append(0) }
        places[host] = place
        return place
    }

    mutating func add(at place: Int) {
        if counts[place] == 0 { busyCount += 1 }
        counts[place] += 1
    }

    mutating func remove(at place: Int) {
        precondition(counts[place] > 0, "more requests ended than began")
        counts[place] -= 1
        if counts[place] == 0 { busyCount -= 1 }
    }

    /// To be called now and then: until then there may be a host for each request that has come since.
    mutating func forgetIdle() {
        guard places.count > busyCount else { return }
        free += places.values.filter { counts[$0] == 0 }
        places = places.filter { counts[$0.value] > 0 }
    }
}
