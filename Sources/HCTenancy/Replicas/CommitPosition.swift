/// A place in the log of a server (LSN): bytes from its beginning.
package struct LogPosition: Hashable, Comparable, Sendable {
    package let bytes: UInt64

    package init(_ bytes: UInt64) {
        self.bytes = bytes
    }

    /// Behind everything: no replica ever gets there.
    static let unreachable = LogPosition(.max)

    package static func < (left: LogPosition, right: LogPosition) -> Bool {
        left.bytes < right.bytes
    }
}

/// Up to where a shard's log must have been replayed for a reader to see a write.
///
/// Positions of two shards, or of two timelines of one, cannot be compared; and a clinic that has moved since is
/// somewhere else. Whatever does not fit the place that is read makes the primary answer.
package struct CommitPosition: Hashable, Sendable {
    package let shard: ShardID
    package let timeline: Int
    /// Of the clinic.
    package let epoch: Int64
    /// At or behind the end of the commit record.
    package let position: LogPosition

    package init(shard: ShardID, timeline: Int, epoch: Int64, position: LogPosition) {
        self.shard = shard
        self.timeline = timeline
        self.epoch = epoch
        self.position = position
    }

    /// Of two positions the one that implies the other; of two that cannot be compared, nobody knows: then the
    /// result is out of everybody's reach, and the primary answers.
    func joined(with other: CommitPosition) -> CommitPosition {
        guard shard == other.shard, timeline == other.timeline, epoch == other.epoch else {
            let newer = epoch >= other.epoch ? self : other
            return CommitPosition(
                shard: newer.shard, timeline: newer.timeline, epoch: newer.epoch,
                position: .unreachable)
        }
        return position >= other.position ? self : other
    }

    /// As Redis keeps it for a session: `1 <shard> <timeline> <epoch> <position>`.
    var text: String { "1 \(shard) \(timeline) \(epoch) \(position.bytes)" }

    init?(text: [UInt8]) {
        let words = String(decoding: text, as: UTF8.self)
            .split(separator: " ", omittingEmptySubsequences: false)
        guard words.count == 5, words[0] == "1", !words[1].isEmpty, let timeline = Int(words[2]),
            let epoch = Int64(words[3]), let bytes = UInt64(words[4])
        else { return nil }
        self.init(
            shard: ShardID(String(words[1])), timeline: timeline, epoch: epoch,
            position: LogPosition(bytes))
    }
}

/// Which server may answer a read.
package enum ReadTarget: Sendable {
    /// The primary and nobody else: for everything that a write or a decision depends on.
    case primary
    /// The primary; while it is lost, a replica. For what is better old than not there.
    case primaryUnlessLost
    /// A replica that is fresh enough; the primary when there is none. For lists and searches.
    ///
    /// What is read holds every commit of the clinic that is older than the bound of the lag
    /// (`replicas.lagMax`), and the reader's own, whatever their age.
    case replica

    var prefersReplica: Bool { self == .replica }
}

/// What a reader must not miss.
enum ReadRequirement: Equatable {
    /// Nothing but what the bound of the lag promises.
    case nothing
    case position(CommitPosition)
    /// Nobody knows what: only the primary will do.
    case unknown
}

extension ReadRequirement {
    /// - Returns: what must have been replayed at a place; nil when nobody can say, for it was written at another
    ///   place, or in another timeline.
    func position(shard: ShardID, timeline: Int, epoch: Int64) -> ReplicaReader.Position? {
        switch self {
        case .nothing: return ReplicaReader.Position(value: nil)
        case .unknown: return nil
        case .position(let written):
            guard written.shard == shard, written.timeline == timeline, written.epoch == epoch
            else { return nil }
            return ReplicaReader.Position(value: written.position)
        }
    }
}
