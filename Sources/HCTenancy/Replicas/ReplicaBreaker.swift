import HCCore

/// Keeps reads away from a replica that fails. Pure.
///
/// After some failures in a row nobody asks it for a while that doubles with each disappointment. Then the sampler
/// asks where it is, and only if it answers one read tries it; the others go on without it until that one is well.
struct ReplicaBreaker {
    enum State: Equatable {
        /// Can transition to: open.
        case closed
        /// Nobody asks before this. Can transition to: open (a later time), halfOpen.
        case open(until: MonotonicTime)
        /// The sampler got an answer: one read may try. Can transition to: trying, open.
        case halfOpen
        /// That read is under way. Can transition to: closed, open, halfOpen (it was given up for other reasons).
        case trying
    }

    struct Limits {
        /// Reads, or questions of the sampler, that fail in a row.
        var failuresMax = 3
        var waitInitial = Duration.milliseconds(250)
        var waitMax = Duration.seconds(10)

        init() {}
    }

    private(set) var state = State.closed
    private let failuresMax: Int
    private var backoff: Backoff
    private var readFailures = 0
    private var sampleFailures = 0

    init(_ limits: Limits = Limits()) {
        failuresMax = limits.failuresMax
        backoff = Backoff(initial: limits.waitInitial, maximum: limits.waitMax)
    }

    /// Whether a read may go there; it then says so with `take()`.
    var admits: Bool { state == .closed || state == .halfOpen }

    func maySample(now: MonotonicTime) -> Bool {
        if case .open(let until) = state { return until <= now }
        return true
    }

    mutating func take() {
        precondition(admits, "a read goes where it may")
        if state == .halfOpen { state = .trying }
    }

    mutating func readSucceeded() {
        // The late answer to a read from before the failures proves nothing.
        if case .open = state { return }
        readFailures = 0
        state = .closed
        backoff.reset()
    }

    mutating func readFailed(now: MonotonicTime, using generator: inout some RandomNumberGenerator)
    {
        readFailures += 1
        failed(isLast: readFailures >= failuresMax, now, &generator)
    }

    /// It was given up by who asked: neither good nor bad.
    mutating func readAbandoned() {
        if state == .trying { state = .halfOpen }
    }

    mutating func sampleSucceeded(now: MonotonicTime) {
        sampleFailures = 0
        if case .open(let until) = state, until <= now { state = .halfOpen }
    }

    mutating func sampleFailed(
        now: MonotonicTime, using generator: inout some RandomNumberGenerator
    ) {
        if case .open(let until) = state, until <= now { return open(now, &generator) }
        sampleFailures += 1
        failed(isLast: sampleFailures >= failuresMax, now, &generator)
    }

    private mutating func failed(
        isLast: Bool, _ now: MonotonicTime, _ generator: inout some RandomNumberGenerator
    ) {
        switch state {
        // What was under way when it opened.
        case .open: break
        case .closed: if isLast { open(now, &generator) }
        case .halfOpen, .trying: open(now, &generator)
        }
    }

    private mutating func open(
        _ now: MonotonicTime, _ generator: inout some RandomNumberGenerator
    ) {
        readFailures = 0
        sampleFailures = 0
        state = .open(until: now + backoff.next(using: &generator))
    }
}
