import HCCore
import HCCrypto
import HCIO
import HCPostgres

/// What one request must not miss of what was written before it, and what it has written itself.
@LoopActor
final class ReadScope {
    let session: SessionID?
    /// What the client brought; `unknown` for what cannot be read.
    private let brought: ReadRequirement
    private(set) var written: CommitPosition?

    init(session: SessionID?, brought: ReadRequirement = .nothing) {
        self.session = session
        self.brought = brought
    }

    /// The request has committed something, up to there.
    func wrote(_ position: CommitPosition) {
        written = written.map { $0.joined(with: position) } ?? position
    }

    /// A transaction was committed.
    ///
    /// - Parameter position: nil: nobody could say where; then only the primary is sure to have it.
    func wrote(_ entrance: Entrance, _ log: ShardIdentity, _ position: UInt64?) {
        wrote(
            CommitPosition(
                shard: entrance.record.shard, timeline: log.timeline, epoch: entrance.record.epoch,
                position: position.map { LogPosition($0) } ?? .unreachable))
    }

    /// A transaction failed: it may have been committed all the same.
    func failed(_ error: PostgresError, _ entrance: Entrance, _ log: ShardIdentity?) {
        guard case .commitUnknown = error.kind, let log else { return }
        wrote(entrance, log, nil)
    }

    /// - Parameter marked: what the session has written in other requests.
    func requirement(with marked: ReadRequirement) -> ReadRequirement {
        var all: CommitPosition?
        for part in [brought, marked, written.map { .position($0) } ?? .nothing] {
            switch part {
            case .nothing: break
            case .unknown: return .unknown
            case .position(let position):
                all = all.map { $0.joined(with: position) } ?? position
            }
        }
        return all.map { .position($0) } ?? .nothing
    }
}

/// The field `HC-Read-After`: a position that a client may carry from one session to another.
///
/// Sealed under the clinic's own key: it tells nobody how much its neighbours write, and is void elsewhere.
enum ReadToken {
    /// Longer ones are none of ours.
    static let bytesMax = 512

    static func make(
        _ position: CommitPosition, keys: TenantKeys, tenant: TenantID
    ) throws(TenancyError) -> String {
        let sealed = try keys.seal(
            Array(position.text.utf8), table: "read_after", column: "position", row: tenant.uuid)
        return Base64.url.encode(sealed.bytes)
    }

    /// What cannot be read is no error: its reader may not go to a replica, that is all.
    static func read(_ text: String, keys: TenantKeys, tenant: TenantID) -> ReadRequirement {
        guard text.utf8.count <= bytesMax, let sealed = Base64.url.decode(text),
            let bytes = try? keys.open(
                sealed, table: "read_after", column: "position", row: tenant.uuid),
            let position = CommitPosition(text: bytes)
        else { return .unknown }
        return .position(position)
    }
}
