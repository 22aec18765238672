import HCCore
import HCIO
import HCTenancy
import HCTesting
import Testing

@testable import HCClinic
@testable import HCPostgres

@Suite(.onLoop) @LoopActor
struct AppointmentLiveTests {
    @Test("of a hundred who book one slot at once exactly one has it")
    func oneWinner() async throws {
        let clinic = try await LiveClinic.make()
        let (patient, practitioner) = (try await clinic.register(), try await clinic.practitioner())
        let draft = clinic.draft(patient, practitioner)
        let results = await concurrently(100) { _ in try await clinic.book(draft) }
        #expect(results.compactMap(\.value).count == 1)
        #expect(results.compactMap(\.clinicError?.code).count { $0 == .slotTaken } == 99)
        #expect(
            try await clinic.psql(
                """
                SELECT (SELECT count(*) FROM appointment WHERE tenant_id = '\(clinic.context.id)'),
                    (SELECT count(*) FROM booking WHERE tenant_id = '\(clinic.context.id)')
                """) == "1|1")
    }

    @Test("what a booking reads does not grow with what its practitioner has had")
    func longHistory() async throws {
        let clinic = try await LiveClinic.make()
        let (patient, practitioner) = (try await clinic.register(), try await clinic.practitioner())
        let tenant = clinic.context.id
        try await clinic.psql(
            """
            SET session_replication_role = replica;
            INSERT INTO appointment (tenant_id, id, patient_id, practitioner_id, starts_at, ends_at,
                zone, status, version, created_at, updated_at)
            SELECT '\(tenant)', gen_random_uuid(), '\(patient)', '\(practitioner)', hour,
                hour + interval '30 minutes', 'UTC', 'fulfilled', 1, now(), now()
            FROM generate_series('2000-01-01Z'::timestamptz, '2002-01-01Z', '1 hour') AS hour;
            INSERT INTO booking (tenant_id, id, appointment_id, resource_id, busy)
            SELECT tenant_id, id, id, practitioner_id, tstzrange(starts_at, ends_at) FROM appointment
            WHERE tenant_id = '\(tenant)';
            ANALYZE appointment, booking;
            """)
        let time = BookedTime(tenant: tenant)
        let start = Timestamp(seconds: 1_000_000_000)
        let appointment = try await clinic.services.appointments.read(
            clinic.book(clinic.draft(patient, practitioner)), clinic.system, in: clinic.context,
            deadline: clinic.deadline
        ).appointment
        for query in [
            time.busy(practitioner, in: start..<start + .seconds(3600)),
            time.book(appointment.id.uuid, for: appointment, isOverbooked: false),
        ] {
            guard case .fixed(let text) = query.text else { throw ClinicError(.invalidInput) }
            let plan = try await clinic.context.read(
                [.unsafeSQL("EXPLAIN \(text)", query.binds)], deadline: clinic.deadline)
            let conditions = try plan[0].rows.map { try $0.text(0) }
                .filter { $0.contains("Index Cond") }
            #expect(conditions.contains { $0.contains("starts_at <") }, "\(conditions)")
            #expect(!conditions.contains { $0.hasSuffix("(resource_id = $2))") }, "\(conditions)")
        }
    }

    @Test("overlaps of any kind have one winner too")
    func overlappingWinners() async throws {
        let clinic = try await LiveClinic.make()
        let (patient, practitioner) = (try await clinic.register(), try await clinic.practitioner())
        // Each of them overlaps with each other one.
        let results = await concurrently(30) { number in
            try await clinic.book(
                clinic.draft(patient, practitioner, minute: number, minutes: 60))
        }
        #expect(results.compactMap(\.value).count == 1)
    }

    @Test("a practitioner with three lanes has three at once, and no fourth")
    func lanes() async throws {
        let clinic = try await LiveClinic.make()
        let patient = try await clinic.register()
        let practitioner = try await clinic.practitioner { $0.capacity = 3 }
        let draft = clinic.draft(patient, practitioner)
        let results = await concurrently(30) { _ in try await clinic.book(draft) }
        #expect(results.compactMap(\.value).count == 3)
        #expect(results.compactMap(\.clinicError?.code).count { $0 == .slotTaken } == 27)
    }

    @Test(
        "a taken slot is answered with the next free ones of the day, and each of them can be had")
    func alternatives() async throws {
        let clinic = try await LiveClinic.make()
        let patient = try await clinic.register()
        let practitioner = try await clinic.practitioner {
            $0.bufferBeforeMinutes = 5
            $0.bufferAfterMinutes = 10
        }
        // Noon, so that there is a rest of the day.
        let hours = 48 + 12 - Int(clinic.clock.now.seconds / 3600 % 24)
        let taken = clinic.draft(patient, practitioner, inHours: hours)
        try await clinic.book(taken)
        do {
            try await clinic.book(taken)
            Issue.record("it was booked twice")
        } catch let error as ClinicError {
            #expect(error.code == .slotTaken)
            let offers = error.data["alternatives"]?.asArray ?? []
            #expect(offers.count == 5)
            // 30 minutes and the buffers of both.
            let first = offers.first?["startsAt"]?.asString.flatMap { Timestamp(rfc3339: $0) }
            #expect(first == taken.startsAt + .seconds(45 * 60))
            var offered = taken
            offered.startsAt = try #require(first)
            offered.endsAt = offered.startsAt + .seconds(1800)
            try await clinic.book(offered)
        }
    }

    @Test("buffers keep neighbours apart: a minute less is taken")
    func buffers() async throws {
        let clinic = try await LiveClinic.make()
        let patient = try await clinic.register()
        let practitioner = try await clinic.practitioner { $0.bufferAfterMinutes = 15 }
        try await clinic.book(clinic.draft(patient, practitioner, minute: 0))
        #expect(
            try await code {
                try await clinic.book(clinic.draft(patient, practitioner, minute: 44))
            } == .slotTaken)
        try await clinic.book(clinic.draft(patient, practitioner, minute: 45, minutes: 10))
        let careful = try await clinic.practitioner { $0.bufferBeforeMinutes = 15 }
        try await clinic.book(clinic.draft(patient, careful, minute: 0))
        #expect(
            try await code {
                try await clinic.book(clinic.draft(patient, careful, minute: 44))
            } == .slotTaken)
        try await clinic.book(clinic.draft(patient, careful, minute: 45, minutes: 10))
    }

    @Test("one takes a slot beside another with a reason, if one may")
    func overbooking() async throws {
        let clinic = try await LiveClinic.make()
        let doctor = try await clinic.staff(.doctor, email: "doctor@clinic.example")
        let receptionist = try await clinic.staff(.receptionist, email: "desk@clinic.example")
        let patient = try await clinic.register()
        let own = try await clinic.practitioner { $0.accountID = doctor.accountID }
        let others = try await clinic.practitioner()
        let colleagues = try await clinic.practitioner { $0.accountID = receptionist.accountID }
        try await clinic.book(clinic.draft(patient, own))
        func overbook(_ practitioner: PractitionerID, _ actor: Actor) async throws {
            var draft = clinic.draft(patient, practitioner)
            draft.overbooking = AppointmentDraft.Overbooking(reason: "urgent")
            try await clinic.book(draft, as: actor)
        }
        #expect(try await code { try await overbook(own, receptionist) } == .forbidden)
        for practitioner in [others, colleagues] {
            #expect(try await code { try await overbook(practitioner, doctor) } == .forbidden)
        }
        try await overbook(own, doctor)
        try await overbook(own, doctor)
        #expect(try await code { try await clinic.book(clinic.draft(patient, own)) } == .slotTaken)
    }

    @Test("what was booked beside others is not moved beside others by who may not do so")
    func overbookedMove() async throws {
        let clinic = try await LiveClinic.make()
        let (patient, practitioner) = (try await clinic.register(), try await clinic.practitioner())
        let receptionist = try await clinic.staff(.receptionist, email: "desk@clinic.example")
        let (taken, other) = (
            clinic.draft(patient, practitioner, inHours: 48),
            clinic.draft(patient, practitioner, inHours: 60)
        )
        try await clinic.book(taken)
        try await clinic.book(other)
        var draft = taken
        draft.overbooking = AppointmentDraft.Overbooking(reason: "urgent")
        let id = try await clinic.book(draft)
        func move(_ draft: AppointmentDraft, _ actor: Actor) async throws -> Appointment {
            try await clinic.services.appointments.reschedule(
                id, AppointmentMove(startsAt: draft.startsAt, endsAt: draft.endsAt), .any,
                actor, in: clinic.context, deadline: clinic.deadline
            ).appointment
        }
        #expect(try await code { try await move(other, receptionist) } == .slotTaken)
        #expect(try await move(other, clinic.system).notes.overbookReason == "urgent")
        let free = clinic.draft(patient, practitioner, inHours: 70)
        #expect(try await move(free, receptionist).notes.overbookReason == nil)
    }

    @Test("the same booking with the same key is one, and every answer is its answer")
    func idempotency() async throws {
        let clinic = try await LiveClinic.make()
        let (patient, practitioner) = (try await clinic.register(), try await clinic.practitioner())
        let draft = clinic.draft(patient, practitioner)
        let results = await concurrently(20) { _ in
            try await clinic.services.appointments.create(
                draft, IdempotentRequest(key: IdempotencyKey("book-1"), body: [1, 2, 3]),
                clinic.system, in: clinic.context, deadline: clinic.deadline)
        }
        let replies = results.compactMap(\.value)
        #expect(replies.count == 20)
        #expect(Set(replies.map(\.body)).count == 1)
        #expect(replies.count { !$0.isReplay } == 1)
    }

    @Test("who or what is not there is named")
    func strangers() async throws {
        let clinic = try await LiveClinic.make()
        let (patient, practitioner) = (try await clinic.register(), try await clinic.practitioner())
        func fields(_ patient: PatientID, _ practitioner: PractitionerID) async throws -> [String] {
            do {
                try await clinic.book(clinic.draft(patient, practitioner))
                return []
            } catch let error as ClinicError {
                return error.fields.map(\.field)
            }
        }
        #expect(try await fields(PatientID(.zero), practitioner) == ["patientId"])
        #expect(try await fields(patient, PractitionerID(.zero)) == ["practitionerId"])
        #expect(
            try await fields(PatientID(.zero), PractitionerID(.zero))
                == ["patientId", "practitionerId"])
        var patch = PractitionerPatch()
        patch.isActive = false
        _ = try await clinic.services.practitioners.update(
            practitioner, patch, .any, clinic.system, in: clinic.context, deadline: clinic.deadline)
        #expect(
            try await code { try await clinic.book(clinic.draft(patient, practitioner)) }
                == .practitionerInactive)
    }

    @Test("a move is whole: the new time is taken and the old one is free, or nothing is changed")
    func reschedule() async throws {
        let clinic = try await LiveClinic.make()
        let (patient, practitioner) = (try await clinic.register(), try await clinic.practitioner())
        let (nine, ten) = (
            clinic.draft(patient, practitioner, inHours: 48),
            clinic.draft(patient, practitioner, inHours: 49)
        )
        let id = try await clinic.book(nine)
        try await clinic.book(ten)
        func move(_ draft: AppointmentDraft, minutes: Int = 0, _ ifMatch: IfMatch = .any)
            async throws -> Appointment
        {
            try await clinic.services.appointments.reschedule(
                id,
                AppointmentMove(
                    startsAt: draft.startsAt + .seconds(minutes * 60),
                    endsAt: draft.endsAt + .seconds(minutes * 60)), ifMatch, clinic.system,
                in: clinic.context, deadline: clinic.deadline
            ).appointment
        }
        #expect(try await code { try await move(ten) } == .slotTaken)
        #expect(try await code { try await clinic.book(nine) } == .slotTaken)
        #expect(try await code { try await move(nine, .missing) } == .preconditionRequired)
        #expect(
            try await code { try await move(nine, minutes: 10, .versions([7])) }
                == .preconditionFailed)
        // Overlapping with itself.
        let moved = try await move(nine, minutes: 10, .versions([1]))
        #expect(moved.version == 2)
        #expect(moved.startsAt == nine.startsAt + .seconds(600))
        _ = try await move(ten, minutes: 30)
        try await clinic.book(nine)
    }

    @Test("of many who move to one slot at once exactly one has it")
    func rescheduleRace() async throws {
        let clinic = try await LiveClinic.make()
        let (patient, practitioner) = (try await clinic.register(), try await clinic.practitioner())
        var ids: [AppointmentID] = []
        for hour in 0..<12 {
            ids.append(
                try await clinic.book(clinic.draft(patient, practitioner, inHours: 50 + hour)))
        }
        let target = clinic.draft(patient, practitioner, inHours: 200)
        let all = ids
        let results = await concurrently(12) { number in
            try await clinic.services.appointments.reschedule(
                all[number], AppointmentMove(startsAt: target.startsAt, endsAt: target.endsAt),
                .any, clinic.system, in: clinic.context, deadline: clinic.deadline)
        }
        #expect(results.compactMap(\.value).count == 1)
        #expect(results.compactMap(\.clinicError?.code).count { $0 == .slotTaken } == 11)
        #expect(
            try await clinic.psql(
                "SELECT count(*) FROM booking WHERE tenant_id = '\(clinic.context.id)'") == "12")
    }

    @Test("the day goes step by step; a step that is not allowed says which are")
    func steps() async throws {
        let clinic = try await LiveClinic.make()
        let (patient, practitioner) = (try await clinic.register(), try await clinic.practitioner())
        let draft = clinic.draft(patient, practitioner)
        let id = try await clinic.book(draft)
        do {
            _ = try await clinic.perform(.complete, id)
            Issue.record("it was completed")
        } catch let error as ClinicError {
            #expect(error.code == .illegalTransition)
            #expect(error.data["status"] == "booked")
            #expect(error.data["allowed"] == ["reschedule", "cancel", "check-in", "no-show"])
        }
        // Who was told where it stands has seen it.
        let seen = """
            SELECT count(*) FROM audit_event WHERE tenant_id = '\(clinic.context.id)'
                AND entity_id = '\(id)' AND outcome = 'failure'
            """
        #expect(try await clinic.psql(seen + " AND action = 'complete'") == "1")
        #expect(try await clinic.perform(.checkIn, id).status == .checkedIn)
        #expect(
            try await code {
                try await clinic.perform(.start, id, ifMatch: .versions([1]))
            } == .preconditionFailed)
        let started = try await clinic.perform(.start, id, ifMatch: .versions([2]))
        #expect(started.startedAt == clinic.clock.now)
        #expect(try await code { try await clinic.perform(.start, id) } == .illegalTransition)
        #expect(
            try await code {
                try await clinic.services.appointments.reschedule(
                    id, AppointmentMove(startsAt: draft.startsAt, endsAt: draft.endsAt), .any,
                    clinic.system, in: clinic.context, deadline: clinic.deadline)
            } == .illegalTransition)
        #expect(try await clinic.psql(seen + " AND action = 'reschedule'") == "1")
        #expect(try await clinic.perform(.complete, id).status == .fulfilled)
        for action in AppointmentAction.allCases where action != .reschedule {
            #expect(try await code { try await clinic.perform(action, id) } == .illegalTransition)
        }
        // What took place keeps its time; what was cancelled gives it back.
        #expect(try await code { try await clinic.book(draft) } == .slotTaken)
        let other = clinic.draft(patient, practitioner, inHours: 60)
        let cancelled = try await clinic.perform(
            .cancel, try await clinic.book(other), reason: "demo")
        #expect(cancelled.notes.cancellationReason == "demo")
        try await clinic.book(other)
    }

    @Test("one appointment is cancelled once, however many try at once")
    func cancelRace() async throws {
        let clinic = try await LiveClinic.make()
        let (patient, practitioner) = (try await clinic.register(), try await clinic.practitioner())
        let id = try await clinic.book(clinic.draft(patient, practitioner))
        let results = await concurrently(10) { _ in try await clinic.perform(.cancel, id) }
        #expect(results.compactMap(\.value).count == 1)
        #expect(results.compactMap(\.clinicError?.code).allSatisfy { $0 == .illegalTransition })
    }

    @Test("appointments are listed by the clinic's day, by practitioner, patient and status")
    func listing() async throws {
        let clinic = try await LiveClinic.make()
        var settings = ClinicSettingsPatch()
        settings.timeZone = "America/New_York"
        _ = try await clinic.services.settings.update(
            settings, .any, clinic.system, in: clinic.context, deadline: clinic.deadline)
        let (testa, demo) = (try await clinic.register(), try await clinic.register())
        let (first, second) = (try await clinic.practitioner(), try await clinic.practitioner())
        // 2 hours before and 2 hours after midnight in New York, ten days from now.
        let rules = try #require(ZoneCatalog.system.rules(named: "America/New_York"))
        let day = try #require(rules.local(at: clinic.clock.now).date.adding(days: 10))
        let midnight = rules.startOfDay(day)
        func draft(_ patient: PatientID, _ practitioner: PractitionerID, _ hours: Int)
            -> AppointmentDraft
        {
            AppointmentDraft(
                patientID: patient, practitionerID: practitioner,
                startsAt: midnight + .seconds(hours * 3600),
                endsAt: midnight + .seconds(hours * 3600 + 900))
        }
        let before = try await clinic.book(draft(testa, first, -2))
        let after = try await clinic.book(draft(testa, first, 2))
        let other = try await clinic.book(draft(demo, second, 3))
        func list(_ query: [String: String]) async throws -> [AppointmentID] {
            try await clinic.services.appointments.list(
                AppointmentFilter(query: { query[$0] }), PageRequest(), clinic.system,
                in: clinic.context, deadline: clinic.deadline
            ).items.map(\.appointment.id)
        }
        #expect(try await list([:]) == [before, after, other])
        #expect(try await list(["from": day.iso8601, "to": day.iso8601]) == [after, other])
        #expect(try await list(["to": midnight.rfc3339]) == [before])
        #expect(try await list(["practitionerId": second.description]) == [other])
        #expect(try await list(["patientId": testa.description, "from": day.iso8601]) == [after])
        _ = try await clinic.perform(.cancel, after)
        #expect(try await list(["status": "cancelled"]) == [after])
        #expect(
            try await list(["patientId": demo.description, "practitionerId": first.description])
                == [])
        let view = try await clinic.services.appointments.read(
            before, clinic.system, in: clinic.context, deadline: clinic.deadline)
        let json = try JSONReader.parse(view.json())
        #expect(json["zone"] == "America/New_York")
        #expect(
            json["startsAt"]?.asString?.hasSuffix("-05:00") == true
                || json["startsAt"]?.asString?.hasSuffix("-04:00") == true)
    }

    @Test("a walk by cursor meets every appointment once, while others are booked")
    func cursorWalk() async throws {
        let clinic = try await LiveClinic.make()
        let patient = try await clinic.register()
        let practitioner = try await clinic.practitioner { $0.capacity = 20 }
        var present: [AppointmentID] = []
        for number in 0..<14 {
            // Several begin at the same instant.
            present.append(
                try await clinic.book(
                    clinic.draft(patient, practitioner, inHours: 48 + number / 4)))
        }
        var seen: [AppointmentID] = []
        var cursor: String?
        repeat {
            let page = try await clinic.services.appointments.list(
                AppointmentFilter(), PageRequest(limit: 3, cursor: cursor), clinic.system,
                in: clinic.context, deadline: clinic.deadline)
            seen += page.items.map(\.appointment.id)
            cursor = page.nextCursor
            if cursor != nil {
                try await clinic.book(clinic.draft(patient, practitioner, inHours: 48))
            }
        } while cursor != nil
        #expect(Set(seen).count == seen.count)
        #expect(Set(present).isSubset(of: seen))
    }

    @Test("a clinic that changed its zone a moment ago books in the new one")
    func zoneChangedElsewhere() async throws {
        let clinic = try await LiveClinic.make()
        let (patient, practitioner) = (try await clinic.register(), try await clinic.practitioner())
        try await clinic.book(clinic.draft(patient, practitioner, inHours: 48))
        // As another worker would, of which this one has not heard.
        _ = try await clinic.psql(
            """
            UPDATE clinic SET time_zone = 'Asia/Kolkata' WHERE tenant_id = '\(clinic.context.id)'
            """)
        let id = try await clinic.book(clinic.draft(patient, practitioner, inHours: 50))
        let appointment = try await clinic.services.appointments.read(
            id, clinic.system, in: clinic.context, deadline: clinic.deadline
        ).appointment
        #expect(appointment.zone == "Asia/Kolkata")
    }

    @Test("patients book, move and cancel for themselves, and see nothing of others")
    func ownAppointments() async throws {
        let clinic = try await LiveClinic.make()
        let (own, other) = (try await clinic.register(), try await clinic.register())
        let practitioner = try await clinic.practitioner()
        let patient = try await clinic.patientActor(own, email: "testa@example.org")
        let foreign = try await clinic.book(clinic.draft(other, practitioner, inHours: 72))
        let id = try await clinic.book(clinic.draft(own, practitioner), as: patient)
        #expect(
            try await code {
                try await clinic.book(clinic.draft(other, practitioner, inHours: 80), as: patient)
            } == .invalidInput)
        let listed = try await clinic.services.appointments.list(
            AppointmentFilter(), PageRequest(), patient, in: clinic.context,
            deadline: clinic.deadline)
        #expect(listed.items.map(\.appointment.id) == [id])
        #expect(
            try await code {
                try await clinic.services.appointments.read(
                    foreign, patient, in: clinic.context, deadline: clinic.deadline)
            } == .notFound)
        #expect(
            try await code { try await clinic.perform(.cancel, foreign, as: patient) } == .notFound)
        #expect(
            try await code { try await clinic.perform(.checkIn, id, as: patient) } == .forbidden)
        #expect(try await clinic.perform(.cancel, id, as: patient).status == .cancelled)
    }
}
