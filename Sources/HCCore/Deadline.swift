/// The moment after which nobody waits for an answer any more. Handed down from above, so that one
/// request has one deadline however many rooms it passes.
package struct Deadline: Hashable, Comparable, Sendable {
    package var time: MonotonicTime

    package init(_ time: MonotonicTime) {
        self.time = time
    }

    /// A deadline that does not come. Only for what has no caller who waits: a service's main loop.
    package static let never = Deadline(MonotonicTime(nanoseconds: .max))

    package static func after(_ duration: Duration, from now: MonotonicTime) -> Deadline {
        Deadline(now + duration)
    }

    /// The time left at `now`: zero once it has passed, never negative.
    package func remaining(at now: MonotonicTime) -> Duration {
        isExpired(at: now) ? .zero : time - now
    }

    package func isExpired(at now: MonotonicTime) -> Bool {
        now >= time
    }

    /// The stricter of two deadlines: what a callee with a limit of its own should use.
    package func earlier(of other: Deadline) -> Deadline {
        min(self, other)
    }

    package static func < (left: Deadline, right: Deadline) -> Bool {
        left.time < right.time
    }
}
