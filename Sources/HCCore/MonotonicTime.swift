/// A reading of a clock that never goes back: nanoseconds of `CLOCK_MONOTONIC` (man 2 clock_gettime).
///
/// Readings of two machines, or of one before and after a boot, cannot be compared.
@usableFromInline package struct MonotonicTime: Hashable, Comparable, Sendable {
    @usableFromInline package var nanoseconds: Int64

    @inlinable package init(nanoseconds: Int64) {
        self.nanoseconds = nanoseconds
    }

    @inlinable package static var zero: MonotonicTime { MonotonicTime(nanoseconds: 0) }

    @inlinable package static func < (left: MonotonicTime, right: MonotonicTime) -> Bool {
        left.nanoseconds < right.nanoseconds
    }

    /// Saturates at the ends of the range instead of trapping: "in a million years" is still a time.
    @inlinable package static func + (time: MonotonicTime, duration: Duration) -> MonotonicTime {
        let (sum, overflow) = time.nanoseconds.addingReportingOverflow(duration.inNanoseconds)
        if !overflow { return MonotonicTime(nanoseconds: sum) }
        return MonotonicTime(nanoseconds: duration < .zero ? .min : .max)
    }

    @inlinable package static func - (time: MonotonicTime, duration: Duration) -> MonotonicTime {
        let (difference, overflow) = time.nanoseconds.subtractingReportingOverflow(
            duration.inNanoseconds)
        if !overflow { return MonotonicTime(nanoseconds: difference) }
        return MonotonicTime(nanoseconds: duration < .zero ? .max : .min)
    }

    @inlinable package static func - (left: MonotonicTime, right: MonotonicTime) -> Duration {
        let (difference, overflow) = left.nanoseconds.subtractingReportingOverflow(
            right.nanoseconds)
        let nanoseconds = overflow ? (left < right ? Int64.min : Int64.max) : difference
        return Duration(attoseconds: Int128(nanoseconds) * 1_000_000_000)
    }

    @inlinable package static func += (time: inout MonotonicTime, duration: Duration) {
        time = time + duration
    }
}

extension Duration {
    /// Whole nanoseconds, rounded toward zero, saturating at about ±292 years.
    @usableFromInline package var inNanoseconds: Int64 {
        // A request asks some ten times, and a division of 128 bits is a call with a loop in it: here are two of 64 bits by
        // a constant, which are multiplications.
        let billion: UInt64 = 1_000_000_000
        if attoseconds >> 64 == 0 {
            return Int64(UInt64(truncatingIfNeeded: attoseconds) / billion)
        }
        let magnitude = attoseconds.magnitude
        guard magnitude >> 64 < billion / 2 else { return attoseconds < 0 ? .min : .max }
        let low = UInt64(truncatingIfNeeded: magnitude)
        let upper = UInt64(truncatingIfNeeded: magnitude >> 32)
        let lower = (upper % billion) << 32 | low & 0xffff_ffff
        let quotient = Int64((upper / billion) << 32 | lower / billion)
        return attoseconds < 0 ? -quotient : quotient
    }

    /// Whole microseconds, rounded toward zero, saturating as `inNanoseconds` does.
    package var inMicroseconds: Int64 { inNanoseconds / 1000 }

    /// Whole milliseconds, rounded toward zero, saturating as `inNanoseconds` does.
    package var inMilliseconds: Int64 { inNanoseconds / 1_000_000 }

    /// Whole seconds, rounded up: what `Retry-After` needs, so that nobody comes a moment too early. Saturating as
    /// `inNanoseconds` does.
    package var inSecondsRoundedUp: Int64 {
        let nanoseconds = inNanoseconds
        guard attoseconds > 0 else { return nanoseconds / 1_000_000_000 }
        let isWhole =
            nanoseconds % 1_000_000_000 == 0
            && attoseconds == Int128(nanoseconds) * 1_000_000_000
        return nanoseconds / 1_000_000_000 + (isWhole ? 0 : 1)
    }

    /// Seconds with a fraction, for metrics and logs; not for arithmetic on time.
    package var inSeconds: Double {
        let (seconds, attoseconds) = components
        return Double(seconds) + Double(attoseconds) / 1e18
    }
}
