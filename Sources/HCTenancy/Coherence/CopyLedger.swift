import HCCore
import HCIO

/// Names one void of one process.
struct VoidID: Hashable, Sendable {
    let text: String
}

/// What a process must drop of a clinic.
package enum VoidedNames: Hashable, Sendable {
    case all
    case names([String])

    init(_ names: [String]) {
        self = names.contains(CoherenceLimits.everything) ? .all : .names(names)
    }

    package func contains(_ name: String) -> Bool {
        switch self {
        case .all: true
        case .names(let names): names.contains(name)
        }
    }
}

/// The moment before a copy's source was read. A copy is kept only if nothing has voided it since.
package struct CopyTicket: Hashable, Sendable {
    fileprivate let era: UInt64
    /// Voids that were counted when it was made.
    fileprivate let generation: UInt64
    fileprivate let time: MonotonicTime
}

/// Which copies of clinics' data this process may use: its lease, the clinics that it is registered for, and what
/// others have voided. Pure.
///
/// Invariants:
///
/// - copies are used and made only while the lease holds on this process's own clock, which was read before Redis
///   was asked for it;
/// - the lease is extended only after every message that was in the inbox at that moment has been taken in. So a
///   void that was put there is over when this process has acknowledged it, or when the lease that it saw has run
///   out: an extension that came later has taken it in;
/// - a clinic's copies are made only after Redis has counted this process among those who are told of its voids,
///   and the holds of that moment have been taken over;
/// - while a name is held its copies are neither used nor made, and who began to read the source before does not
///   keep what was read;
/// - a lease that ran out, or an inbox that was lost, ends everything: the process begins anew, without copies.
struct CopyLedger {
    struct Hold: Equatable {
        var id: VoidID
        var names: VoidedNames
        /// How long it lasts from now on.
        var left: Duration
    }

    private let limits: CoherenceLimits
    private var clinics: LRUCache<TenantID, CopyRegistration>
    private var wanted: [TenantID] = []
    private var isWanted: Set<TenantID> = []
    private(set) var trustedUntil = MonotonicTime.zero
    /// Raised whenever everything was dropped.
    private(set) var era: UInt64 = 0
    /// Counts the voids of all clinics.
    private var generation: UInt64 = 0

    init(limits: CoherenceLimits) {
        self.limits = limits
        clinics = LRUCache(capacityMax: limits.tenantsMax)
    }

    var count: Int { clinics.count }
    var hasWanted: Bool { !wanted.isEmpty }

    // MARK: Using copies

    /// Whether copies of the clinic may be used now. If not, that will be asked for.
    mutating func mayUse(_ tenant: TenantID, at now: MonotonicTime) -> Bool {
        guard now < trustedUntil else { return false }
        if let standing = clinics.find(tenant)?.standing, standing.isUsable(at: now) {
            return true
        }
        if wanted.count < limits.wantedMax, isWanted.insert(tenant).inserted {
            wanted.append(tenant)
        }
        return false
    }

    /// Whether somebody is just changing what copies of that name are copies of.
    func isHeld(_ tenant: TenantID, _ name: String, at now: MonotonicTime) -> Bool {
        clinics.peek(tenant)?.isHeld(name, at: now) ?? false
    }

    /// To be asked for before the source is read.
    /// - Returns: nil if no copies may be made now.
    mutating func ticket(_ tenant: TenantID, at now: MonotonicTime) -> CopyTicket? {
        mayUse(tenant, at: now) ? CopyTicket(era: era, generation: generation, time: now) : nil
    }

    /// Whether what was read after the ticket was made is still what the source says, under all these names.
    func isCurrent(
        _ ticket: CopyTicket, _ tenant: TenantID, _ names: [String], at now: MonotonicTime
    ) -> Bool {
        guard ticket.era == era, now < trustedUntil, let clinic = clinics.peek(tenant),
            clinic.standing.isUsable(at: now), clinic.standing.isUsable(at: ticket.time)
        else { return false }
        return !clinic.wasVoided(since: ticket.generation, names)
            && !names.contains { clinic.wasHeld($0, since: ticket.time) }
    }

    // MARK: Clinics

    /// Clinics to register for now. Messages about them count from here on, though no copy is made before
    /// `registered`.
    mutating func takeWanted(at now: MonotonicTime) -> (register: [TenantID], forget: [TenantID]) {
        let batch = Array(wanted.prefix(limits.batchMax))
        wanted.removeFirst(batch.count)
        var forget: [TenantID] = []
        for tenant in batch {
            isWanted.remove(tenant)
            if let clinic = clinics.find(tenant) {
                clinic.standing.isRegistered = false
                continue
            }
            let clinic = CopyRegistration(after: generation, limits: limits)
            if let evicted = clinics.insert(clinic, for: tenant) { forget.append(evicted.key) }
        }
        return (batch, forget.filter { clinics.peek($0) == nil })
    }

    /// Nobody can be registered now: whoever asks next asks again.
    mutating func dropWanted() {
        wanted = []
        isWanted = []
    }

    /// Redis counts this process among those who are told.
    ///
    /// - Parameters:
    ///   - holds: of the moment at which it began to.
    ///   - era: of the ledger when that was asked for.
    mutating func registered(
        _ tenant: TenantID, _ holds: [Hold], era: UInt64, at now: MonotonicTime
    ) {
        guard era == self.era, let clinic = clinics.peek(tenant) else { return }
        generation += 1
        for hold in holds { clinic.insert(hold, generation: generation, at: now) }
        clinic.standing.isRegistered = true
        clinic.standing.staleAt = now + limits.registrationLife
    }

    // MARK: Voids

    /// Somebody voids names, and holds them for as long as is left, if that is not nothing.
    /// - Returns: whether there can be copies to drop.
    mutating func voided(_ tenant: TenantID, _ hold: Hold, at now: MonotonicTime) -> Bool {
        guard let clinic = clinics.peek(tenant) else { return false }
        generation += 1
        clinic.void(hold.names, generation: generation)
        if hold.left > .zero { clinic.insert(hold, generation: generation, at: now) }
        return true
    }

    /// What began to be read during the hold may be from before the commit: the release voids it once more.
    mutating func released(_ tenant: TenantID, _ id: VoidID) {
        generation += 1
        clinics.peek(tenant)?.remove(id, generation: generation)
    }

    // MARK: The lease

    /// Redis has extended the lease, and everything that was in the inbox then has been taken in.
    /// - Parameter askedAt: a time before the question was sent.
    mutating func extended(askedAt: MonotonicTime) {
        trustedUntil = max(trustedUntil, askedAt + limits.trust)
    }

    /// This process is counted by nobody any more: it begins anew, without copies.
    mutating func lost() {
        era += 1
        trustedUntil = .zero
        dropWanted()
        clinics.removeAll()
    }
}
