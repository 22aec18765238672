/// A point on the UTC time line in microseconds since 1970-01-01T00:00:00Z, without leap seconds, as
/// PostgreSQL's `timestamptz` has it.
package struct Timestamp: Hashable, Comparable, Sendable, CustomStringConvertible {
    package var microseconds: Int64

    package init(microseconds: Int64) {
        self.microseconds = microseconds
    }

    package init(seconds: Int64) {
        self.microseconds = seconds * 1_000_000
    }

    package static let epoch = Timestamp(microseconds: 0)

    /// Whole seconds since the epoch, rounded down, before 1970 too.
    package var seconds: Int64 {
        Int64(CalendarDate.floorDivide(Int(microseconds), 1_000_000))
    }

    /// Whole milliseconds since the epoch, rounded down.
    package var milliseconds: Int64 {
        Int64(CalendarDate.floorDivide(Int(microseconds), 1000))
    }

    package var description: String { rfc3339 }

    package static func < (left: Timestamp, right: Timestamp) -> Bool {
        left.microseconds < right.microseconds
    }

    /// Saturates at the ends of the range. Fractions of a microsecond are dropped.
    package static func + (time: Timestamp, duration: Duration) -> Timestamp {
        let (sum, overflow) = time.microseconds.addingReportingOverflow(
            duration.inWholeMicroseconds)
        if !overflow { return Timestamp(microseconds: sum) }
        return Timestamp(microseconds: duration < .zero ? .min : .max)
    }

    package static func - (time: Timestamp, duration: Duration) -> Timestamp {
        time + (.zero - duration)
    }

    package static func - (left: Timestamp, right: Timestamp) -> Duration {
        let (difference, overflow) = left.microseconds.subtractingReportingOverflow(
            right.microseconds)
        if !overflow { return .microseconds(difference) }
        return .microseconds(left < right ? Int64.min : Int64.max)
    }
}

extension Duration {
    /// Microseconds over the whole range of `Timestamp` (±292,000 years), saturating.
    fileprivate var inWholeMicroseconds: Int64 {
        // Nearly all have less than 292 years, and divide quickly.
        let nanoseconds = inNanoseconds
        if nanoseconds != .max, nanoseconds != .min { return nanoseconds / 1000 }
        let (seconds, attoseconds) = components
        let (scaled, scaleOverflow) = seconds.multipliedReportingOverflow(by: 1_000_000)
        let (sum, sumOverflow) = scaled.addingReportingOverflow(attoseconds / 1_000_000_000_000)
        if scaleOverflow || sumOverflow { return self < .zero ? .min : .max }
        return sum
    }
}
