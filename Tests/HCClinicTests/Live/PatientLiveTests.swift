import HCCore
import HCIO
import HCTenancy
import HCTesting
import Testing

@testable import HCClinic

@Suite(.onLoop) @LoopActor
struct PatientLiveTests {
    private func read(_ clinic: LiveClinic, _ id: PatientID, as actor: Actor? = nil) async throws
        -> PatientRecord
    {
        try await clinic.services.patients.read(
            id, actor ?? clinic.system, in: clinic.context, deadline: clinic.deadline)
    }

    @Test("a patient is registered, read, changed and taken out")
    func lifecycle() async throws {
        let clinic = try await LiveClinic.make()
        let id = try await clinic.register { $0.phone = "+14155550100" }
        #expect(try await read(clinic, id).patient().phone == "+14155550100")
        func update(_ patch: JSONValue, _ ifMatch: IfMatch) async throws -> PatientRecord {
            try await clinic.services.patients.update(
                id, PatientPatch(json: patch, today: clinic.services.patients.today), ifMatch,
                clinic.system, in: clinic.context, deadline: clinic.deadline)
        }
        #expect(
            try await code { try await update(["phone": nil], .missing) } == .preconditionRequired)
        #expect(
            try await code { try await update(["phone": nil], .versions([2])) }
                == .preconditionFailed)
        let changed = try await update(
            ["phone": nil, "familyName": "Neu", "email": "neu@example.org"], .versions([1]))
        #expect(changed.version == 2)
        let patient = try await read(clinic, id).patient()
        #expect(patient.phone == nil)
        #expect(patient.email == "neu@example.org")
        // What changes nothing makes no version.
        for patch: JSONValue in [[:], ["familyName": "Neu"], ["phone": nil]] {
            let same = try await update(patch, .versions([2]))
            #expect(same.version == 2 && same.updatedAt == changed.updatedAt)
        }
        #expect(try await code { try await update([:], .missing) } == .preconditionRequired)
        #expect(try await clinic.search { $0.familyName = "neu" } == [id])
        #expect(try await clinic.search { $0.familyName = "demo" } == [])
        #expect(try await clinic.search { $0.phone = "+14155550100" } == [])
        try await clinic.services.patients.delete(
            id, .versions([2]), clinic.system, in: clinic.context, deadline: clinic.deadline)
        #expect(try await code { try await read(clinic, id) } == .notFound)
        #expect(try await clinic.search { $0.familyName = "neu" } == [])
        #expect(
            try await code {
                try await clinic.services.patients.delete(
                    id, .any, clinic.system, in: clinic.context, deadline: clinic.deadline)
            } == .notFound)
    }

    @Test("every reading is recorded before it is answered, also of what is not there")
    func readingIsRecorded() async throws {
        let clinic = try await LiveClinic.make()
        let id = try await clinic.register()
        _ = try await read(clinic, id)
        _ = try await read(clinic, id)
        #expect(try await code { try await read(clinic, PatientID(.zero)) } == .notFound)
        let rows = try await clinic.psql(
            """
            SELECT outcome, count(*) FROM audit_event
            WHERE tenant_id = '\(clinic.context.id)' AND action = 'read' AND entity = 'patient'
            GROUP BY outcome ORDER BY outcome
            """)
        #expect(rows == "failure|1\nsuccess|2")
    }

    @Test("names are found by their beginnings, whatever the case and the accents")
    func prefixes() async throws {
        let clinic = try await LiveClinic.make()
        let zoe = try await clinic.register("Zoë", "Müller-Łukasz")
        let zora = try await clinic.register("Zora", "Mulder")
        let long = try await clinic.register("Anna", "Wolfeschlegelsteinhausen")
        #expect(try await clinic.search { $0.familyName = "m" } == [zoe, zora])
        #expect(try await clinic.search { $0.familyName = "MULL" } == [zoe])
        #expect(try await clinic.search { $0.familyName = "müller l" } == [zoe])
        #expect(try await clinic.search { $0.givenName = "zoe" } == [zoe])
        #expect(
            try await clinic.search {
                $0.givenName = "zo"
                $0.familyName = "muld"
            } == [zora])
        // Longer than any token: compared after decryption.
        #expect(try await clinic.search { $0.familyName = "wolfeschlegelstein" } == [long])
        #expect(try await clinic.search { $0.familyName = "wolfeschlegelstern" } == [])
        #expect(try await clinic.search { $0.familyName = "ulder" } == [])
        // A family name is no given name.
        #expect(try await clinic.search { $0.givenName = "muld" } == [])
        #expect(try await clinic.search { $0.familyName = "..." } == [])
    }

    @Test(
        "SQL in a name is a name",
        arguments: ["'; DROP TABLE patient; --", "%", "_%", "a%' OR '1'='1", "\\", "$1", "{x}"])
    func metacharacters(_ name: String) async throws {
        let clinic = try await LiveClinic.shared()
        let id = try await clinic.register("Meta", name)
        #expect(try await read(clinic, id).patient().familyName == name)
        _ = try await clinic.search { $0.familyName = name }
        let other = try await clinic.search { $0.familyName = "zzz" + name }
        #expect(other.isEmpty)
    }

    @Test(
        "phone, email, number and birth date are found exactly, in whatever form they are written")
    func exact() async throws {
        let clinic = try await LiveClinic.make()
        let id = try await clinic.register {
            $0.phone = "+1 (415) 555-0100"
            $0.email = "Testa@Example.org"
            $0.mrn = "AB-12 34"
        }
        _ = try await clinic.register { $0.phone = "+14155550101" }
        #expect(try await clinic.search { $0.phone = "001 415 555 0100" } == [id])
        #expect(try await clinic.search { $0.email = "testa@example.ORG" } == [id])
        #expect(try await clinic.search { $0.mrn = "ab1234" } == [id])
        #expect(try await clinic.search { $0.mrn = "ab123" } == [])
        #expect(
            try await clinic.search { $0.birthDate = CalendarDate(year: 1980, month: 5, day: 17) }
                .count
                == 2)
        #expect(
            try await clinic.search {
                $0.birthDate = CalendarDate(year: 1980, month: 5, day: 17)
                $0.phone = "+14155550100"
                $0.familyName = "D"
                $0.givenName = "T"
                $0.email = "testa@example.org"
                $0.mrn = "AB1234"
            } == [id])
    }

    @Test(
        "a record number has one patient, also when many ask for it at once; a deleted one frees it"
    )
    func recordNumbers() async throws {
        let clinic = try await LiveClinic.make()
        let results = await concurrently(10) { _ in
            try await clinic.register { $0.mrn = "A-1" }
        }
        let winners = results.compactMap(\.value)
        #expect(winners.count == 1)
        #expect(results.compactMap(\.clinicError?.code).count { $0 == .mrnTaken } == 9)
        try await clinic.services.patients.delete(
            try #require(winners.first), .any, clinic.system, in: clinic.context,
            deadline: clinic.deadline)
        _ = try await clinic.register { $0.mrn = "a1" }
    }

    @Test("a patient with appointments to come is not deleted")
    func deletionWaits() async throws {
        let clinic = try await LiveClinic.make()
        let (patient, practitioner) = (try await clinic.register(), try await clinic.practitioner())
        let appointment = try await clinic.book(clinic.draft(patient, practitioner))
        func delete() async throws {
            try await clinic.services.patients.delete(
                patient, .any, clinic.system, in: clinic.context, deadline: clinic.deadline)
        }
        #expect(try await code { try await delete() } == .futureAppointments)
        let refusals = try await clinic.psql(
            """
            SELECT count(*) FROM audit_event WHERE tenant_id = '\(clinic.context.id)'
                AND entity_id = '\(patient)' AND action = 'delete' AND outcome = 'failure'
            """)
        #expect(refusals == "1")
        _ = try await clinic.perform(.cancel, appointment)
        try await delete()
        #expect(
            try await code { try await clinic.book(clinic.draft(patient, practitioner)) }
                == .invalidInput)
    }

    @Test(
        "the same request with the same key gives the same bytes, one patient, however many at once"
    )
    func idempotency() async throws {
        let clinic = try await LiveClinic.make()
        let body = Array(#"{"givenName":"Once"}"#.utf8)
        func create(_ key: String, _ body: [UInt8]) async throws -> CreationReply {
            try await clinic.services.patients.create(
                Patient(givenName: "Once", familyName: "Only", birthDate: .first, sex: .other),
                IdempotentRequest(key: IdempotencyKey(key), body: body), clinic.system,
                in: clinic.context, deadline: clinic.deadline)
        }
        let results = await concurrently(20) { _ in try await create("key-1", body) }
        let replies = results.compactMap(\.value)
        #expect(replies.count == 20)
        #expect(Set(replies.map(\.body)).count == 1)
        #expect(Set(replies.map(\.location)).count == 1)
        #expect(replies.count { !$0.isReplay } == 1)
        #expect(try await clinic.search { $0.familyName = "only" }.count == 1)
        #expect(
            try await code { try await create("key-1", body + [0x20]) } == .idempotencyKeyReused)
        #expect(try await create("key-2", body).isReplay == false)
        clinic.clock.advance(by: .seconds(24 * 3600 + 1))
        #expect(try await create("key-1", body).isReplay == false)
    }

    @Test("a walk by cursor meets everyone once, while others are registered")
    func cursorWalk() async throws {
        let clinic = try await LiveClinic.make()
        var present: [PatientID] = []
        for number in 0..<23 {
            present.append(try await clinic.register("Walk", "Number\(number)"))
        }
        var seen: [PatientID] = []
        var cursor: String?
        var pages = 0
        repeat {
            let page = try await clinic.services.patients.list(
                PatientSearch(), PageRequest(limit: 5, cursor: cursor), clinic.system,
                in: clinic.context, deadline: clinic.deadline)
            seen += page.items.map(\.id)
            cursor = page.nextCursor
            pages += 1
            if pages < 10 { _ = try await clinic.register("Late", "Comer") }
        } while cursor != nil
        #expect(Set(seen).count == seen.count)
        #expect(Set(present).isSubset(of: seen))
        #expect(seen == seen.sorted())
    }

    @Test("a cursor of another clinic, another search or another list is refused")
    func foreignCursors() async throws {
        let (sunrise, lakeside) = (try await LiveClinic.make(), try await LiveClinic.make())
        for clinic in [sunrise, lakeside] {
            for _ in 0..<3 { _ = try await clinic.register() }
        }
        func list(_ clinic: LiveClinic, _ search: PatientSearch, _ cursor: String?) async throws
            -> Page<PatientRecord>
        {
            try await clinic.services.patients.list(
                search, PageRequest(limit: 1, cursor: cursor), clinic.system, in: clinic.context,
                deadline: clinic.deadline)
        }
        let cursor = try #require(try await list(sunrise, PatientSearch(), nil).nextCursor)
        _ = try await list(sunrise, PatientSearch(), cursor)
        #expect(
            try await code { try await list(lakeside, PatientSearch(), cursor) } == .invalidCursor)
        var search = PatientSearch()
        search.familyName = "demo"
        #expect(try await code { try await list(sunrise, search, cursor) } == .invalidCursor)
        #expect(
            try await code {
                try await sunrise.services.staff.list(
                    PageRequest(cursor: cursor), sunrise.system, in: sunrise.context,
                    deadline: sunrise.deadline)
            } == .invalidCursor)
    }

    @Test("a clinic does not see another's patients, by id or by search")
    func isolation() async throws {
        let (sunrise, lakeside) = (try await LiveClinic.make(), try await LiveClinic.make())
        let id = try await sunrise.register("Hidden", "Secretson")
        #expect(try await code { try await read(lakeside, id) } == .notFound)
        #expect(try await lakeside.search { $0.familyName = "secretson" } == [])
        #expect(try await lakeside.search { _ in } == [])
        let practitioner = try await lakeside.practitioner()
        #expect(
            try await code { try await lakeside.book(lakeside.draft(id, practitioner)) }
                == .invalidInput)
    }

    @Test("patients reach their own record and nothing else, and change how to reach them only")
    func ownRecord() async throws {
        let clinic = try await LiveClinic.make()
        let (own, other) = (try await clinic.register(), try await clinic.register())
        let patient = try await clinic.patientActor(own, email: "testa@example.org")
        #expect(try await read(clinic, own, as: patient).id == own)
        #expect(try await code { try await read(clinic, other, as: patient) } == .notFound)
        func update(_ id: PatientID, _ patch: JSONValue) async throws {
            _ = try await clinic.services.patients.update(
                id, PatientPatch(json: patch, today: clinic.services.patients.today), .any, patient,
                in: clinic.context, deadline: clinic.deadline)
        }
        try await update(own, ["phone": "+14155550100"])
        #expect(try await code { try await update(own, ["familyName": "Other"]) } == .forbidden)
        #expect(try await code { try await update(other, ["phone": "12345"]) } == .notFound)
        // Deleting the patient ends the account.
        try await clinic.services.patients.delete(
            own, .any, clinic.system, in: clinic.context, deadline: clinic.deadline)
        #expect(
            try await code { try await clinic.login("testa@example.org") } == .invalidCredentials)
    }

    @Test("nothing that says who a patient is stands in clear in any row")
    func sealed() async throws {
        let clinic = try await LiveClinic.make()
        let marks = [
            "Plantedname", "Plantedfamily", "4155550177", "planted@example.org", "PLANT-77",
            "1977-07-07", "Planted Lane", "plantednotes", "plantedreason", "plantedcancel",
        ]
        let patient = try await clinic.register("Plantedname", "Plantedfamily") {
            $0.phone = "+14155550177"
            $0.email = "planted@example.org"
            $0.mrn = "PLANT-77"
            $0.birthDate = CalendarDate(year: 1977, month: 7, day: 7) ?? .first
            $0.address = Patient.Address(lines: ["7 Planted Lane"])
            $0.notes = "plantednotes"
        }
        _ = try await clinic.search { $0.familyName = "Plantedf" }
        var draft = clinic.draft(patient, try await clinic.practitioner())
        draft.reason = "plantedreason"
        let reply = try await clinic.services.appointments.create(
            draft, IdempotentRequest(key: IdempotencyKey("k"), body: [1]), clinic.system,
            in: clinic.context, deadline: clinic.deadline)
        let id = try #require(
            reply.location.split(separator: "/").last.flatMap { AppointmentID(String($0)) })
        _ = try await clinic.perform(.cancel, id, reason: "plantedcancel")
        _ = try await clinic.patientActor(patient, email: "planted@example.org")
        for table in [
            "patient", "patient_token", "appointment", "booking", "idempotency", "audit_event",
            "outbox", "account", "session",
        ] {
            // Text and, for bytea, the bytes themselves as Latin-1 text.
            let rows = try await clinic.psql(
                """
                SELECT row_to_json(t)::text || coalesce((
                    SELECT string_agg(regexp_replace(encode(decode(substr(value, 3), 'hex'), 'escape'),
                        '\\s', ' ', 'g'), ' ')
                    FROM json_each_text(row_to_json(t)) WHERE value ~ '^\\\\x([0-9a-f]{2})+$'), '')
                FROM \(table) t WHERE tenant_id = '\(clinic.context.id)'
                """)
            // Outbox rows go when they are published, which may have happened already.
            #expect(!rows.isEmpty || table == "outbox", "\(table)")
            for mark in marks {
                #expect(!rows.lowercased().contains(mark.lowercased()), "\(table) shows \(mark)")
            }
        }
    }

    @Test("a sealed record that was put into another patient's row does not open")
    func swappedRows() async throws {
        let clinic = try await LiveClinic.make()
        let (first, second) = (try await clinic.register(), try await clinic.register())
        _ = try await clinic.psql(
            """
            UPDATE patient SET sealed = (SELECT sealed FROM patient WHERE id = '\(first)')
            WHERE id = '\(second)'
            """)
        await #expect(throws: TenancyError.sealBroken) { try await read(clinic, second) }
    }
}
