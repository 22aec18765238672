import HCCore

/// How long this process has had to do without Redis, and what it may do meanwhile.
///
/// One grace: for `graceMax` of all its outages together a process goes on as it did before, then it has its fixed
/// share. **The grace is given anew only when Redis has been well for `rearmAfter` without a break**: one that comes and
/// goes gives no second one, and no second filling of the shares either (`era`).
///
/// A process that has never reached Redis has no grace: there is no "before".
struct OutageMachine {
    enum Phase: Equatable {
        case well
        case grace
        case share
    }

    private enum State {
        /// Can transition to: well (an answer), never (a failure).
        case starting
        /// Can transition to: well.
        case never(since: MonotonicTime)
        /// Can transition to: out.
        case well(since: MonotonicTime)
        /// Can transition to: well.
        case out(since: MonotonicTime)
    }

    let graceMax: Duration
    let rearmAfter: Duration
    private var state = State.starting
    private var graceUsed = Duration.zero
    /// Of all outages that are over.
    private var outBefore = Duration.zero
    /// Counts the graces: shares of an earlier era begin full again.
    private(set) var era = 0

    init(graceMax: Duration, rearmAfter: Duration) {
        self.graceMax = graceMax
        self.rearmAfter = rearmAfter
    }

    mutating func answered(at now: MonotonicTime) {
        switch state {
        case .starting:
            state = .well(since: now)
        case .never(let since):
            outBefore += max(.zero, now - since)
            graceUsed = .zero
            state = .well(since: now)
        case .out(let since):
            let lasted = max(.zero, now - since)
            graceUsed = min(graceMax, graceUsed + lasted)
            outBefore += lasted
            state = .well(since: now)
        case .well: break
        }
    }

    /// - Returns: whether this is news.
    @discardableResult
    mutating func failed(at now: MonotonicTime) -> Bool {
        switch state {
        case .starting:
            state = .never(since: now)
            return true
        case .well(let since):
            if now - since >= rearmAfter {
                graceUsed = .zero
                era += 1
            }
            state = .out(since: now)
            return true
        case .never, .out: return false
        }
    }

    func phase(at now: MonotonicTime) -> Phase {
        switch state {
        case .starting, .well: .well
        case .never: .share
        case .out(let since): graceUsed + (now - since) < graceMax ? .grace : .share
        }
    }

    func graceLeft(at now: MonotonicTime) -> Duration {
        switch state {
        case .starting, .never: .zero
        case .well(let since): now - since >= rearmAfter ? graceMax : graceMax - graceUsed
        case .out(let since): max(.zero, graceMax - graceUsed - (now - since))
        }
    }

    /// The time that has passed in outages: shares gain units by this clock, and so nothing while Redis is well.
    func clock(at now: MonotonicTime) -> Duration {
        switch state {
        case .starting, .well: outBefore
        case .never(let since), .out(let since): outBefore + max(.zero, now - since)
        }
    }
}
