import HCCore
import Testing

@testable import HCClinic

struct DocumentTests {
    private let patient = Patient(
        givenName: "Zoë \"Test\"", familyName: "Demo\\field", birthDate: .first, sex: .unknown,
        phone: "+14155550100", email: "zoe@example.org", mrn: "A-1",
        address: Patient.Address(lines: ["1 Test Lane", "Back"], postalCode: "00000"),
        language: "en", notes: "line\nbreak")

    @Test("a patient is the same after it was sealed as a document")
    func patientRoundTrip() throws {
        #expect(try PatientDocument(patient).patient() == patient)
        let smallest = Patient(
            givenName: "A", familyName: "B", birthDate: .last, sex: .male)
        #expect(try PatientDocument(smallest).patient() == smallest)
    }

    @Test("a record's JSON is the document with id, version and times")
    func recordJSON() throws {
        let record = PatientRecord(
            id: PatientID(UUID(high: 1, low: 2)), document: PatientDocument(patient), version: 7,
            createdAt: .epoch, updatedAt: Timestamp(seconds: 60))
        let json = try JSONReader.parse(record.json())
        #expect(json["id"] == .string(record.id.description))
        #expect(json["givenName"] == .string(patient.givenName))
        #expect(json["notes"] == "line\nbreak")
        #expect(json["version"] == 7)
        #expect(json["createdAt"] == "1970-01-01T00:00:00Z")
        #expect(json["updatedAt"] == "1970-01-01T00:01:00Z")
        let page = Page(items: [record, record], nextCursor: "next")
        let list = try JSONReader.parse(page.json())
        #expect(list["items"]?.asArray == [json, json])
        #expect(list["nextCursor"] == "next")
    }

    @Test("nothing that prints shows a patient")
    func printsNothing() {
        let record = PatientRecord(
            id: PatientID(.zero), document: PatientDocument(patient), version: 1,
            createdAt: .epoch, updatedAt: .epoch)
        let texts = [
            "\(patient)", String(reflecting: patient), "\(record)",
            "\(AccountPerson(email: "zoe@example.org", name: "Zoë"))",
            "\(AppointmentNotes(reason: "Zoë"))",
        ]
        #expect(texts.allSatisfy { !$0.contains("Zo") && !$0.contains("zoe") })
    }

    @Test("an answer is the same after it was stored for its Idempotency-Key")
    func replyRoundTrip() throws {
        let reply = CreationReply(
            location: "/v1/patients/1", entityTag: "\"v1\"", body: Array("{\"a\":\"é\"}".utf8))
        let replay = try #require(CreationReply(stored: reply.stored, status: 201))
        #expect(replay.body == reply.body)
        #expect(replay.location == reply.location)
        #expect(replay.entityTag == reply.entityTag)
        #expect(replay.isReplay)
        for count in 0..<reply.stored.count {
            #expect(CreationReply(stored: Array(reply.stored.prefix(count)), status: 201) == nil)
        }
    }

    @Test(
        "idempotency keys are 1 to 255 visible ASCII characters, quoted or not",
        arguments: [
            ("a", true), ("8e03978e-40d5-43dd-bc93-6894a57f9324", true), ("\"quoted\"", true),
            (String(repeating: "k", count: 255), true), (String(repeating: "k", count: 256), false),
            ("", false), ("\"\"", false), ("two words", false), ("ünï", false), ("a\u{7f}", false),
        ])
    func idempotencyKeys(_ text: String, _ isOne: Bool) {
        do {
            _ = try IdempotencyKey(text)
            #expect(isOne)
        } catch {
            #expect(error == ClinicError(.invalidIdempotencyKey) && !isOne)
        }
    }

    @Test("a merge patch that changes nothing leaves version and time as they are")
    func emptyPatches() throws {
        let (then, now) = (Timestamp.epoch, Timestamp(seconds: 60))
        let settings = ClinicSettings(
            name: "A", timeZone: "UTC", locale: "en", currency: "USD", bufferBeforeMinutes: 0,
            bufferAfterMinutes: 5, version: 3, createdAt: then, updatedAt: then)
        for json: JSONValue in [[:], ["name": "A", "bufferAfterMinutes": 5]] {
            #expect(try ClinicSettingsPatch(json: json).applied(to: settings, at: now) == settings)
        }
        let renamed = try ClinicSettingsPatch(json: ["name": "B"]).applied(to: settings, at: now)
        #expect(renamed.version == 4 && renamed.updatedAt == now && renamed.name == "B")
        let practitioner = Practitioner(
            id: PractitionerID(.zero), name: "A", specialities: ["x"], capacity: 1, isActive: true,
            version: 3, createdAt: then, updatedAt: then)
        for json: JSONValue in [[:], ["name": "A", "active": true, "accountId": nil]] {
            #expect(
                try PractitionerPatch(json: json).applied(to: practitioner, at: now) == practitioner
            )
        }
        #expect(
            try PractitionerPatch(json: ["capacity": 2]).applied(to: practitioner, at: now).version
                == 4)
        let account = Account(
            id: AccountID(.zero), person: AccountPerson(email: "a@example.org", name: "A"),
            roles: RoleSet(.owner), status: .active, version: 3, createdAt: then, updatedAt: then)
        for json: JSONValue in [[:], ["name": "A", "roles": ["owner"], "status": "active"]] {
            #expect(try AccountPatch(json: json).applied(to: account, at: now) == account)
        }
        #expect(
            try AccountPatch(json: ["status": "disabled"]).applied(to: account, at: now).version
                == 4)
    }

    @Test("codes are stable: each has its own name and a sentence")
    func codes() {
        let codes = ClinicError.Code.allCases
        #expect(Set(codes.map(\.rawValue)).count == codes.count)
        for code in codes {
            #expect(!ClinicError(code).summary.description.isEmpty)
            #expect(code.rawValue.utf8.allSatisfy { $0 == 0x2D || (0x61...0x7A).contains($0) })
        }
    }
}
