import HCCore
import HCTesting
import Testing

@Suite("Steady time and deadlines")
struct MonotonicTimeTests {
    @Test("sums and differences saturate instead of trapping")
    func saturation() {
        let late = MonotonicTime(nanoseconds: .max - 5)
        let early = MonotonicTime(nanoseconds: .min + 5)
        #expect(late + .seconds(1) == MonotonicTime(nanoseconds: .max))
        #expect(early - .seconds(1) == MonotonicTime(nanoseconds: .min))
        #expect(late - .seconds(-1) == MonotonicTime(nanoseconds: .max))
        #expect(late - early == .nanoseconds(Int64.max))
        #expect(early - late == .nanoseconds(Int64.min))
        #expect(MonotonicTime.zero + .seconds(Int64.max) == MonotonicTime(nanoseconds: .max))
    }

    @Test("a duration gives whole units, rounded toward zero, and seconds rounded up")
    func durations() {
        #expect(Duration.microseconds(1_999_999).inMilliseconds == 1999)
        #expect(Duration.microseconds(-1500).inMilliseconds == -1)
        #expect(Duration.milliseconds(1500).inMicroseconds == 1_500_000)
        #expect(Duration.seconds(Int64.max).inNanoseconds == .max)
        #expect(Duration.seconds(Int64.min).inNanoseconds == .min)
        #expect(Duration.milliseconds(1).inSecondsRoundedUp == 1)
        #expect(Duration.seconds(2).inSecondsRoundedUp == 2)
        #expect(Duration.zero.inSecondsRoundedUp == 0)
        #expect(Duration.milliseconds(-1500).inSecondsRoundedUp == -1)
        #expect(Duration(attoseconds: 1_000_000_000_000_000_001).inSecondsRoundedUp == 2)
        #expect(Duration(attoseconds: 60_000_000_000_000_000_001).inSecondsRoundedUp == 61)
        #expect(Duration.seconds(60).inSecondsRoundedUp == 60)
        #expect(Duration.milliseconds(250).inSeconds == 0.25)
    }

    @Test("nanoseconds and seconds are those that a division of 128 bits gives")
    func division() {
        let seed = UInt64.random(in: .min ... .max)
        var random = SeededRandom(seed: seed)
        for _ in 0..<20_000 {
            let bits = Int.random(in: 1...126, using: &random)
            let magnitude = Int128(random.next()) << 64 | Int128(random.next())
            let attoseconds = (Bool.random(using: &random) ? 1 : -1) * (magnitude >> (127 - bits))
            let duration = Duration(attoseconds: attoseconds)
            let whole = Int64(clamping: attoseconds / 1_000_000_000)
            #expect(duration.inNanoseconds == whole, "seed \(seed): \(attoseconds)")
            guard whole != .max, whole != .min else { continue }
            let second: Int128 = 1_000_000_000_000_000_000
            let up = attoseconds > 0 ? (attoseconds - 1) / second + 1 : attoseconds / second
            #expect(duration.inSecondsRoundedUp == Int64(up), "seed \(seed): \(attoseconds)")
        }
    }

    @Test("a deadline is expired in its own moment and leaves nothing, never less")
    func deadlines() {
        let clock = ManualClock()
        let deadline = Deadline.after(.seconds(2), from: clock.monotonic)
        #expect(!deadline.isExpired(at: clock.monotonic))
        clock.advance(by: .milliseconds(500))
        #expect(deadline.remaining(at: clock.monotonic) == .milliseconds(1500))
        clock.advance(by: .milliseconds(1500))
        #expect(deadline.isExpired(at: clock.monotonic))
        clock.advance(by: .seconds(9))
        #expect(deadline.remaining(at: clock.monotonic) == .zero)
        #expect(deadline.earlier(of: .never) == deadline)
        #expect(!Deadline.never.isExpired(at: MonotonicTime(nanoseconds: .max - 1)))
    }

    @Test("the manual clock moves only when told, and the wall clock can be set alone")
    func manualClock() {
        let clock = ManualClock()
        let clocks = clock.clocks
        let before = (clocks.now(), clocks.monotonic())
        #expect(before == (clocks.now(), clocks.monotonic()))
        clock.setWallClock(to: .epoch)
        #expect(clocks.now() == .epoch)
        #expect(clocks.monotonic() == before.1)
    }
}

@Suite("Calendar dates")
struct CalendarDateTests {
    @Test(
        "days since the epoch",
        arguments: [
            ("1970-01-01", 0), ("1969-12-31", -1), ("2000-02-29", 11_016), ("2026-03-08", 20_520),
            ("0001-01-01", -719_162), ("9999-12-31", 2_932_896), ("1600-03-01", -135_080),
        ])
    func days(text: String, days: Int) throws {
        let date = try #require(CalendarDate(iso8601: text))
        #expect(date.daysSinceEpoch == days)
        #expect(CalendarDate(daysSinceEpoch: days) == date)
        #expect(date.iso8601 == text)
    }

    @Test("every day of eight centuries follows the one before")
    func successive() throws {
        var date = try #require(CalendarDate(year: 1600, month: 1, day: 1))
        let start = date.daysSinceEpoch
        for count in 1...292_194 {
            let next = try #require(CalendarDate(daysSinceEpoch: start + count))
            let isNextDay = next.day == date.day + 1 && next.month == date.month
            let isNextMonth =
                next.day == 1 && date.day == CalendarDate.days(inMonth: date.month, year: date.year)
            guard isNextDay || isNextMonth, next.daysSinceEpoch == start + count else {
                Issue.record("after \(date) came \(next)")
                return
            }
            date = next
        }
        #expect(date.iso8601 == "2400-01-01")
    }

    @Test(
        "what is no date is refused",
        arguments: [
            "", "2026-02-29", "1900-02-29", "2026-13-01", "2026-00-10", "2026-01-00", "2026-04-31",
            "0000-01-01", "2026-1-01", "2026-01-1", "2026/01/01", "20260101", "2026-01-01 ",
            " 2026-01-01", "2026-01-011", "+026-01-01", "２０26-01-01", "2026-01-01T00:00:00Z",
        ])
    func refused(text: String) {
        #expect(CalendarDate(iso8601: text) == nil)
    }

    @Test("weekdays and the ends of the calendar")
    func weekdays() throws {
        #expect(CalendarDate(iso8601: "1970-01-01")?.isoWeekday == 4)
        #expect(CalendarDate(iso8601: "1969-12-28")?.isoWeekday == 7)
        #expect(CalendarDate(iso8601: "2026-03-09")?.isoWeekday == 1)
        #expect(CalendarDate.last.adding(days: 1) == nil)
        #expect(CalendarDate.first.adding(days: -1) == nil)
        #expect(CalendarDate.first.adding(days: .max) == nil)
        #expect(CalendarDate(iso8601: "2024-02-28")?.adding(days: 1)?.iso8601 == "2024-02-29")
        #expect(CalendarDate.first < CalendarDate.last)
    }
}

@Suite("Timestamps and RFC 3339")
struct TimestampTests {
    @Test(
        "an instant is read and written back in UTC",
        arguments: [
            ("2026-03-08T14:00:00Z", 1_772_978_400_000_000, "2026-03-08T14:00:00Z"),
            ("2026-03-08t14:00:00z", 1_772_978_400_000_000, "2026-03-08T14:00:00Z"),
            ("2026-03-08T10:00:00-04:00", 1_772_978_400_000_000, "2026-03-08T14:00:00Z"),
            ("2026-03-08T19:45:00+05:45", 1_772_978_400_000_000, "2026-03-08T14:00:00Z"),
            ("1970-01-01T00:00:00-00:00", 0, "1970-01-01T00:00:00Z"),
            ("1969-12-31T23:59:59.5Z", -500_000, "1969-12-31T23:59:59.500000Z"),
            ("1970-01-01T00:00:00.123456789Z", 123_456, "1970-01-01T00:00:00.123456Z"),
            ("1970-01-01T00:00:00.000000999Z", 0, "1970-01-01T00:00:00Z"),
            ("1970-01-01T00:00:00.1Z", 100_000, "1970-01-01T00:00:00.100000Z"),
            ("0001-01-01T00:00:00Z", -62_135_596_800_000_000, "0001-01-01T00:00:00Z"),
            (
                "9999-12-31T23:59:59.999999Z", 253_402_300_799_999_999,
                "9999-12-31T23:59:59.999999Z"
            ),
            ("2024-02-29T23:59:59+23:59", 1_709_164_859_000_000, "2024-02-29T00:00:59Z"),
        ])
    func accepted(text: String, microseconds: Int64, written: String) throws {
        let time = try #require(Timestamp(rfc3339: text))
        #expect(time.microseconds == microseconds)
        #expect(time.rfc3339 == written)
        #expect(Timestamp(rfc3339: time.rfc3339) == time)
    }

    @Test(
        "what is no RFC 3339 instant is refused",
        arguments: [
            "", "2026-03-08", "2026-03-08T14:00:00", "2026-03-08 14:00:00Z", "2026-03-08T14:00Z",
            "2026-03-08T14:00:60Z", "2026-06-30T23:59:60Z", "2026-03-08T24:00:00Z",
            "2026-03-08T14:60:00Z", "2026-02-29T00:00:00Z", "2026-03-08T14:00:00.Z",
            "2026-03-08T14:00:00.1234567890Z", "2026-03-08T14:00:00,5Z", "2026-03-08T14:00:00+0400",
            "2026-03-08T14:00:00+04", "2026-03-08T14:00:00+24:00", "2026-03-08T14:00:00+04:60",
            "2026-03-08T14:00:00ZZ", "2026-03-08T14:00:00Z ", " 2026-03-08T14:00:00Z",
            "0000-12-31T23:59:59Z", "0001-01-01T00:00:00+00:01", "9999-12-31T23:59:59-00:01",
            "-026-03-08T14:00:00Z", "12026-03-08T14:00:00Z", "2026-03-08T14:00:00*04:00",
            "2026-03-08T14:00:00−04:00", "2026-W10-7T14:00:00Z", "2026-03-08T14:00:00.5",
            "2026-03-08T14:00:00.123456789+01:000",
        ])
    func refused(text: String) {
        #expect(Timestamp(rfc3339: text) == nil)
    }

    @Test("with an offset the text still names the instant")
    func offsets() throws {
        let time = try #require(Timestamp(rfc3339: "2026-03-08T14:00:00.25Z"))
        #expect(time.rfc3339(offsetSeconds: -4 * 3600) == "2026-03-08T10:00:00.250000-04:00")
        #expect(time.rfc3339(offsetSeconds: 20_700) == "2026-03-08T19:45:00.250000+05:45")
        #expect(time.rfc3339(offsetSeconds: 0) == "2026-03-08T14:00:00.250000+00:00")
        for seconds in [-17_762, 17_762, -59, 59] {
            #expect(Timestamp(rfc3339: time.rfc3339(offsetSeconds: seconds)) == time)
        }
    }

    @Test("instants beyond RFC 3339 are printed too, up to the ends of the range")
    func farAway() {
        #expect(Timestamp(microseconds: .max).description == "294247-01-10T04:00:54.775807Z")
        #expect(Timestamp(microseconds: .min).description == "-290308-12-21T19:59:05.224192Z")
        #expect((Timestamp.last + .seconds(1)).description == "010000-01-01T00:00:00.999999Z")
        #expect((Timestamp.first - .seconds(1)).description == "0000-12-31T23:59:59Z")
    }

    @Test("a thousand random instants survive the round trip")
    func roundTrip() {
        var random = SeededRandom(seed: 3339)
        for _ in 0..<1000 {
            let time = Timestamp(
                microseconds: .random(
                    in: Timestamp.first.microseconds...Timestamp.last.microseconds, using: &random))
            #expect(Timestamp(rfc3339: time.rfc3339) == time, "seed \(random.seed)")
        }
    }

    @Test("arithmetic saturates, and seconds round down before 1970 too")
    func arithmetic() {
        #expect(Timestamp(microseconds: -1).seconds == -1)
        #expect(Timestamp(microseconds: -1).milliseconds == -1)
        #expect(Timestamp(microseconds: 1_999_999).seconds == 1)
        #expect(Timestamp.epoch + .milliseconds(1500) == Timestamp(microseconds: 1_500_000))
        #expect(Timestamp.epoch - .seconds(1) == Timestamp(seconds: -1))
        #expect(Timestamp(seconds: 5) - Timestamp(seconds: 3) == .seconds(2))
        #expect(Timestamp(microseconds: .max) + .seconds(1) == Timestamp(microseconds: .max))
        #expect(Timestamp(microseconds: .min) - .seconds(1) == Timestamp(microseconds: .min))
        #expect(
            Timestamp.epoch + .seconds(3650 * 86_400 * 100)
                == Timestamp(seconds: 3650 * 86_400 * 100))
    }
}
