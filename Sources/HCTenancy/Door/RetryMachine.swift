import HCCore
import HCIO
import HCPostgres

/// What to do after a transaction of a clinic failed. One per call; pure.
///
/// `hc_enter()` refuses before any effect, so after `moved` and `parked` trying again is always safe. After a
/// lost connection it is safe when nothing can have been committed; when something can, only repeatable work
/// is tried again: reads, and audit rows, which are the same rows the second time.
struct RetryMachine {
    /// What happened, as far as it matters here.
    enum Failure: Equatable {
        /// HC001: not here.
        case moved
        /// HC002: on its way.
        case draining
        /// HC003.
        case suspended
        /// HC004.
        case readOnly
        /// 40001, 40P01 and their kin: nothing was committed, and the next try may do better.
        case conflict
        /// The connection is gone and nothing was committed.
        case connectionLost
        /// The connection is gone while a commit was under way.
        case commitUnknown
        /// No connection can be had.
        case unreachable(retryAfter: Duration)
        /// The pool's queue is full, or nobody gave a connection back in time.
        case poolExhausted(retryAfter: Duration)
        case deadlineExceeded
        /// Work on the shard took longer than the clinic's tier lets it.
        case timeLimitExceeded
        case cancelled
        /// A matter between the caller and its SQL.
        case other
    }

    enum Action: Equatable {
        /// Read the map again, then report with `mapRefreshed`.
        case refreshMap
        /// Wait until the clinic's place on the map changes, at most this long, then try again.
        case park(Duration)
        case retry(after: Duration)
        case fail(TenancyError)
        /// Give the caller the error as it is.
        case rethrow
    }

    struct Limits {
        /// Changes of place that one call follows.
        var movesMax = 3
        var conflictsMax = 4
        var connectionsMax = 2
        /// Parked without an event, the next look comes after this, doubling up to `parkMax`: a move that was
        /// called off changes no map.
        var parkMin = Duration.milliseconds(10)
        var parkMax = Duration.milliseconds(250)
        /// What a client is told to wait for a clinic that is being moved.
        var movingRetryAfter = Duration.seconds(1)

        init() {}
    }

    private let limits: Limits
    /// Whether doing the work twice is the same as doing it once.
    private let isRepeatable: Bool
    private var moves = 0
    private var conflicts = 0
    private var connections = 0
    private var parks = 0

    init(isRepeatable: Bool, limits: Limits = Limits()) {
        self.isRepeatable = isRepeatable
        self.limits = limits
    }

    mutating func failed(
        _ failure: Failure, using generator: inout some RandomNumberGenerator
    ) -> Action {
        switch failure {
        case .moved:
            moves += 1
            return moves <= limits.movesMax
                ? .refreshMap : .fail(.moving(retryAfter: limits.movingRetryAfter))
        case .draining:
            let wait = min(limits.parkMax, limits.parkMin * (1 << min(parks, 10)))
            parks += 1
            return .park(wait)
        case .suspended: return .fail(.suspended)
        case .readOnly: return .fail(.readOnly)
        case .conflict:
            conflicts += 1
            guard conflicts <= limits.conflictsMax else { return .rethrow }
            // Between nothing and 2, 4, 8, 16 ms: the rivals must not meet again.
            let bound = Int64(1_000_000) << Int64(conflicts)
            return .retry(after: .nanoseconds(Int64.random(in: 0...bound, using: &generator)))
        case .connectionLost:
            return reconnect(or: .shardUnavailable(retryAfter: .seconds(1)))
        case .commitUnknown:
            return isRepeatable
                ? reconnect(or: .shardUnavailable(retryAfter: .seconds(1)))
                : .fail(.outcomeUnknown)
        case .unreachable(let time): return .fail(.shardUnavailable(retryAfter: time))
        // Time that was spent waiting for a move is the move's doing, and coming back will help.
        case .poolExhausted where parks > 0, .deadlineExceeded where parks > 0:
            return .fail(.moving(retryAfter: limits.movingRetryAfter))
        case .poolExhausted(let time): return .fail(.overloaded(retryAfter: time))
        case .timeLimitExceeded: return .fail(.timeLimitExceeded)
        case .deadlineExceeded: return .fail(.deadlineExceeded)
        case .cancelled: return .fail(.cancelled)
        case .other: return .rethrow
        }
    }

    /// The map is as new as can be.
    ///
    /// - Parameter isElsewhere: whether it names another place or epoch than the one that refused.
    mutating func mapRefreshed(isElsewhere: Bool) -> Action {
        isElsewhere
            ? .retry(after: .zero) : .fail(.moving(retryAfter: limits.movingRetryAfter))
    }

    private mutating func reconnect(or error: TenancyError) -> Action {
        connections += 1
        return connections <= limits.connectionsMax ? .retry(after: .zero) : .fail(error)
    }
}

extension RetryMachine.Failure {
    /// - Parameter isLate: whether the caller's own deadline has passed: else it is the tier's limit that ended the work.
    init(_ error: PostgresError, isLate: Bool = true) {
        switch error.kind {
        case .server(let server):
            switch server.sqlstate {
            case .tenantMoved: self = .moved
            case .tenantDraining: self = .draining
            case .tenantSuspended: self = .suspended
            case .tenantReadOnly: self = .readOnly
            // A cancellation of ours comes as `.deadlineExceeded` or `.cancelled`: this one is the server's.
            case .queryCancelled: self = .timeLimitExceeded
            case _ where error.isRetryable: self = .conflict
            case _ where server.isFatal || server.sqlstate == .cannotConnectNow:
                self = .connectionLost
            default: self = .other
            }
        case .connectionLost: self = .connectionLost
        case .commitUnknown: self = .commitUnknown
        case .connectFailed: self = .unreachable(retryAfter: .seconds(1))
        case .deadlineExceeded: self = isLate ? .deadlineExceeded : .timeLimitExceeded
        case .cancelled: self = .cancelled
        case .decode, .encode, .misuse: self = .other
        }
    }
}

extension RetryMachine.Failure {
    /// Nothing was begun.
    init(_ error: PoolError) {
        switch error.code {
        case .queueFull: self = .poolExhausted(retryAfter: .seconds(1))
        case .circuitOpen: self = .unreachable(retryAfter: error.retryAfter ?? .seconds(1))
        // The shard has got another pool: its record changed.
        case .shutDown: self = .connectionLost
        case .deadlineExceeded:
            self =
                error.cause == nil
                ? .poolExhausted(retryAfter: .seconds(1)) : .unreachable(retryAfter: .seconds(1))
        }
    }
}
