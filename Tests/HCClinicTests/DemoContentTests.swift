import HCCore
import Testing

@testable import HCClinic

struct DemoContentTests {
    private let content = DemoContent(seed: 2026)

    @Test("the same seed gives the same clinic, another seed another")
    func deterministic() {
        #expect((1...50).allSatisfy { content.patient($0) == DemoContent(seed: 2026).patient($0) })
        #expect(content.patient(1) != DemoContent(seed: 2027).patient(1))
    }

    @Test("every patient passes the checks that clients meet")
    func patientsAreValid() throws {
        let today = try #require(CalendarDate(year: 2026, month: 1, day: 1))
        var numbers = Set<String>()
        for number in 1...content.patientCount {
            let patient = content.patient(number)
            let json = try JSONReader.parse(PatientDocument(patient).bytes)
            #expect(try Patient(json: json, today: today) == patient)
            #expect(patient.email?.hasSuffix("@example.org") == true)
            numbers.insert(patient.mrn ?? "")
        }
        #expect(numbers.count == content.patientCount)
    }

    @Test("visits are on weekdays, about eight a day, and never overlap with a buffer")
    func visits() throws {
        let monday = try #require(CalendarDate(year: 2026, month: 3, day: 2))
        var total = 0
        for practitioner in 1...DemoContent.practitionerCount {
            for day in 0..<5 {
                let date = try #require(monday.adding(days: day))
                let visits = content.visits(practitioner: practitioner, on: date)
                total += visits.count
                for (first, second) in zip(visits, visits.dropFirst()) {
                    #expect(first.minuteOfDay + first.minutes + 5 <= second.minuteOfDay)
                }
            }
            let saturday = try #require(monday.adding(days: 5))
            #expect(content.visits(practitioner: practitioner, on: saturday).isEmpty)
        }
        #expect((6 * 5 * 7...6 * 5 * 9).contains(total))
    }
}
