/// What is left in a bucket: the pure machine, in the arithmetic of `LimitScript`, step for step.
///
/// - Token bucket: `first` is the level times the window, `at` the tick of that level.
/// - Windows: `first` is what this window has used, `second` what the one before has (sliding only), `at` the number
///   of this window. The sliding window counts the part of the window before that is still within `window` pro rata.
///
/// A clock that goes back gives nothing and takes nothing.
struct BucketState: Hashable, Sendable {
    var first: Int64
    var second: Int64
    var at: Int64

    init(first: Int64, second: Int64, at: Int64) {
        self.first = first
        self.second = second
        self.at = at
    }

    /// Nothing has been used.
    init(full shape: BucketShape, at now: Int64) {
        self.init(left: shape.capacity, shape, at: now)
    }

    /// - Parameter left: units, from 0 to the capacity.
    init(left: Int64, _ shape: BucketShape, at now: Int64) {
        switch shape.algorithm {
        case .tokenBucket: self.init(first: left * shape.window, second: 0, at: now)
        case .slidingWindow, .fixedWindow:
            self.init(first: shape.capacity - left, second: 0, at: now / shape.window)
        }
    }

    /// A bucket that Redis does not have although it may have been used: it has lost what it knew `known` ticks ago.
    init(lost shape: BucketShape, known: Int64, at now: Int64) {
        let missing = shape.capacity - shape.reserve - shape.floor
        // What has come since then; the quotient is what fills everything, so that the product stays small.
        let fill = missing * shape.window / shape.rate + 1
        let gained = min(missing, min(max(0, known), fill) * shape.rate / shape.window)
        self.init(left: shape.reserve + shape.floor + gained, shape, at: now)
    }

    // MARK: Time

    mutating func advance(_ shape: BucketShape, to now: Int64) {
        switch shape.algorithm {
        case .tokenBucket:
            if now > at {
                let full = shape.capacity * shape.window
                let elapsed = min(now - at, full / shape.rate + 1)
                first = min(full, first + elapsed * shape.rate)
            }
            at = now
        case .slidingWindow:
            let number = now / shape.window
            if number == at + 1 {
                second = first
                first = 0
            } else if number > at {
                second = 0
                first = 0
            }
            at = number
        case .fixedWindow:
            let number = now / shape.window
            if number > at { first = 0 }
            at = number
        }
    }

    // MARK: Questions, of a state that has been advanced to `now`

    /// Whole units that a lane may take.
    func available(_ shape: BucketShape, _ lane: LimitLane, at now: Int64) -> Int64 {
        let kept = lane == .safety ? 0 : shape.reserve
        switch shape.algorithm {
        case .tokenBucket:
            return max(0, first - kept * shape.window) / shape.window
        case .slidingWindow:
            let before = second * (shape.window - (now - at * shape.window))
            return max(0, (shape.capacity - kept - first) * shape.window - before) / shape.window
        case .fixedWindow:
            return max(0, shape.capacity - kept - first)
        }
    }

    /// Ticks until `units` are available if nobody takes any; 0 if they are.
    ///
    /// - Parameter units: at most what the lane may use of a full bucket.
    func wait(for units: Int64, _ shape: BucketShape, _ lane: LimitLane, at now: Int64) -> Int64 {
        guard available(shape, lane, at: now) < units else { return 0 }
        let kept = lane == .safety ? 0 : shape.reserve
        let window = shape.window
        switch shape.algorithm {
        case .tokenBucket:
            let missing = (units + kept) * window - first
            return (missing + shape.rate - 1) / shape.rate
        case .fixedWindow:
            return (at + 1) * window - now
        case .slidingWindow:
            let room = shape.capacity - kept - units
            // In this window what the one before used fades; in the next what this one has used.
            if room >= first, second > 0 {
                let share = (room - first) * window / second
                if share > 0 { return max(0, (at + 1) * window - share - now) }
            }
            guard first > 0 else { return (at + 1) * window - now }
            return (at + 2) * window - min(window, room * window / first) - now
        }
    }

    /// Ticks until nothing counts as used, if nobody takes any.
    func untilFull(_ shape: BucketShape, at now: Int64) -> Int64 {
        switch shape.algorithm {
        case .tokenBucket:
            (shape.capacity * shape.window - first + shape.rate - 1) / shape.rate
        case .slidingWindow:
            if first > 0 {
                (at + 2) * shape.window - now
            } else if second > 0 {
                (at + 1) * shape.window - now
            } else {
                0
            }
        case .fixedWindow:
            first > 0 ? (at + 1) * shape.window - now : 0
        }
    }

    // MARK: Changes

    /// - Parameter units: at most what is available.
    mutating func take(_ units: Int64, _ shape: BucketShape) {
        switch shape.algorithm {
        case .tokenBucket: first -= units * shape.window
        case .slidingWindow, .fixedWindow: first += units
        }
    }

    /// Puts back what was taken and not used.
    ///
    /// - Parameter since: `at` of the state from which it was taken: a window that is over gets nothing back.
    mutating func giveBack(_ units: Int64, since: Int64, _ shape: BucketShape) {
        switch shape.algorithm {
        case .tokenBucket:
            first = min(shape.capacity * shape.window, first + units * shape.window)
        case .slidingWindow, .fixedWindow:
            if at == since { first = max(0, first - units) }
            if at == since + 1 { second = max(0, second - units) }
        }
    }

    /// The state of a bucket whose rule has changed: what was left stays, and nothing is won by the change.
    ///
    /// Of the same algorithm and window everything stays as it was counted; else as many units are left as were, at
    /// most what the new rule allows.
    func converted(from old: BucketShape, to shape: BucketShape, at milliseconds: Int64)
        -> BucketState
    {
        if old.countsAlike(shape) {
            guard shape.algorithm == .tokenBucket else { return self }
            return BucketState(
                first: min(first, shape.capacity * shape.window), second: second, at: at)
        }
        let left: Int64
        if old.algorithm == .tokenBucket {
            left = first / old.window
        } else {
            let now = old.ticks(milliseconds)
            var state = self
            state.advance(old, to: now)
            left = state.available(old, .safety, at: now)
        }
        return BucketState(
            left: min(left, shape.capacity), shape, at: shape.ticks(milliseconds))
    }
}
