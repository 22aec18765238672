/// How long to wait before the next try: exponential, bounded, with jitter so that a thousand clients do
/// not come back in the same moment. A pure machine: randomness is passed in, and nothing here waits.
package struct Backoff: Sendable {
    package let initial: Duration
    package let maximum: Duration

    /// Tries that failed since the last `reset()`.
    package private(set) var failures = 0

    /// - Parameters:
    ///   - initial: the upper bound of the first wait; above zero.
    ///   - maximum: the upper bound of any wait; at least `initial`.
    package init(initial: Duration, maximum: Duration) {
        precondition(initial > .zero && maximum >= initial, "a backoff grows from above zero")
        self.initial = initial
        self.maximum = maximum
    }

    /// Counts a failure and gives the wait that should follow it: between half the bound and the bound,
    /// where the bound doubles from `initial` to `maximum`.
    package mutating func next(using generator: inout some RandomNumberGenerator) -> Duration {
        var bound = initial
        for _ in 0..<failures {
            if bound >= maximum { break }
            bound += bound
        }
        bound = min(bound, maximum)
        if failures < Int.max { failures += 1 }
        let nanoseconds = max(1, bound.inNanoseconds)
        let half = nanoseconds / 2
        return .nanoseconds(half + Int64.random(in: 0...(nanoseconds - half), using: &generator))
    }

    /// A try went well: the next failure waits `initial` again.
    package mutating func reset() {
        failures = 0
    }
}
