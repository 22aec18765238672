import Glibc
import HCCore
import Testing

@Suite("Time zones")
struct TimeZoneRulesTests {
    private static func zone(_ name: String) throws -> TimeZoneRules {
        try TimeZoneRules(tzif: ZoneFile.bytes(of: name))
    }

    @Test(
        "the offset on both sides of a change, before the table and long after it",
        arguments: [
            ("America/New_York", "1800-01-01T00:00:00Z", -17_762),
            ("America/New_York", "1883-11-18T17:00:00Z", -18_000),
            ("America/New_York", "2026-03-08T06:59:59.999999Z", -18_000),
            ("America/New_York", "2026-03-08T07:00:00Z", -14_400),
            ("America/New_York", "2026-11-01T05:59:59Z", -14_400),
            ("America/New_York", "2026-11-01T06:00:00Z", -18_000),
            ("America/New_York", "2400-03-12T06:59:59Z", -18_000),
            ("America/New_York", "2400-03-12T07:00:00Z", -14_400),
            ("America/New_York", "2400-07-04T12:00:00Z", -14_400),
            ("Europe/Berlin", "1945-07-01T00:00:00Z", 10_800),
            ("Europe/Berlin", "2026-03-29T00:59:59Z", 3600),
            ("Europe/Berlin", "2026-03-29T01:00:00Z", 7200),
            ("Europe/Berlin", "2026-10-25T00:59:59Z", 7200),
            ("Europe/Berlin", "2026-10-25T01:00:00Z", 3600),
            ("Europe/Berlin", "2500-07-01T00:00:00Z", 7200),
            ("Australia/Lord_Howe", "2026-04-04T14:59:59Z", 39_600),
            ("Australia/Lord_Howe", "2026-04-04T15:00:00Z", 37_800),
            ("Australia/Lord_Howe", "2026-10-03T15:29:59Z", 37_800),
            ("Australia/Lord_Howe", "2026-10-03T15:30:00Z", 39_600),
            ("Australia/Lord_Howe", "2300-01-01T00:00:00Z", 39_600),
            ("Australia/Lord_Howe", "2300-07-01T00:00:00Z", 37_800),
            ("America/Santiago", "2026-04-05T02:59:59Z", -10_800),
            ("America/Santiago", "2026-04-05T03:00:00Z", -14_400),
            ("America/Santiago", "2026-09-06T03:59:59Z", -14_400),
            ("America/Santiago", "2026-09-06T04:00:00Z", -10_800),
            ("America/Santiago", "2200-01-01T00:00:00Z", -10_800),
            ("Pacific/Apia", "2011-12-30T09:59:59Z", -36_000),
            ("Pacific/Apia", "2011-12-30T10:00:00Z", 50_400),
            ("Pacific/Apia", "2400-01-01T00:00:00Z", 46_800),
            ("Asia/Kolkata", "1943-01-01T00:00:00Z", 23_400),
            ("Asia/Kolkata", "2026-01-01T00:00:00Z", 19_800),
            ("Asia/Kolkata", "2999-01-01T00:00:00Z", 19_800),
            ("Europe/Dublin", "2026-01-15T12:00:00Z", 0),
            ("Europe/Dublin", "2400-01-15T12:00:00Z", 0),
            ("Europe/Dublin", "2400-07-15T12:00:00Z", 3600),
        ])
    func offsets(name: String, instant: String, offset: Int) throws {
        let time = try #require(Timestamp(rfc3339: instant))
        #expect(try Self.zone(name).offsetSeconds(at: time) == offset)
    }

    @Test(
        "a local time is one instant, none or two",
        arguments: [
            ("America/New_York", "2026-03-08T01:59:59", "2026-03-08T06:59:59Z", nil),
            ("America/New_York", "2026-03-08T02:00:00", nil, "2026-03-08T07:00:00Z"),
            ("America/New_York", "2026-03-08T02:59:59", nil, "2026-03-08T07:00:00Z"),
            ("America/New_York", "2026-03-08T03:00:00", "2026-03-08T07:00:00Z", nil),
            (
                "America/New_York", "2026-11-01T01:30:00", "2026-11-01T05:30:00Z",
                "2026-11-01T06:30:00Z"
            ),
            ("America/New_York", "2026-11-01T02:00:00", "2026-11-01T07:00:00Z", nil),
            ("America/New_York", "2400-03-12T02:30:00", nil, "2400-03-12T07:00:00Z"),
            ("Europe/Berlin", "2026-03-29T02:30:00", nil, "2026-03-29T01:00:00Z"),
            (
                "Europe/Berlin", "2026-10-25T02:00:00", "2026-10-25T00:00:00Z",
                "2026-10-25T01:00:00Z"
            ),
            ("Australia/Lord_Howe", "2026-10-04T02:15:00", nil, "2026-10-03T15:30:00Z"),
            ("Australia/Lord_Howe", "2026-10-04T02:30:00", "2026-10-03T15:30:00Z", nil),
            (
                "Australia/Lord_Howe", "2026-04-05T01:45:00", "2026-04-04T14:45:00Z",
                "2026-04-04T15:15:00Z"
            ),
            ("Australia/Lord_Howe", "2026-04-05T01:29:59", "2026-04-04T14:29:59Z", nil),
            ("America/Santiago", "2026-09-06T00:30:00", nil, "2026-09-06T04:00:00Z"),
            ("America/Santiago", "2026-09-06T01:00:00", "2026-09-06T04:00:00Z", nil),
            (
                "America/Santiago", "2026-04-04T23:30:00", "2026-04-05T02:30:00Z",
                "2026-04-05T03:30:00Z"
            ),
            ("Pacific/Apia", "2011-12-29T23:59:59", "2011-12-30T09:59:59Z", nil),
            ("Pacific/Apia", "2011-12-30T00:00:00", nil, "2011-12-30T10:00:00Z"),
            ("Pacific/Apia", "2011-12-30T23:59:59", nil, "2011-12-30T10:00:00Z"),
            ("Pacific/Apia", "2011-12-31T00:00:00", "2011-12-30T10:00:00Z", nil),
            ("Asia/Kolkata", "2026-01-01T05:30:00", "2026-01-01T00:00:00Z", nil),
        ] as [(String, String, String?, String?)])
    func meanings(name: String, local: String, first: String?, second: String?) throws {
        let expected: TimeZoneRules.Meaning
        switch (first.flatMap { Timestamp(rfc3339: $0) }, second.flatMap { Timestamp(rfc3339: $0) })
        {
        case (let one?, nil): expected = .one(one)
        case (let earlier?, let later?): expected = .ambiguous(earlier: earlier, later: later)
        case (nil, let jump?): expected = .gap(at: jump)
        case (nil, nil): preconditionFailure("a row says what it expects")
        }
        #expect(try Self.zone(name).instant(of: Self.clock(local)) == expected)
    }

    @Test("an instant's local time leads back to it, around every hour of ten years")
    func roundTrip() throws {
        for name in ["America/New_York", "Australia/Lord_Howe", "America/Santiago"] {
            let zone = try Self.zone(name)
            for year in [2008, 2026, 2036, 2037, 2038, 2399] {
                let start = try #require(CalendarDate(year: year, month: 1, day: 1))
                for hour in 0..<8784 {
                    let time = Timestamp(
                        seconds: Int64(start.daysSinceEpoch) * 86_400 + Int64(hour) * 3600 + 1)
                    let meaning = zone.instant(of: zone.local(at: time))
                    switch meaning {
                    case .one(time), .ambiguous(time, _), .ambiguous(_, time): continue
                    default:
                        Issue.record("\(name) \(time): \(meaning)")
                        return
                    }
                }
            }
        }
    }

    @Test("a day starts at midnight, or where the clocks jumped over it")
    func startOfDay() throws {
        let rows = [
            ("America/New_York", "2026-03-08", "2026-03-08T05:00:00Z"),
            ("America/Santiago", "2026-09-06", "2026-09-06T04:00:00Z"),
            ("Pacific/Apia", "2011-12-30", "2011-12-30T10:00:00Z"),
            ("Pacific/Apia", "2011-12-31", "2011-12-30T10:00:00Z"),
        ]
        for (name, day, instant) in rows {
            let date = try #require(CalendarDate(iso8601: day))
            #expect(try Self.zone(name).startOfDay(date) == Timestamp(rfc3339: instant))
        }
    }

    @Test("a fixed offset has no gaps, and the clock is clamped at the ends of the calendar")
    func fixed() throws {
        let local = try #require(
            LocalDateTime(date: .first, hour: 12, minute: 34, second: 56))
        #expect(TimeZoneRules.utc.local(at: .first) == .midnight(of: .first))
        #expect(TimeZoneRules.utc.instant(of: local) == .one(Timestamp.first + .seconds(45_296)))
        let behind = TimeZoneRules(fixedOffsetSeconds: -3600)
        #expect(behind.local(at: .first) == .midnight(of: .first))
        #expect(local.description == "0001-01-01T12:34:56")
        #expect(LocalDateTime(date: .first, hour: 24, minute: 0) == nil)
        #expect(LocalDateTime(date: .first, hour: 0, minute: 60) == nil)
        #expect(TimeZoneRules.utc.instant(date: .first, hour: 0, minute: 0, second: 60) == nil)
    }

    // MARK: Footers

    @Test(
        "a footer alone is a whole zone",
        arguments: [
            // No transition in the table: the footer holds for all time (RFC 8536 3.3).
            ("UTC0", "2026-07-01T00:00:00Z", 0),
            ("<-04>4", "2026-07-01T00:00:00Z", -14_400),
            ("EST5", "2026-07-01T00:00:00Z", -18_000),
            ("EST5EDT,M3.2.0,M11.1.0", "2026-07-01T00:00:00Z", -14_400),
            ("EST5EDT4,M3.2.0/2,M11.1.0/2", "2026-12-01T00:00:00Z", -18_000),
            // 29 February counted and not counted.
            ("AAA0BBB,J60/0,J300/0", "2024-02-29T23:59:59Z", 0),
            ("AAA0BBB,J60/0,J300/0", "2024-03-01T00:00:00Z", 3600),
            ("AAA0BBB,59/0,300/0", "2024-02-29T00:00:00Z", 3600),
            ("AAA0BBB,59/0,300/0", "2023-03-01T00:00:00Z", 3600),
            // Daylight time all year (RFC 8536 3.3.1).
            ("XXX3EDT4,0/0,J365/23", "2026-01-01T03:00:00Z", -14_400),
            ("XXX3EDT4,0/0,J365/23", "2026-01-01T02:59:59Z", -14_400),
            ("XXX3EDT4,0/0,J365/23", "2026-07-01T00:00:00Z", -14_400),
            // Hours beyond a day (RFC 8536 3.3.1): Godthab's rule.
            ("<-03>3<-02>,M3.5.0/-2,M10.5.0/-1", "2026-03-29T00:59:59Z", -10_800),
            ("<-03>3<-02>,M3.5.0/-2,M10.5.0/-1", "2026-03-29T01:00:00Z", -7200),
            // Offsets with minutes and seconds.
            ("<+0530>-5:30", "2026-01-01T00:00:00Z", 19_800),
            ("LMT+0:00:10", "2026-01-01T00:00:00Z", -10),
        ])
    func footers(footer: String, instant: String, offset: Int) throws {
        let zone = try TimeZoneRules(tzif: ZoneFile.made(footer: footer))
        let time = try #require(Timestamp(rfc3339: instant))
        #expect(zone.offsetSeconds(at: time) == offset)
    }

    @Test(
        "a footer of another form is refused",
        arguments: [
            "EST", "5", "ES5", "EST25", "EST5EDT", "EST5EDT,M3.2.0", "EST5EDT,M3.2.0,M11.1.0,",
            "EST5EDT,M13.2.0,M11.1.0", "EST5EDT,M3.6.0,M11.1.0", "EST5EDT,M3.2.7,M11.1.0",
            "EST5EDT,J0,J300", "EST5EDT,J366,J300", "EST5EDT,366,1", "EST5EDT,M3.2.0/168,M11.1.0",
            "<-04>", "<-04", "<->4", "EST5 ", ":America/New_York", "EST5EDT,M3.2.0/2:60,M11.1.0",
            "EST99999999999999999999",
        ])
    func refusedFooters(footer: String) {
        #expect(throws: TimeZoneRulesError.malformed("a footer of unknown form")) {
            try TimeZoneRules(tzif: ZoneFile.made(footer: footer))
        }
    }

    // MARK: Files

    @Test("transitions rule until the footer takes over")
    func transitions() throws {
        let zone = try TimeZoneRules(
            tzif: ZoneFile.made(
                transitions: [(-100, 1), (100, 2)], offsets: [60, 120, 180], footer: "AAA-1"))
        let rows: [(Int64, Int)] = [(-101, 60), (-100, 120), (99, 120), (100, 3600), (9999, 3600)]
        for (second, offset) in rows {
            #expect(zone.offsetSeconds(at: Timestamp(seconds: second)) == offset)
        }
        let last = try TimeZoneRules(
            tzif: ZoneFile.made(transitions: [(0, 1)], offsets: [60, 120], footer: ""))
        #expect(last.offsetSeconds(at: .last) == 120)
        let none = try TimeZoneRules(tzif: ZoneFile.made(offsets: [60], footer: ""))
        #expect(none.offsetSeconds(at: .epoch) == 60)
    }

    @Test("a broken file is refused with its reason")
    func broken() throws {
        let good = ZoneFile.made(transitions: [(0, 0)], footer: "UTC0")
        func refusal(_ bytes: [UInt8]) -> TimeZoneRulesError? {
            do {
                _ = try TimeZoneRules(tzif: bytes)
                return nil
            } catch {
                return error
            }
        }
        #expect(refusal(good) == nil)
        #expect(refusal([]) == .notTZif)
        #expect(refusal(Array("TZiF".utf8) + good.dropFirst(4)) == .notTZif)
        #expect(refusal([UInt8](repeating: 0, count: 300_000)) == .tooLarge)
        var versionOne = good
        versionOne[4] = 0
        #expect(refusal(versionOne) == .unsupportedVersion)
        for length in 0..<good.count {
            #expect(refusal(Array(good.prefix(length))) != nil, "cut after \(length) bytes")
        }
        let descending = ZoneFile.made(transitions: [(5, 0), (5, 0)], footer: "UTC0")
        #expect(refusal(descending) == .malformed("transition times that do not ascend"))
        let unknownType = ZoneFile.made(transitions: [(5, 1)], footer: "UTC0")
        #expect(refusal(unknownType) == .malformed("an unknown local time type"))
        let farOffset = ZoneFile.made(offsets: [100_000], footer: "UTC0")
        #expect(refusal(farOffset) == .malformed("an offset beyond a day"))
        let leap = ZoneFile.made(leapSeconds: 1, footer: "UTC0")
        #expect(refusal(leap) == .malformed("it counts leap seconds"))
        let typeless = ZoneFile.made(offsets: [], footer: "UTC0")
        #expect(refusal(typeless) == .malformed("no local time type, or too many"))
        var huge = good
        // The counts of the first header are 32 bits wide and must not be trusted.
        for index in 20..<44 { huge[index] = 0xff }
        #expect(refusal(huge) == .truncated)
    }

    private static func clock(_ text: String) throws -> LocalDateTime {
        let time = try #require(Timestamp(rfc3339: text + "Z"))
        return TimeZoneRules.utc.local(at: time)
    }
}

/// Time zone files: the machine's, and small ones made here.
private enum ZoneFile {
    static func bytes(of name: String) throws -> [UInt8] {
        let file = try #require(fopen("/usr/share/zoneinfo/\(name)", "rb"), "tzdata is installed")
        defer { fclose(file) }
        var bytes = [UInt8](repeating: 0, count: 65_536)
        let count = fread(&bytes, 1, bytes.count, file)
        return Array(bytes.prefix(count))
    }

    static func made(
        transitions: [(time: Int64, type: UInt8)] = [], offsets: [Int32] = [0],
        leapSeconds: Int = 0, footer: String
    ) -> [UInt8] {
        func bigEndian(_ value: some FixedWidthInteger) -> [UInt8] {
            withUnsafeBytes(of: value.bigEndian) { Array($0) }
        }
        func header(_ counts: [Int]) -> [UInt8] {
            Array("TZif2".utf8) + [UInt8](repeating: 0, count: 15)
                + counts.flatMap { bigEndian(UInt32($0)) }
        }
        var bytes = header([0, 0, 0, 0, 0, 0])
        bytes += header([0, 0, leapSeconds, transitions.count, offsets.count, 4])
        bytes += transitions.flatMap { bigEndian($0.time) }
        bytes += transitions.map(\.type)
        bytes += offsets.flatMap { bigEndian($0) + [0, 0] }
        bytes += Array("LMT\0".utf8)
        bytes += [UInt8](repeating: 0, count: leapSeconds * 12)
        return bytes + Array("\n\(footer)\n".utf8)
    }
}
