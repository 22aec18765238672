import HCCore

/// What following the log means, without a database: which lines call for which reading.
///
/// The log is gapless and ordered by commit (`placement_log`), so the next line after ours has our version + 1.
/// Everything else means that lines are gone, or that this is another log: then the whole map is read again.
struct FollowerMachine {
    struct Line: Equatable {
        enum Subject: Equatable {
            case tenant(TenantID)
            case tier
            case shard
        }
        var version: Int64
        /// Nil: a kind of line that a newer schema brought.
        var subject: Subject?
    }

    /// What one poll found.
    struct Feed: Equatable {
        var source: String
        /// The counter, read before the lines.
        var version: Int64
        var lines: [Line]
    }

    struct Reading: Equatable {
        var version: Int64
        var tenants: [TenantID]
        var shards: Bool
        var tiers: Bool
        /// The poll was full: there may be more lines.
        var isPartial: Bool
    }

    enum Action: Equatable {
        case nothing
        case read(Reading)
        case readEverything(reason: Reason)
    }

    enum Reason: String {
        case nothingLoaded
        /// The counter is below our version, or belongs to another database: it was restored or replaced.
        case otherLog
        /// Lines between ours and the first are gone.
        case gap
        case unknownKind
        /// So many lines that reading everything is cheaper.
        case farBehind
    }

    /// Lines that one poll asks for.
    static let linesMax = 1000

    static func next(after version: Int64, source: String, feed: Feed) -> Action {
        guard feed.source == source, feed.version >= version else {
            return .readEverything(reason: .otherLog)
        }
        if feed.version - version > Int64(linesMax) * 4 {
            return .readEverything(reason: .farBehind)
        }
        guard let last = feed.lines.last else {
            return feed.version == version ? .nothing : .readEverything(reason: .gap)
        }
        var reading = Reading(
            version: last.version, tenants: [], shards: false, tiers: false,
            isPartial: feed.lines.count == linesMax)
        var seen: Set<TenantID> = []
        for (offset, line) in feed.lines.enumerated() {
            guard line.version == version + 1 + Int64(offset) else {
                return .readEverything(reason: .gap)
            }
            switch line.subject {
            case .tenant(let tenant):
                if seen.insert(tenant).inserted { reading.tenants.append(tenant) }
            case .tier: reading.tiers = true
            case .shard: reading.shards = true
            case nil: return .readEverything(reason: .unknownKind)
            }
        }
        return .read(reading)
    }
}
