import HCCore

/// Which copies one process may answer from, and which reads may make copies. Pure: no I/O, no clock.
///
/// **What it is for: a read that begins after a commit never returns a value from before it, in any process.**
///
/// Terms. A *change* of tagged things is announced before its commit (`TenantCache.change`): a *hold* of its tags
/// stands, in every process that has a lease, from before the commit until after it. A process without a lease
/// uses no copies. A *flight* is one read of the source (or of the copies in Redis and in the shard) on behalf of
/// everybody who asks for the same key at that time.
///
/// Invariants:
///
/// - I1. A copy is given out only while the lease stands and none of its tags is held.
/// - I2. A copy is kept only if none of its tags was held when its flight began, and from then until now the process
///   has missed no message and none of the tags was held or voided (`CopyLedger.isCurrent`): the flight is *open*.
///   A flight that is not open never becomes open again.
/// - I3. A hold or void of a tag drops the copies that have the tag, and a lost lease all of them.
/// - I4. A reader takes the outcome of a flight only if the flight began after the reader arrived, or if it is still
///   open when the reader arrives (nothing that it may have read has changed by then).
/// - I5. Of one key one flight is under way at any time; the readers that may not join it wait, and one of them leads
///   the next, which all that waited may join by I4. So a key is read at most twice in the time of one read, however
///   many ask, with or without Redis.
/// - I6. A copy of one epoch of a clinic is not found in another.
///
/// Why that suffices. Let a read R begin after the commit of change C. C's hold stood before the commit in every
/// process with a lease. R's answer is (a) a copy: by I3 copies from before the hold are gone, by I2 none was
/// made of a flight that began before the hold or during it, so the copy's flight began after the hold ended, hence
/// after the commit; (b) the outcome of a flight: by I4 it either began after R, hence after the commit, or was open
/// when R arrived: were it from before the commit, the hold would have closed it. A flight reads PostgreSQL's
/// primary, which shows what is committed.
///
/// Interleavings that were thought of (each is a case of `CacheMachineTests` or of the checker in `CacheHistoryTests`):
///
/// - the source is read, then the hold comes, then the flight lands: not open, not kept;
/// - the hold comes, the source is read, the hold is released, the flight lands: it was led while held, never open;
/// - hold and release both come while the source is read: closed by the hold, though nothing is held any more;
/// - a reader arrives after a commit and finds a flight from before it: it waits and leads, or joins, the next;
/// - a reader arrives while the lease is lost: it joins nothing that began earlier;
/// - the lease is lost and regained while a flight is under way: its ticket is of another era, holds were missed;
/// - the lease is lost and regained while nobody asks: the copies of before are dropped when it is lost;
/// - the process is stopped between a look at the lease and the answer: the reader had begun before, so the answer may
///   be as old as that look; who is asked after the process goes on looks at the clock again;
/// - the leader of a flight fails, or its deadline passes, or it is cancelled: those who joined arrive again, with
///   the time of their first arrival;
/// - two changes of one tag at a time, the first is released: the tag stays held by the second;
/// - a change whose writer dies between hold and commit, or between commit and release: the hold runs out by itself,
///   and until then nobody keeps or uses a copy;
/// - a commit whose outcome nobody knows: the hold is not released, it runs out;
/// - a commit that takes longer than its hold: it is held anew, and thereby voided, before it is acknowledged;
/// - the clinic moves: its copies are of the old epoch (I6); a process with an old map hears the holds of those with the
///   new one, for holds are the clinic's, not the epoch's;
/// - the copies in Redis and in the shard have their own proofs (`SharedCache`, `ReadModels`): what comes from there
///   into the memory comes in a flight and is subject to I2 like anything else.
struct CacheMachine: ~Copyable {
    struct Key: Hashable {
        var tenant: TenantID
        var epoch: Int64
        var name: String
    }

    /// When a reader arrived, in the order of this machine's events.
    struct Arrival: Hashable, Comparable {
        fileprivate var number: UInt64

        static func < (left: Arrival, right: Arrival) -> Bool { left.number < right.number }
    }

    /// A flight's name: the moment when it began.
    typealias FlightID = Arrival

    enum Step {
        case copy(CacheAnswer)
        /// Read, then `land`.
        case lead(FlightID)
        /// Take the outcome of that flight.
        case join(FlightID)
        /// Wait for its end, then ask again.
        case wait(FlightID)
        /// Too many wait already.
        case refuse
    }

    enum Refusal: String, CaseIterable {
        /// A tag was held when the flight began, or held or voided since, or messages were missed.
        case changed
        /// There was no lease when the flight began.
        case lease
        /// Too large for the quota or for the cache.
        case room
    }

    enum Landing: Equatable {
        case kept
        case refused(Refusal)
    }

    private struct Flight {
        var id: FlightID
        var ticket: CopyTicket?
        var waiting = 0
    }

    private var clock: UInt64 = 0
    private var flights: [Key: Flight] = [:]
    private(set) var waiting = 0
    private let waitingMax: Int
    let memory: MemoryCache

    init(memory: MemoryCache, waitingMax: Int) {
        self.memory = memory
        self.waitingMax = waitingMax
    }

    var flightCount: Int { flights.count }

    // MARK: Readers

    /// A reader begins.
    mutating func arrive() -> Arrival {
        clock += 1
        return Arrival(number: clock)
    }

    /// What a reader does next.
    ///
    /// - Parameter since: when it arrived, also if it has waited meanwhile.
    mutating func next(
        _ key: Key, since: Arrival, _ agreement: CacheAgreement, now: MonotonicTime,
        wallClock: Timestamp
    ) -> Step {
        if agreement.mayUse,
            let answer = memory.find(
                key.name, of: key.tenant, epoch: key.epoch, now: now, clock: wallClock)
        {
            return .copy(answer)
        }
        guard let flight = flights[key] else {
            let id = arrive()
            flights[key] = Flight(id: id, ticket: agreement.mayUse ? agreement.ticket() : nil)
            return .lead(id)
        }
        guard waiting < waitingMax else { return .refuse }
        waiting += 1
        flights[key]?.waiting += 1
        let mayJoin =
            flight.id > since || (flight.ticket.map { agreement.isCurrent($0) } ?? false)
        return mayJoin ? .join(flight.id) : .wait(flight.id)
    }

    /// Whether what the flight reads may still be kept, so that copies elsewhere are worth a look.
    func isOpen(_ id: FlightID, _ key: Key, _ agreement: CacheAgreement) -> Bool {
        guard let flight = flights[key], flight.id == id, let ticket = flight.ticket else {
            return false
        }
        return agreement.isCurrent(ticket)
    }

    /// A flight has ended with an outcome. Those who wait for it are told by the shell.
    mutating func land(
        _ id: FlightID, _ key: Key, _ spec: CacheKey, _ answer: CacheAnswer,
        _ agreement: CacheAgreement, quota: MemoryCache.Quota, now: MonotonicTime,
        expiresAt: MonotonicTime
    ) -> Landing {
        guard let flight = end(id, key) else { preconditionFailure("a flight lands once") }
        guard let ticket = flight.ticket else { return .refused(.lease) }
        guard agreement.isCurrent(ticket) else { return .refused(.changed) }
        let insertion = memory.insert(
            answer, for: spec, of: key.tenant, epoch: key.epoch, quota: quota, now: now,
            expiresAt: expiresAt)
        return insertion == .stored ? .kept : .refused(.room)
    }

    /// A flight has ended without an outcome.
    mutating func fail(_ id: FlightID, _ key: Key) {
        _ = end(id, key)
    }

    private mutating func end(_ id: FlightID, _ key: Key) -> Flight? {
        guard let flight = flights[key], flight.id == id else { return nil }
        flights[key] = nil
        waiting -= flight.waiting
        return flight
    }

    // MARK: Changes

    /// Names are held, or were changed by somebody; with nil for those of all clinics.
    func void(_ tenant: TenantID?, _ names: VoidedNames) {
        guard let tenant else { return memory.forgetAll() }
        switch names {
        case .all: memory.forget(tenant)
        case .names(let names): memory.drop(names, of: tenant)
        }
    }
}

/// How the agreement on copies stands for a key, by a clock that was read just now: `Coherence`'s answers.
struct CacheAgreement {
    /// The lease stands and none of the tags is held.
    let mayUse: Bool
    /// Nil if nothing that is read from now on may be kept.
    let ticket: () -> CopyTicket?
    let isCurrent: (CopyTicket) -> Bool
}
