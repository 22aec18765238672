package import HCCore

/// Who gets the next free connection to a shard: weighted deficit round robin by clinic on the time for which
/// connections were used. Pure; every decision costs O(1), however many wait.
///
/// **Deficit round robin** (Shreedhar and Varghese, SIGCOMM 1995) gives each flow a quantum per round and lets it
/// send while it has credit. What a request will cost is known here only when it is over, so a flow may overdraw and
/// sits out rounds until its debt is repaid (surplus round robin: Adiseshu, Parulkar and Varghese, SIGCOMM 1996). A
/// request is charged the flow's mean when it begins and the difference when it ends; what a running one has used
/// beyond that counts as well. Instead of a counter that is raised every round, a flow has the *position* up to which
/// it has used its share, in nanoseconds per unit of weight: the round in which it may go on follows, and rounds in
/// which nobody may are skipped. So a round costs nothing but its services.
///
/// - **No credit is saved**: who comes back after a rest starts at the present round.
/// - **Work-conserving**: a connection rests only while nobody waits who is below its cap.
/// - **Caps**: a flow has at most `Terms.inFlightMax` connections and leaves `headroom` of them to others: what runs
///   is not preempted, and the one request of a quiet clinic must not wait for the slow ones of another.
/// - **Age**: a flow that waits and has had no connection for `boostAfter`, because of its debt, comes first in one of
///   `boostEvery` decisions.
/// - **Bounds**: a flow may wait with as many requests as its terms say and no more than there is free room for
///   (dynamic thresholds: Choudhury and Hahne, 1998), so those who ask much leave room for who comes next.
/// - **Own connections** (`Terms.dedicated`) are taken out of what is shared as they become free, serve one flow only,
///   and are not charged.
package struct FairQueue<Flow: Hashable>: ~Copyable {
    package struct Limits: Sendable {
        /// Connections that there are.
        package var connections: Int
        /// Requests that wait, over all flows.
        package var waitingMax: Int
        /// Time that a flow of weight 1 may use in one round.
        package var quantum = Duration.milliseconds(4)
        /// The largest debt, in rounds: what is beyond is forgiven. A power of two.
        package var roundsMax = 1024
        /// The largest credit of a flow that waits at its cap, in rounds.
        package var lagRoundsMax = 8
        package var boostAfter = Duration.milliseconds(250)
        package var boostEvery = 4
        /// Flows that are remembered while they ask for nothing, with what they owe and what they have used.
        package var restingMax = 1024

        package init(connections: Int, waitingMax: Int) {
            self.connections = connections
            self.waitingMax = waitingMax
        }

        /// Connections that one flow leaves to the others.
        package var headroom: Int { connections / 4 }
    }

    /// What a flow may use.
    package struct Terms: Hashable, Sendable {
        package var weight: Int
        package var inFlightMax: Int
        package var waitingMax: Int
        package var dedicated: Int

        package init(weight: Int, inFlightMax: Int, waitingMax: Int, dedicated: Int = 0) {
            self.weight = weight
            self.inFlightMax = inFlightMax
            self.waitingMax = waitingMax
            self.dedicated = dedicated
        }
    }

    /// One request, from asking to the end of its use of a connection.
    package struct Ticket: Hashable, Sendable {
        /// Small, and used again: an index for what the caller keeps beside.
        package let index: Int
        fileprivate let generation: UInt32
    }

    package enum Answer: Equatable {
        /// Use a connection now; then `finish`.
        case grant(Ticket)
        /// `next` will name it, or `leave`.
        case wait(Ticket)
        /// Too many wait; after about this time there will be room.
        case refuse(retryAfter: Duration)
    }

    /// What a flow has used since it is known.
    package struct Use: Equatable, Sendable {
        package var requests = 0
        /// Requests that did not get a connection at once.
        package var waits = 0
        package var waitTime = Duration.zero
        package var usedTime = Duration.zero
        /// Turned away, or left when its patience was over.
        package var rejected = 0
    }

    private enum Place: Equatable {
        /// Nothing waits.
        case none
        /// In the wheel, at this round.
        case queued(round: Int64)
        /// Waits for one of its own to end.
        case capped
        /// Asks for nothing and runs nothing.
        case resting
    }

    private struct FlowState {
        var flow: Flow
        var terms: Terms
        var place = Place.none
        /// Up to here the flow has used its share, in nanoseconds per unit of weight.
        var position: Int64 = 0
        /// Mean cost of a request in nanoseconds, newer ones counting more.
        var mean: Int64 = 1_000_000
        var waiting = IndexList()
        var waitingCount = 0
        /// Running on shared connections; when they began, added up, in microseconds; what they were charged.
        var shared = 0
        var sharedSince: Int64 = 0
        var sharedCharged: Int64 = 0
        /// Own connections, and how many of them run something.
        var ownHeld = 0
        var own = 0
        var ownSince: Int64 = 0
        /// Since when it waits without any connection; nil if it does not.
        var unservedSince: MonotonicTime?
        var use = Use()

        var active: Int { shared + own }

        /// The position, with what runs counted as far as it has run.
        func position(at now: MonotonicTime) -> Int64 {
            guard shared > 0 else { return position }
            let run = (Int64(shared) * now.microseconds - sharedSince) * 1000
            return position + max(0, run - sharedCharged) / Int64(terms.weight)
        }

        /// - Parameter oldest: the position behind which nobody stays.
        mutating func takeShared(_ charge: Int64, _ now: MonotonicTime, from oldest: Int64) {
            position = max(position, oldest) + charge / Int64(terms.weight)
            shared += 1
            sharedSince += now.microseconds
            sharedCharged += charge
        }

        mutating func giveShared(_ cost: Int64, charged: Int64, since: MonotonicTime) {
            shared -= 1
            sharedSince -= since.microseconds
            sharedCharged -= charged
            position += (cost - charged) / Int64(terms.weight)
            mean = max(1000, mean + (cost - mean) / 8)
        }

        /// What it has used, with what runs.
        func use(at now: MonotonicTime) -> Use {
            var use = use
            let run = Int64(active) * now.microseconds - sharedSince - ownSince
            use.usedTime += .microseconds(max(0, run))
            return use
        }
    }

    private struct Entry {
        var generation: UInt32 = 0
        var flow: Int32 = -1
        var since = MonotonicTime(nanoseconds: 0)
        var state = State.free
        var charged: Int64 = 0

        enum State: Equatable {
            case free, waiting, shared, own
        }
    }

    package let limits: Limits
    private let quantum: Int64
    private var table: [Flow: Int32] = [:]
    private var flows: [FlowState] = []
    private var freeFlows: [Int32] = []
    private var entries: [Entry] = []
    private var freeEntries: [Int32] = []
    private var wheel: RoundWheel
    /// Of flows: in the wheel, or at rest.
    private var flowLinks = IndexLinks()
    private var entryLinks = IndexLinks()
    /// Flows that wait without a connection, the longest first.
    private var unserved = IndexList()
    private var unservedLinks = IndexLinks()
    /// Flows at rest, the longest first.
    private var resting = IndexList()
    private var restingCount = 0
    /// Handed from one request of a flow to its next on an own connection.
    private var handed: [Ticket] = []
    private var sharedInUse = 0
    private var ownInUse = 0
    /// Connections that are somebody's own.
    private var reserved = 0
    /// Flows in the wheel.
    private var queuedCount = 0
    /// Weights of the flows that wait.
    private var waitingWeight = 0
    private var decisions = 0
    /// What flows have used that are not remembered any more.
    private var forgotten = Use()

    package private(set) var waitingCount = 0

    package init(_ limits: Limits) {
        precondition(limits.connections > 0 && limits.waitingMax > 0 && limits.boostEvery > 0)
        self.limits = limits
        quantum = limits.quantum.inNanoseconds
        wheel = RoundWheel(count: limits.roundsMax)
    }

    package var activeCount: Int { sharedInUse + ownInUse }
    package var flowCount: Int { table.count }
    package var reservedCount: Int { reserved }
    /// Entries that there is memory for.
    package var entryCount: Int { entries.count }

    // MARK: Asking

    /// A request of a flow wants a connection.
    ///
    /// - Parameter isUrgent: completes what has had its turn: it goes before the flow's others.
    package mutating func ask(
        _ flow: Flow, _ terms: Terms, isUrgent: Bool = false, now: MonotonicTime
    ) -> Answer {
        let index = enter(flow, terms, now)
        acquireOwn(index)
        let state = self[index]
        if state.waitingCount == 0 || isUrgent {
            if state.own < state.ownHeld {
                let ticket = begin(makeEntry(index, now), .own, now)
                if state.waitingCount > 0 { settle(index, now) }
                return .grant(ticket)
            }
            if sharedFree > 0, queuedCount == 0, state.shared < sharedCap(state),
                state.waitingCount == 0
            {
                // Nobody is passed over: whoever waits is at its cap.
                wheel.advance(to: round(of: index, now))
                return .grant(begin(makeEntry(index, now), .shared, now))
            }
        }
        // What is left of the room is the bound of each: nobody can fill it alone.
        guard state.waitingCount < min(state.terms.waitingMax, limits.waitingMax - waitingCount)
        else {
            self[index].use.requests += 1
            self[index].use.rejected += 1
            let wait = expectedWait(index)
            restIfIdle(index)
            return .refuse(retryAfter: wait)
        }
        return .wait(append(index, isUrgent: isUrgent, now))
    }

    private mutating func append(_ index: Int32, isUrgent: Bool, _ now: MonotonicTime) -> Ticket {
        let entry = makeEntry(index, now)
        entries[Int(entry)].state = .waiting
        if isUrgent {
            entryLinks.prepend(entry, to: &flows[Int(index)].waiting)
        } else {
            entryLinks.append(entry, to: &flows[Int(index)].waiting)
        }
        self[index].use.requests += 1
        self[index].use.waits += 1
        self[index].waitingCount += 1
        waitingCount += 1
        if self[index].waitingCount == 1 {
            waitingWeight += self[index].terms.weight
            // It comes back after a rest: at the present round.
            self[index].position = max(self[index].position, wheel.current * quantum)
        }
        settle(index, now)
        return ticket(entry)
    }

    /// Who waited has gone.
    ///
    /// - Parameter isRejected: its patience was over; false when nobody wants the answer any more.
    /// - Returns: false if it does not wait: it had a connection, which is to be given back with `finish`.
    package mutating func leave(
        _ ticket: Ticket, isRejected: Bool, now: MonotonicTime
    ) -> Bool {
        guard isValid(ticket), entries[ticket.index].state == .waiting else { return false }
        let entry = Int32(ticket.index)
        let index = entries[ticket.index].flow
        if isRejected { self[index].use.rejected += 1 }
        remove(entry, of: index)
        release(entry)
        settle(index, now)
        return true
    }

    /// How long a request that came now would wait about, by what the flow's requests cost and its share is.
    package func expectedWait(of flow: Flow) -> Duration {
        guard let index = table[flow] else { return .zero }
        return expectedWait(index)
    }

    private func expectedWait(_ index: Int32) -> Duration {
        let state = self[index]
        let weight = max(state.terms.weight, waitingWeight)
        let share = max(
            1, min(sharedCap(state), (limits.connections - reserved) * state.terms.weight / weight))
        let ahead = Int64(state.waitingCount + 1)
        let (product, overflow) = state.mean.multipliedReportingOverflow(by: ahead)
        return .nanoseconds(overflow ? .max : product / Int64(share))
    }

    // MARK: Deciding

    /// The request that gets a connection now; nil when none is free, or nobody waits who may have it. Call it after
    /// every other event until it is nil.
    package mutating func next(now: MonotonicTime) -> Ticket? {
        if let ticket = handed.popLast() { return ticket }
        guard waitingCount > 0, sharedFree > 0 else { return nil }
        decisions &+= 1
        if decisions % limits.boostEvery == 0, !unserved.isEmpty {
            let longest = unserved.first
            if let since = self[longest].unservedSince, now - since >= limits.boostAfter,
                case .queued = self[longest].place
            {
                return serve(longest, now)
            }
        }
        while let (round, index) = wheel.first {
            wheel.advance(to: round)
            // What runs has gone on running since it was put here. Each such flow holds a connection, so there are
            // no more of them than connections.
            let due = self.round(of: index, now)
            if due > round {
                unqueue(index)
                put(index, in: due)
                continue
            }
            return serve(index, now)
        }
        return nil
    }

    private mutating func serve(_ index: Int32, _ now: MonotonicTime) -> Ticket {
        unqueue(index)
        let entry = self[index].waiting.first
        remove(entry, of: index)
        let ticket = begin(entry, .shared, now)
        settle(index, now)
        return ticket
    }

    /// The request begins; its flow is charged what its requests cost on the average.
    private mutating func begin(
        _ entry: Int32, _ kind: Entry.State, _ now: MonotonicTime
    ) -> Ticket {
        let index = entries[Int(entry)].flow
        let waited = now - entries[Int(entry)].since
        let wasWaiting = entries[Int(entry)].state == .waiting
        if wasWaiting {
            self[index].use.waitTime += waited
        } else {
            self[index].use.requests += 1
        }
        entries[Int(entry)].state = kind
        entries[Int(entry)].since = now
        endUnserved(index)
        if kind == .own {
            self[index].own += 1
            self[index].ownSince += now.microseconds
            ownInUse += 1
        } else {
            let charge = self[index].mean
            entries[Int(entry)].charged = charge
            // A flow that waited at its cap while others went on has that to its credit, within bounds.
            let oldest = wheel.current - (wasWaiting ? Int64(limits.lagRoundsMax) : 0)
            flows[Int(index)].takeShared(charge, now, from: oldest * quantum)
            sharedInUse += 1
        }
        return ticket(entry)
    }

    /// The request is over and its connection free.
    package mutating func finish(_ ticket: Ticket, now: MonotonicTime) {
        precondition(isValid(ticket), "a connection is given back once")
        let entry = Int32(ticket.index)
        let running = entries[ticket.index]
        let (index, kind, since) = (running.flow, running.state, running.since)
        precondition(kind != .waiting, "what waits leaves")
        let cost = max(0, (now - since).inNanoseconds)
        self[index].use.usedTime += .nanoseconds(cost)
        release(entry)
        if kind == .own {
            self[index].own -= 1
            self[index].ownSince -= since.microseconds
            ownInUse -= 1
        } else {
            sharedInUse -= 1
            flows[Int(index)].giveShared(cost, charged: running.charged, since: since)
        }
        acquireOwn(index)
        handOwn(index, now)
        settle(index, now)
    }

    /// Puts a flow where it belongs after a change. Who keeps its round keeps its place in it.
    private mutating func settle(_ index: Int32, _ now: MonotonicTime) {
        guard self[index].waitingCount > 0 else {
            unqueue(index)
            self[index].place = .none
            return restIfIdle(index)
        }
        noteUnserved(index, now)
        guard self[index].shared < sharedCap(self[index]) else {
            unqueue(index)
            self[index].place = .capped
            return
        }
        let due = min(round(of: index, now), wheel.last)
        if self[index].place == .queued(round: due) { return }
        unqueue(index)
        put(index, in: due)
    }

    /// Own connections go to the flow's next requests without a decision.
    private mutating func handOwn(_ index: Int32, _ now: MonotonicTime) {
        while self[index].waitingCount > 0, self[index].own < self[index].ownHeld {
            let entry = self[index].waiting.first
            remove(entry, of: index)
            handed.append(begin(entry, .own, now))
        }
    }

    // MARK: Own connections

    /// Takes free connections for a flow whose terms promise it some, and gives back those that they promise no more.
    private mutating func acquireOwn(_ index: Int32) {
        let state = self[index]
        guard state.ownHeld != state.terms.dedicated else { return }
        // One connection stays for everybody else.
        let room = max(0, min(sharedFree, limits.connections - 1 - reserved))
        let held = max(state.own, min(state.terms.dedicated, state.ownHeld + room))
        reserved += held - state.ownHeld
        self[index].ownHeld = held
    }

    /// The flow is no more of this shard: its own connections are everybody's again.
    package mutating func forget(_ flow: Flow) {
        guard let index = table[flow] else { return }
        self[index].terms.dedicated = 0
        acquireOwn(index)
        restIfIdle(index)
    }

    private var sharedFree: Int { limits.connections - reserved - sharedInUse }

    private func sharedCap(_ state: FlowState) -> Int {
        // A flow with connections of its own uses fewer of the others.
        min(state.terms.inFlightMax - state.own, limits.connections - limits.headroom)
    }

    // MARK: The wheel

    /// The round in which the flow may be served next.
    private func round(of index: Int32, _ now: MonotonicTime) -> Int64 {
        max(wheel.current, self[index].position(at: now) / quantum)
    }

    private mutating func put(_ index: Int32, in round: Int64) {
        if round > wheel.last {
            // Forgiven, or the flow would be out for longer than anybody remembers.
            self[index].position = min(self[index].position, wheel.last * quantum)
        }
        let round = min(round, wheel.last)
        self[index].place = .queued(round: round)
        queuedCount += 1
        // Who is behind its share, for it was at its cap, catches up before others go on.
        let isBehind = self[index].position / quantum < wheel.current
        wheel.insert(index, in: round, first: isBehind, &flowLinks)
    }

    private mutating func unqueue(_ index: Int32) {
        guard case .queued(let round) = self[index].place else { return }
        wheel.remove(index, from: round, &flowLinks)
        queuedCount -= 1
        self[index].place = .none
    }

    // MARK: Those without a connection

    private mutating func noteUnserved(_ index: Int32, _ now: MonotonicTime) {
        guard self[index].active == 0, self[index].unservedSince == nil else { return }
        self[index].unservedSince = now
        unservedLinks.append(index, to: &unserved)
    }

    private mutating func endUnserved(_ index: Int32) {
        guard self[index].unservedSince != nil else { return }
        self[index].unservedSince = nil
        unservedLinks.remove(index, from: &unserved)
    }

    // MARK: Flows and entries

    private subscript(index: Int32) -> FlowState {
        _read { yield flows[Int(index)] }
        _modify { yield &flows[Int(index)] }
    }

    private mutating func enter(
        _ flow: Flow, _ terms: Terms, _ now: MonotonicTime
    ) -> Int32 {
        if let index = table[flow] {
            if self[index].place == .resting {
                flowLinks.remove(index, from: &resting)
                restingCount -= 1
                self[index].place = .none
            }
            if self[index].terms != terms { change(index, to: terms, now) }
            return index
        }
        let index: Int32
        let state = FlowState(flow: flow, terms: terms.bounded)
        if let free = freeFlows.popLast() {
            flows[Int(free)] = state
            index = free
        } else {
            index = Int32(flows.count)
            flows.append(state)
            flowLinks.grow(to: flows.count)
            unservedLinks.grow(to: flows.count)
        }
        table[flow] = index
        return index
    }

    /// A debt in time is the same debt under another weight.
    private mutating func change(_ index: Int32, to terms: Terms, _ now: MonotonicTime) {
        let (old, new) = (self[index].terms, terms.bounded)
        let present = wheel.current * quantum
        let debt = max(0, self[index].position - present)
        self[index].position = present + debt * Int64(old.weight) / Int64(new.weight)
        self[index].terms = new
        guard self[index].waitingCount > 0 else { return }
        waitingWeight += new.weight - old.weight
        settle(index, now)
    }

    private mutating func restIfIdle(_ index: Int32) {
        let state = self[index]
        guard state.place == .none, state.waitingCount == 0, state.active == 0 else { return }
        // Who has connections of its own is kept with them.
        guard state.ownHeld == 0 else { return }
        self[index].place = .resting
        flowLinks.append(index, to: &resting)
        restingCount += 1
        guard restingCount > limits.restingMax,
            let oldest = flowLinks.popFirst(from: &resting)
        else { return }
        restingCount -= 1
        forgotten.add(self[oldest].use)
        table[self[oldest].flow] = nil
        freeFlows.append(oldest)
    }

    private mutating func remove(_ entry: Int32, of index: Int32) {
        entryLinks.remove(entry, from: &flows[Int(index)].waiting)
        self[index].waitingCount -= 1
        waitingCount -= 1
        guard self[index].waitingCount == 0 else { return }
        waitingWeight -= self[index].terms.weight
        endUnserved(index)
    }

    private mutating func makeEntry(_ flow: Int32, _ now: MonotonicTime) -> Int32 {
        let entry: Int32
        if let free = freeEntries.popLast() {
            entry = free
        } else {
            entry = Int32(entries.count)
            entries.append(Entry())
            entryLinks.grow(to: entries.count)
        }
        entries[Int(entry)].flow = flow
        entries[Int(entry)].since = now
        entries[Int(entry)].charged = 0
        return entry
    }

    private mutating func release(_ entry: Int32) {
        entries[Int(entry)].state = .free
        entries[Int(entry)].generation &+= 1
        freeEntries.append(entry)
    }

    private func ticket(_ entry: Int32) -> Ticket {
        Ticket(index: Int(entry), generation: entries[Int(entry)].generation)
    }

    private func isValid(_ ticket: Ticket) -> Bool {
        entries[ticket.index].generation == ticket.generation
            && entries[ticket.index].state != .free
    }

    // MARK: What can be seen

    /// One flow, as it is now.
    package struct FlowView {
        package let flow: Flow
        package let waiting: Int
        package let active: Int
        package let use: Use
    }

    /// Every flow that is remembered: O(n).
    package func forEach(at now: MonotonicTime, _ body: (FlowView) -> Void) {
        for index in table.values {
            let state = self[index]
            body(
                FlowView(
                    flow: state.flow, waiting: state.waitingCount, active: state.active,
                    use: state.use(at: now)))
        }
    }

    /// What those have used who are not remembered any more.
    package var forgottenUse: Use { forgotten }
}

extension FairQueue {
    // MARK: What always holds

    /// Ends the process if a rule of the queue is broken. For tests: costs O(n).
    package func checkInvariants() {
        var (waiting, active, weight, queued, atRest) = (0, 0, 0, 0, 0)
        var (held, isCandidate) = (0, false)
        for index in table.values {
            let state = self[index]
            waiting += state.waitingCount
            active += state.active
            held += state.ownHeld
            if state.waitingCount > 0 { weight += state.terms.weight }
            precondition(state.own <= state.ownHeld, "more than its own")
            precondition(state.shared >= 0 && state.shared <= limits.connections - limits.headroom)
            precondition(
                (state.unservedSince != nil) == (state.waitingCount > 0 && state.active == 0),
                "without a connection, and not noted")
            switch state.place {
            case .none:
                precondition(
                    state.waitingCount == 0 && (state.active > 0 || state.ownHeld > 0), "lost")
            case .queued(let round):
                queued += 1
                precondition(round >= wheel.current && round <= wheel.last, "beyond the wheel")
                precondition(state.waitingCount > 0, "queued for nothing")
                isCandidate = true
            case .capped:
                precondition(state.waitingCount > 0 && state.shared >= sharedCap(state), "capped")
            case .resting:
                atRest += 1
                precondition(state.waitingCount == 0 && state.active == 0, "no rest")
            }
        }
        precondition(waiting == waitingCount && weight == waitingWeight, "miscounted")
        precondition(active == sharedInUse + ownInUse && queued == queuedCount, "miscounted")
        precondition(held == reserved && reserved < limits.connections, "reserved too much")
        precondition(sharedInUse + reserved <= limits.connections, "above the budget")
        precondition(atRest == restingCount && atRest <= limits.restingMax, "too many rest")
        precondition(waiting <= limits.waitingMax, "too many wait")
        precondition(entries.count <= limits.waitingMax + limits.connections, "entries leak")
        precondition(
            flows.count <= limits.waitingMax + limits.connections + limits.restingMax + 1,
            "flows leak")
        precondition(!isCandidate || sharedFree == 0, "a connection rests while somebody waits")
        precondition(handed.isEmpty, "handed over, and not told")
    }
}

extension FairQueue.Terms {
    /// Terms that let nobody in are a mistake elsewhere, and must not stop the queue.
    fileprivate var bounded: Self {
        Self(
            weight: max(1, weight), inFlightMax: max(1, inFlightMax),
            waitingMax: max(1, waitingMax), dedicated: max(0, dedicated))
    }
}

extension FairQueue.Use {
    package mutating func add(_ other: Self) {
        requests += other.requests
        waits += other.waits
        waitTime += other.waitTime
        usedTime += other.usedTime
        rejected += other.rejected
    }
}

extension MonotonicTime {
    fileprivate var microseconds: Int64 { nanoseconds / 1000 }
}
