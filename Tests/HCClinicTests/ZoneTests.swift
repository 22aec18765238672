import HCCore
import Testing

@testable import HCClinic

struct ZoneTests {
    @Test(
        "names that are no zones lead nowhere",
        arguments: [
            "", "/etc/passwd", "../../etc/passwd", "Europe/../../../etc/passwd", "Europe/", "/UTC",
            "posixrules", "localtime", "right/UTC", "zone.tab", "Europe", "Europe/Atlantis",
            "Europe//Berlin", "Europe/Berlin\u{0}", "A/B/C/D", String(repeating: "A", count: 65),
        ])
    func strangers(_ name: String) {
        #expect(ZoneCatalog.system.rules(named: name) == nil)
    }

    @Test(
        "appointments are written with the offset that their zone has at that instant",
        arguments: [
            // New York: before and after the jump of 8 March 2026, and the hour that comes twice.
            ("America/New_York", "2026-03-08T06:59:00Z", "2026-03-08T01:59:00-05:00"),
            ("America/New_York", "2026-03-08T07:00:00Z", "2026-03-08T03:00:00-04:00"),
            ("America/New_York", "2026-11-01T05:30:00Z", "2026-11-01T01:30:00-04:00"),
            ("America/New_York", "2026-11-01T06:30:00Z", "2026-11-01T01:30:00-05:00"),
            ("Europe/Berlin", "2026-07-01T12:00:00Z", "2026-07-01T14:00:00+02:00"),
            // Half an hour of summer time, and no summer time at all.
            ("Australia/Lord_Howe", "2026-01-15T00:00:00Z", "2026-01-15T11:00:00+11:00"),
            ("Australia/Lord_Howe", "2026-07-15T00:00:00Z", "2026-07-15T10:30:00+10:30"),
            ("Asia/Kolkata", "2026-07-15T00:00:00Z", "2026-07-15T05:30:00+05:30"),
            ("America/Santiago", "2026-09-06T04:00:00Z", "2026-09-06T01:00:00-03:00"),
        ])
    func offsets(_ zone: String, _ instant: String, _ written: String) throws {
        let rules = try #require(ZoneCatalog.system.rules(named: zone))
        let instant = try #require(Timestamp(rfc3339: instant))
        #expect(ZonedTime.text(instant, rules) == written)
        #expect(Timestamp(rfc3339: written) == instant)
    }

    @Test(
        "a day of a list is the wall clock's, 23, 24 or 25 hours long",
        arguments: [
            ("America/New_York", "2026-03-08", 23), ("America/New_York", "2026-11-01", 25),
            ("Europe/Berlin", "2026-06-01", 24), ("America/Santiago", "2026-09-06", 23),
        ])
    func days(_ zone: String, _ day: String, _ hours: Int64) throws {
        let rules = try #require(ZoneCatalog.system.rules(named: zone))
        let filter = try AppointmentFilter(query: { ["from": day, "to": day][$0] })
        let span = filter.span(rules)
        #expect(span.upperBound - span.lowerBound == .seconds(hours * 3600))
    }

    @Test("filters name what is wrong with them")
    func filters() {
        func fields(_ query: [String: String]) -> [String] {
            do {
                _ = try AppointmentFilter(query: { query[$0] })
                return []
            } catch {
                return error.fields.map(\.field)
            }
        }
        #expect(fields(["from": "2026-03-08T00:00:00Z", "status": "booked"]) == [])
        #expect(
            fields(["from": "yesterday", "status": "lost", "patientId": "1"])
                == ["from", "patientId", "status"])
        #expect(AppointmentFilter().span(.utc).isEmpty == false)
    }
}
