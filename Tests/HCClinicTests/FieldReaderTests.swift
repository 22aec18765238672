import HCCore
import Testing

@testable import HCClinic

struct FieldReaderTests {
    private let today = CalendarDate(year: 2026, month: 3, day: 8) ?? .first

    private func problems(_ json: JSONValue) -> [String: InvalidField.Code] {
        do {
            _ = try Patient(json: json, today: today)
            return [:]
        } catch {
            return Dictionary(
                error.fields.map { ($0.field, $0.code) }, uniquingKeysWith: { first, _ in first })
        }
    }

    private func patient(_ changes: (String, JSONValue)...) -> JSONValue {
        var object = JSONObject(
            ("givenName", "Testa"), ("familyName", "Demofield"), ("birthDate", "1980-02-29"),
            ("sex", "female"))
        for (name, value) in changes { object.set(value, for: name) }
        return .object(object)
    }

    @Test("a patient with the four required fields is read")
    func smallest() throws {
        let patient = try Patient(json: patient(), today: today)
        #expect(patient.givenName == "Testa")
        #expect(patient.birthDate == CalendarDate(year: 1980, month: 2, day: 29))
        #expect(patient.phone == nil)
    }

    @Test("all problems are told at once, each with its field")
    func gathersAll() {
        let found = problems([
            "givenName": 7, "familyName": "", "birthDate": "1980-02-30", "phone": "call me",
            "nickname": "T", "email": "nobody",
        ])
        #expect(
            found == [
                "givenName": .wrongType, "familyName": .blank, "birthDate": .invalidFormat,
                "sex": .missing, "phone": .invalidFormat, "nickname": .unknown,
                "email": .invalidFormat,
            ])
    }

    @Test(
        "control characters and tricks of direction are refused in names",
        arguments: [
            "a\u{0}b", "a\nb", "a\u{7f}", "a\u{85}", "\u{202E}abc", "a\u{2066}b", "a\u{FFFE}",
        ])
    func controlCharacters(_ name: String) {
        #expect(
            problems(patient(("givenName", .string(name)))) == ["givenName": .invalidCharacters])
    }

    @Test(
        "names of people are taken as they are",
        arguments: [
            "Łukasz", "O’Brien", "Nuñez-García", "李", "د. علي", "'; DROP TABLE patient; --", "%_\\",
            "👩‍⚕️", "Anne Marie",
        ])
    func names(_ name: String) throws {
        let read = try Patient(json: patient(("familyName", .string(name))), today: today)
        #expect(read.familyName == name)
    }

    @Test("white space at the ends is dropped, and nothing but it is blank")
    func trims() throws {
        let read = try Patient(json: patient(("givenName", "  Ada\u{00A0}")), today: today)
        #expect(read.givenName == "Ada")
        #expect(problems(patient(("givenName", " \u{2003} "))) == ["givenName": .blank])
    }

    @Test("lengths count scalars: one below the bound, the bound, one above")
    func lengths() {
        func name(_ count: Int) -> JSONValue { .string(String(repeating: "é", count: count)) }
        #expect(problems(patient(("givenName", name(99)))).isEmpty)
        #expect(problems(patient(("givenName", name(100)))).isEmpty)
        #expect(problems(patient(("givenName", name(101)))) == ["givenName": .tooLong])
        // One character of many scalars is not one character long.
        let stacked = "e" + String(repeating: "\u{0301}", count: 500)
        #expect(problems(patient(("givenName", .string(stacked)))) == ["givenName": .tooLong])
        let huge = String(repeating: "x", count: 1_000_000)
        #expect(problems(patient(("notes", .string(huge)))) == ["notes": .tooLong])
    }

    @Test(
        "birth dates are days that exist, from 1850 to today",
        arguments: [
            ("1850-01-01", nil), ("2026-03-08", nil), ("1849-12-31", .outOfRange),
            ("2026-03-09", .outOfRange), ("1900-02-29", .invalidFormat),
            ("2000-02-29", nil), ("2000-13-01", .invalidFormat), ("2000-1-1", .invalidFormat),
            ("20000101", .invalidFormat), ("2000-01-01T00:00:00Z", .invalidFormat),
            ("", .invalidFormat),
        ] as [(String, InvalidField.Code?)])
    func birthDates(_ text: String, _ code: InvalidField.Code?) {
        #expect(problems(patient(("birthDate", .string(text))))["birthDate"] == code)
    }

    @Test(
        "emails have the shape of one",
        arguments: [
            ("a@b.co", true), ("first.last+tag@sub.example.org", true), ("ünal@example.org", true),
            ("a@b", false), ("@b.co", false), ("a@", false), ("a@@b.co", false),
            ("a b@c.de", false),
            (".a@b.co", false), ("a..b@c.de", false), ("a@-b.co", false), ("a@b..co", false),
            ("\"quoted\"@b.co", false), ("a@[127.0.0.1]", false),
        ])
    func emails(_ text: String, _ isOne: Bool) {
        #expect(TextRules.isEmail(text) == isOne)
    }

    @Test(
        "phones are numbers as people write them",
        arguments: [
            ("+14155550100", true), ("(415) 555-0100", true), ("0044 20 7946 0958", true),
            ("12345", true), ("1234", false), ("+1234567890123456", false), ("555-CALL", false),
            ("", false), ("++14155550100", false),
        ])
    func phones(_ text: String, _ isOne: Bool) {
        #expect(problems(patient(("phone", .string(text)))).isEmpty == isOne)
    }

    @Test("the body must be an object", arguments: [JSONValue.null, 3, "x", [], true])
    func bodies(_ json: JSONValue) {
        #expect(problems(json) == ["": .wrongType])
    }

    @Test("unknown fields are named, a bounded number of them, and never with control characters")
    func unknownFields() throws {
        var object = JSONObject()
        for number in 0..<1000 { object.insert(.null, for: "f\u{1}\(number)") }
        do {
            _ = try Patient(json: .object(object), today: today)
            Issue.record("it was read")
        } catch {
            let unknown = error.fields.filter { $0.code == .unknown }
            #expect(unknown.count == 20)
            #expect(unknown.allSatisfy { !$0.field.unicodeScalars.contains("\u{1}") })
        }
    }

    @Test("addresses are read strictly too")
    func address() throws {
        let good: JSONValue = ["lines": ["1 Test Lane"], "city": "Exampleville", "country": "NZ"]
        let read = try Patient(json: patient(("address", good)), today: today)
        #expect(read.address?.country == "NZ")
        #expect(problems(patient(("address", "1 Test Lane"))) == ["address": .wrongType])
        #expect(problems(patient(("address", ["planet": "Mars"]))) == ["address": .unknown])
        #expect(problems(patient(("address", ["country": "nz"]))) == ["address": .invalidFormat])
        let many: JSONValue = ["lines": ["1", "2", "3", "4", "5", "6"]]
        #expect(problems(patient(("address", many))) == ["address": .tooMany])
    }

    @Test("a merge patch keeps what is missing and clears what is null, but not what must be there")
    func patches() throws {
        let before = Patient(
            givenName: "Testa", familyName: "Demofield", birthDate: .first, sex: .other,
            phone: "+14155550100", email: "testa@example.org")
        let patch = try PatientPatch(
            json: ["phone": nil, "familyName": "Neu", "language": "pt-BR"], today: today)
        let after = patch.applied(to: before)
        #expect(after.phone == nil)
        #expect(after.email == "testa@example.org")
        #expect(after.familyName == "Neu")
        #expect(after.language == "pt-BR")
        #expect(
            PatientPatch.changedFields(from: before, to: after)
                == ["familyName", "phone", "language"])
        #expect(throws: ClinicError.invalid("sex", .notAllowed, "cannot be cleared")) {
            try PatientPatch(json: ["sex": nil], today: today)
        }
        #expect(!patch.isContactOnly)
        #expect(try PatientPatch(json: ["phone": "12345"], today: today).isContactOnly)
    }

    @Test("appointments are read with instants and offsets only")
    func appointments() throws {
        func draft(_ start: JSONValue) throws(ClinicError) -> AppointmentDraft {
            try AppointmentDraft(
                json: [
                    "patientId": "01900000-0000-7000-8000-000000000001",
                    "practitionerId": "01900000-0000-7000-8000-000000000002",
                    "startsAt": start, "endsAt": "2026-03-08T15:00:00+01:00",
                ])
        }
        #expect(
            try draft("2026-03-08T13:30:00Z").startsAt
                == Timestamp(rfc3339: "2026-03-08T14:30:00+01:00"))
        for text in ["2026-03-08T14:00:00", "2026-03-08", "now", "0001-01-01T00:00:00Z"] {
            #expect(throws: ClinicError.self) { try draft(.string(text)) }
        }
        #expect(throws: ClinicError.self) { try draft(1_772_980_200) }
    }

    @Test("to overbook needs a reason, and a reason needs to overbook")
    func overbooking() {
        func fields(_ members: (String, JSONValue)...) -> [String] {
            var object = JSONObject(
                ("patientId", "01900000-0000-7000-8000-000000000001"),
                ("practitionerId", "01900000-0000-7000-8000-000000000002"),
                ("startsAt", "2026-03-08T14:00:00Z"), ("endsAt", "2026-03-08T14:30:00Z"))
            for (name, value) in members { object.insert(value, for: name) }
            do {
                _ = try AppointmentDraft(json: .object(object))
                return []
            } catch {
                return error.fields.map(\.field)
            }
        }
        #expect(fields(("overbook", true), ("overbookReason", "urgent")) == [])
        #expect(fields(("overbook", false)) == [])
        #expect(fields(("overbook", true)) == ["overbookReason"])
        #expect(fields(("overbookReason", "urgent")) == ["overbookReason"])
    }

    @Test("an appointment lasts 5 minutes to 12 hours and does not begin in the past")
    func appointmentTimes() {
        let now = Timestamp(seconds: 1_000_000)
        func fields(_ start: Int64, _ end: Int64) -> [String] {
            do {
                try AppointmentTime.check(
                    from: Timestamp(seconds: 1_000_000 + start),
                    to: Timestamp(seconds: 1_000_000 + end), now: now)
                return []
            } catch {
                return error.fields.map(\.field)
            }
        }
        #expect(fields(0, 300) == [])
        #expect(fields(-120, 300) == [])
        #expect(fields(-121, 300) == ["startsAt"])
        #expect(fields(0, 299) == ["endsAt"])
        #expect(fields(0, 43_200) == [])
        #expect(fields(0, 43_201) == ["endsAt"])
        #expect(fields(600, 600) == ["endsAt"])
        #expect(fields(-1000, -2000) == ["endsAt", "startsAt"])
    }
}
