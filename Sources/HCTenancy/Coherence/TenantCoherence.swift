import HCCore
package import HCIO

/// One clinic's part of the agreement on copies: `Coherence` says what it promises.
@LoopActor
package struct TenantCoherence {
    private let coherence: Coherence
    private let tenant: TenantID

    init(_ coherence: Coherence, tenant: TenantID) {
        self.coherence = coherence
        self.tenant = tenant
    }

    /// Whether copies in memory may be used now.
    package func mayUseCopies() -> Bool { coherence.mayUseCopies(of: tenant) }

    /// To be asked for before the source is read; nil if what is read may not be kept.
    package func ticket() -> CopyTicket? { coherence.ticket(for: tenant) }

    /// Whether what was read since may be kept under these names.
    package func isCurrent(_ ticket: CopyTicket, _ names: [String]) -> Bool {
        coherence.isCurrent(ticket, of: tenant, names)
    }

    package func isHeld(_ name: String) -> Bool { coherence.isHeld(name, of: tenant) }

    /// Before a commit: no process uses or makes copies of these names until the release.
    ///
    /// The commit must have happened, or be certain not to happen any more, within `life` of the call.
    package func hold(_ names: [String], for life: Duration) async -> CopyHold {
        await coherence.hold(names, of: tenant, for: life)
    }

    /// After the commit or the rollback. A hold whose outcome is not known is left to end by itself.
    package func release(_ hold: CopyHold) { coherence.release(hold) }

    /// After a commit: returns when no process uses a copy from before it.
    package func void(_ names: [String]) async {
        _ = await coherence.hold(names, of: tenant, for: .zero)
    }
}
