import HCCore
import HCIO

/// Sessions that this process has lately heard of, so that a request need not ask Redis for them.
///
/// A copy is used only while `Coherence` allows, and it is voided in every process before a revocation or a change
/// of roles has been made: what `SessionCache` promises of Redis holds of copies as well.
@LoopActor
final class SessionCopies {
    private struct Copy {
        let tenant: TenantID
        let entry: SessionEntry
        let until: MonotonicTime
    }

    private let coherence: Coherence
    private let life: Duration
    private var copies: LRUCache<SessionID, Copy>

    init(_ coherence: Coherence, life: Duration, copiesMax: Int) {
        self.coherence = coherence
        self.life = life
        copies = LRUCache(capacityMax: copiesMax)
        coherence.onVoid.append { [weak self] tenant, names in self?.void(tenant, names) }
    }

    nonisolated static func name(of session: SessionID) -> String { "session:\(session)" }

    var count: Int { copies.count }

    func find(_ session: SessionID, of tenant: TenantID, at now: Timestamp) -> SessionEntry? {
        guard coherence.mayUseCopies(of: tenant), let copy = copies.find(session),
            copy.tenant == tenant, Loop.now < copy.until, now < copy.entry.expiresAt
        else { return nil }
        return copy.entry
    }

    /// - Parameter ticket: from before Redis was asked.
    func keep(
        _ session: SessionID, of tenant: TenantID, _ entry: SessionEntry, ticket: CopyTicket
    ) {
        guard coherence.isCurrent(ticket, of: tenant, [SessionCopies.name(of: session)]) else {
            return
        }
        copies.insert(
            Copy(tenant: tenant, entry: entry, until: Loop.now + life), for: session)
    }

    private func void(_ tenant: TenantID?, _ names: VoidedNames) {
        guard let tenant else { return copies.removeAll() }
        switch names {
        case .all: copies.removeAll { $1.tenant == tenant }
        case .names(let names):
            for name in names where name.hasPrefix("session:") {
                guard let session = SessionID(String(name.dropFirst("session:".count))) else {
                    continue
                }
                copies.remove(session)
            }
        }
    }
}
