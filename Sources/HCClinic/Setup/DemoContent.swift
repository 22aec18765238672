import HCCore

/// Who and what is in a demo clinic: the same for the same seed. Plainly invented: the names are words for
/// tests, mail goes to example.org (RFC 2606), numbers are of the range that is kept free for fiction.
struct DemoContent {
    static let practitionerCount = 6

    private let seed: UInt64
    let patientCount: Int
    let dayCount: Int

    init(seed: UInt64, patientCount: Int = 500, dayCount: Int = 60) {
        self.seed = seed
        self.patientCount = patientCount
        self.dayCount = dayCount
    }

    private static let givenNames = [
        "Testa", "Demo", "Sample", "Proba", "Mockley", "Fixture", "Placeholder", "Dummy", "Trial",
        "Specimen", "Exempla", "Figment", "Noname", "Ipsum", "Lorem", "Fauxine", "Stubby",
        "Seedling",
        "Draftina", "Pilot",
    ]

    private static let familyNames = [
        "Testmann", "Demofield", "Samplewood", "Exampleton", "Mockingham", "Fixturesen",
        "Dummyford",
        "Probekowski", "Stubbington", "Trialov", "Specimenez", "Placeholder-Smythe", "Figmentale",
        "Nonamura", "Loremipsum", "Seedsworth", "Fauxbury", "Draftsson", "Pilotini", "Versuch",
        "Échantillon", "Muñestra", "Próbka", "Örneksen", "Ejemplar",
    ]

    private static let streets = ["Example Street", "Sample Avenue", "Test Lane", "Demo Road"]

    private static let reasons = [
        "Demo: check-up", "Demo: follow-up", "Demo: vaccination", "Demo: blood pressure",
        "Demo: test results", "Demo: sore throat", "Demo: back pain", "Demo: prescription",
    ]

    static func mrn(_ number: Int) -> String {
        let digits = String(number)
        return "DEMO-" + String(repeating: "0", count: max(0, 5 - digits.count)) + digits
    }

    /// - Parameter number: from 1.
    func patient(_ number: Int) -> Patient {
        var random = DemoRandom(seed: seed &* 1_000_003 &+ UInt64(number))
        let given = random.pick(DemoContent.givenNames)
        let family = random.pick(DemoContent.familyNames)
        let birthDate =
            CalendarDate(
                year: random.number(1930...2022), month: random.number(1...12),
                day: random.number(1...28)) ?? .first
        let sex = random.pick([Sex.female, .male, .female, .male, .other, .unknown])
        var address: Patient.Address?
        if random.number(1...4) > 1 {
            address = Patient.Address(
                lines: ["\(random.number(1...400)) \(random.pick(DemoContent.streets))"],
                city: "Exampleville", postalCode: "00000", country: "US")
        }
        return Patient(
            givenName: given, familyName: family, birthDate: birthDate, sex: sex,
            phone: "+1555010\(1000 + random.number(0...8999))",
            email: "demo.patient.\(number)@example.org", mrn: DemoContent.mrn(number),
            address: address, language: random.pick(["en", "en", "de", "es", "pl"]))
    }

    /// - Parameter number: from 1.
    func practitioner(_ number: Int) -> PractitionerDraft {
        let specialities = [
            "General practice", "Paediatrics", "Cardiology", "Dermatology", "Orthopaedics",
            "Internal medicine",
        ]
        let names = [
            "Dr. Demo Alder", "Dr. Test Birch", "Dr. Sample Cedar", "Dr. Mock Damson",
            "Dr. Trial Elder", "Dr. Proba Fir",
        ]
        var draft = PractitionerDraft(name: names[(number - 1) % names.count])
        draft.specialities = [specialities[(number - 1) % specialities.count]]
        draft.bufferAfterMinutes = number.isMultiple(of: 2) ? 5 : 0
        return draft
    }

    struct Visit: Equatable {
        /// From 1.
        let patient: Int
        let date: CalendarDate
        let minuteOfDay: Int
        let minutes: Int
        let reason: String
    }

    /// The visits of one practitioner on one day: none on weekends; about eight else, between eight and
    /// seventeen, in slots of an hour that cannot overlap with a buffer.
    func visits(practitioner: Int, on date: CalendarDate) -> [Visit] {
        guard date.isoWeekday <= 5 else { return [] }
        var random = DemoRandom(
            seed: seed &* 7_919 &+ UInt64(practitioner) &* 104_729
                &+ UInt64(bitPattern: Int64(date.daysSinceEpoch)))
        let hours = Array(8...16).filter { $0 != 12 || random.number(1...4) == 1 }
        var visits: [Visit] = []
        for hour in hours where visits.count < 9 && random.number(1...16) > 1 {
            visits.append(
                Visit(
                    patient: random.number(1...patientCount), date: date,
                    minuteOfDay: hour * 60 + random.pick([0, 0, 5, 10]),
                    minutes: random.pick([15, 20, 30, 30, 40]),
                    reason: random.pick(DemoContent.reasons)))
        }
        return visits
    }
}
