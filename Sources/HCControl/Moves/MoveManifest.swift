package import HCCore
import HCCrypto
package import HCTenancy

/// What a move did and how that was verified, to be signed and kept: `move show` prints it, and whoever has the master
/// key file checks it without any service.
package struct MoveManifest: Hashable, Sendable {
    /// One side of the move, and the server that it was.
    package struct Side: Hashable, Sendable {
        package var shard: String
        package var identity: ShardIdentity

        package init(shard: String, identity: ShardIdentity) {
            self.shard = shard
            self.identity = identity
        }
    }

    /// By the clock of the mover, which may have been set meanwhile: ``MoveManifest/pause`` is not their difference.
    package struct Times: Hashable, Sendable {
        package var started: Timestamp
        package var gate: Timestamp
        package var fence: Timestamp
        /// The commit point.
        package var committed: Timestamp
        package var opened: Timestamp

        package init(
            started: Timestamp, gate: Timestamp, fence: Timestamp, committed: Timestamp,
            opened: Timestamp
        ) {
            self.started = started
            self.gate = gate
            self.fence = fence
            self.committed = committed
            self.opened = opened
        }
    }

    package struct Table: Hashable, Sendable {
        package var name: String
        /// The same on both sides.
        package var digest: RowDigest

        package init(name: String, digest: RowDigest) {
            self.name = name
            self.digest = digest
        }
    }

    package struct Verification: Hashable, Sendable {
        package enum Mode: String, Sendable, CaseIterable {
            /// Every row, while nobody wrote.
            case whole
            /// Every row before the pause, and in it those chunks again that had differed, and each row that was changed
            /// since. The tables' digests are of the time before it.
            case dirtyChunks = "dirty-chunks"
        }

        package var mode: Mode
        package var rowsPerChunk: Int
        package var chunks: Int
        package var chunksInPause: Int
        package var rowsInPause: Int
        /// How often chunks were compared before the pause.
        package var rounds: Int

        package init(
            mode: Mode, rowsPerChunk: Int, chunks: Int, chunksInPause: Int, rowsInPause: Int,
            rounds: Int
        ) {
            self.mode = mode
            self.rowsPerChunk = rowsPerChunk
            self.chunks = chunks
            self.chunksInPause = chunksInPause
            self.rowsInPause = rowsInPause
            self.rounds = rounds
        }
    }

    package var move: UUID
    package var tenant: TenantID
    package var slug: String
    /// Where the clinic was; for a move that was reverted, the target of the way there.
    package var source: Side
    package var target: Side
    package var epochBefore: Int64
    package var epochAfter: Int64
    /// Behind the source's last write of the clinic.
    package var fencePosition: LogPosition
    /// Up to where the target had it durably at the commit point: not before the fence.
    package var confirmedPosition: LogPosition
    package var times: Times
    /// From the gate to the opening, by a clock that cannot be set.
    package var pause: Duration
    /// Sorted by name.
    package var tables: [Table]
    package var verification: Verification
    /// Of the attempt that passed the commit point: it grows with each process that takes the move over, and twice with
    /// each pause that is broken off.
    package var attempts: Int64
    /// Of the program.
    package var toolVersion: String

    package init(
        move: UUID, tenant: TenantID, slug: String, source: Side, target: Side, epochBefore: Int64,
        epochAfter: Int64, fencePosition: LogPosition, confirmedPosition: LogPosition, times: Times,
        pause: Duration, tables: [Table], verification: Verification, attempts: Int64,
        toolVersion: String
    ) {
        self.move = move
        self.tenant = tenant
        self.slug = slug
        self.source = source
        self.target = target
        self.epochBefore = epochBefore
        self.epochAfter = epochAfter
        self.fencePosition = fencePosition
        self.confirmedPosition = confirmedPosition
        self.times = times
        self.pause = pause
        self.tables = tables.sorted { $0.name < $1.name }
        self.verification = verification
        self.attempts = attempts
        self.toolVersion = toolVersion
    }

    package var rows: Int { tables.reduce(0) { $0 + $1.digest.rows } }
}

/// Why a manifest was refused. The description says what is wrong, where, and what that means.
package enum MoveManifestError: Error, Equatable, Sendable, CustomStringConvertible {
    case malformed(JSONError)
    case missing(String)
    case unknownMember(String)
    case invalid(String, expected: String)
    case unsupportedFormat(String)
    case unsupportedAlgorithm(String)
    case unknownKey(String, known: [String])
    case changed(key: String)
    /// OpenSSL failed.
    case crypto(String)

    package var description: String {
        switch self {
        case .malformed(let error): "it is no JSON text: \(error)"
        case .missing(let path): "\(path) is missing"
        case .unknownMember(let path): "\(path) is no member of a manifest"
        case .invalid(let path, let expected): "\(path) is not \(expected)"
        case .unsupportedFormat(let format):
            "it is a '\(format)', this program reads '\(MoveManifest.format)'"
        case .unsupportedAlgorithm(let name):
            "it is signed with '\(name)', this program knows \(PlatformSigner.algorithm)"
        case .unknownKey(let name, let known):
            "it is signed with key \(name), the master key file has \(known.joined(separator: ", "));"
                + " name the file of the time when the move was made"
        case .changed(let key):
            "key \(key) did not sign this: it was changed since, or was never signed"
        case .crypto(let problem): "its signature cannot be checked: \(problem)"
        }
    }
}
