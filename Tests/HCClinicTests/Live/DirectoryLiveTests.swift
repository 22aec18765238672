import HCCore
import HCIO
import HCTenancy
import HCTesting
import Testing

@testable import HCClinic

@Suite("The directory: practitioners, services and slots", .onLoop)
@LoopActor
struct DirectoryLiveTests {
    private func json(_ value: CachedValue) throws -> JSONValue {
        try JSONReader.parse(value.bytes)
    }

    private func names(_ value: JSONValue?) -> [String] {
        (value?.asArray ?? []).compactMap { $0["name"]?.asString }
    }

    private func query(
        _ practitioner: PractitionerID, _ clinic: LiveClinic,
        _ length: SlotQuery.Length = .minutes(30), hours: Int = 4
    ) -> SlotQuery {
        let hour = Timestamp(seconds: (clinic.clock.now.seconds / 3600 + 48) * 3600)
        return SlotQuery(
            practitionerID: practitioner, length: length, from: hour,
            to: hour + .seconds(hours * 3600))
    }

    private func slots(_ query: SlotQuery, _ clinic: LiveClinic) async throws -> [Timestamp] {
        let value = try await clinic.services.directory.slots(
            query, clinic.system, in: clinic.context, deadline: clinic.deadline)
        return try (json(value)["items"]?.asArray ?? []).compactMap {
            $0["startsAt"]?.asString.flatMap { Timestamp(rfc3339: $0) }
        }
    }

    private func service(
        _ clinic: LiveClinic, _ name: String = "Check-up", minutes: Int = 30,
        by practitioners: [PractitionerID] = []
    ) async throws -> CareService {
        var draft = CareServiceDraft(name: name, durationMinutes: minutes)
        draft.practitionerIDs = practitioners
        draft.priceMinor = 12_000
        return try await clinic.services.catalog.create(
            draft, clinic.system, in: clinic.context, deadline: clinic.deadline)
    }

    @Test("a booking takes its slot out of the list at once, a cancellation brings it back")
    func booking() async throws {
        let clinic = try await LiveClinic.make()
        let (patient, practitioner) = (try await clinic.register(), try await clinic.practitioner())
        let query = query(practitioner, clinic)
        // More than once, so that a copy is there.
        for _ in 0..<3 { #expect(try await slots(query, clinic).count == 16) }
        let id = try await clinic.book(clinic.draft(patient, practitioner))
        // The quarter before would run into it.
        #expect(try await slots(query, clinic).first == query.from + .seconds(30 * 60))
        _ = try await clinic.perform(.cancel, id)
        #expect(try await slots(query, clinic).count == 16)
    }

    @Test("an appointment that moves frees its slot with one and takes one of another")
    func moving() async throws {
        let clinic = try await LiveClinic.make()
        let patient = try await clinic.register()
        let (one, two) = (try await clinic.practitioner(), try await clinic.practitioner("Dr. Two"))
        let draft = clinic.draft(patient, one)
        let id = try await clinic.book(draft)
        let before = (
            try await slots(query(one, clinic), clinic).count,
            try await slots(query(two, clinic), clinic).count
        )
        #expect(before == (14, 16))
        _ = try await clinic.services.appointments.reschedule(
            id,
            AppointmentMove(startsAt: draft.startsAt, endsAt: draft.endsAt, practitionerID: two),
            .any, clinic.system, in: clinic.context, deadline: clinic.deadline)
        #expect(try await slots(query(one, clinic), clinic).count == 16)
        #expect(try await slots(query(two, clinic), clinic).count == 14)
    }

    @Test("buffers, capacity and the clinic's own settings count as soon as they are changed")
    func settings() async throws {
        let clinic = try await LiveClinic.make()
        let (patient, practitioner) = (try await clinic.register(), try await clinic.practitioner())
        try await clinic.book(clinic.draft(patient, practitioner, minute: 60))
        let query = query(practitioner, clinic)
        #expect(try await slots(query, clinic).count == 13)
        var patch = PractitionerPatch()
        patch.capacity = 2
        _ = try await clinic.services.practitioners.update(
            practitioner, patch, .any, clinic.system, in: clinic.context, deadline: clinic.deadline)
        #expect(try await slots(query, clinic).count == 16)
        patch.capacity = 1
        _ = try await clinic.services.practitioners.update(
            practitioner, patch, .any, clinic.system, in: clinic.context, deadline: clinic.deadline)
        var settings = ClinicSettingsPatch()
        settings.bufferAfterMinutes = 15
        _ = try await clinic.services.settings.update(
            settings, .any, clinic.system, in: clinic.context, deadline: clinic.deadline)
        #expect(try await slots(query, clinic).count == 12)
        patch.isActive = false
        _ = try await clinic.services.practitioners.update(
            practitioner, patch, .any, clinic.system, in: clinic.context, deadline: clinic.deadline)
        #expect(try await slots(query, clinic) == [])
    }

    @Test("slots are as long as the service, of those who offer it, and begin in the future")
    func services() async throws {
        let clinic = try await LiveClinic.make()
        let (one, two) = (try await clinic.practitioner(), try await clinic.practitioner("Dr. Two"))
        let service = try await service(clinic, minutes: 60, by: [one])
        let query = query(one, clinic, .service(service.id))
        let value = try await clinic.services.directory.slots(
            query, clinic.system, in: clinic.context, deadline: clinic.deadline)
        let first = try json(value)["items"]?.asArray?.first
        let ends = first?["endsAt"]?.asString.flatMap { Timestamp(rfc3339: $0) }
        #expect(ends == query.from + .seconds(3600))
        for (practitioner, id) in [(two, service.id), (one, clinic.services.dependencies.makeID())]
        {
            #expect(
                try await code {
                    try await slots(self.query(practitioner, clinic, .service(id)), clinic)
                } == .invalidInput)
        }
        // Time changes the list as well: the first slot is gone when it has begun.
        clinic.clock.advance(by: query.from + .seconds(60) - clinic.clock.now)
        var late = query
        late.to = query.from + .seconds(3600)
        #expect(
            try await slots(late, clinic)
                == [query.from + .seconds(15 * 60)].flatMap { first in
                    [first, first + .seconds(900), first + .seconds(1800)]
                })
    }

    @Test("lists and entries show a change at once, to everybody who may see them")
    func lists() async throws {
        let clinic = try await LiveClinic.make()
        let directory = clinic.services.directory
        let (context, deadline) = (clinic.context, clinic.deadline)
        func services() async throws -> CachedValue {
            try await directory.services(
                PageRequest(), isActive: true, clinic.system, in: context, deadline: deadline)
        }
        func practitioners() async throws -> CachedValue {
            try await directory.practitioners(
                PageRequest(), isActive: true, clinic.system, in: context, deadline: deadline)
        }
        func whole() async throws -> JSONValue {
            try json(
                await directory.directory(clinic.system, in: context, deadline: deadline))
        }
        let empty = try await services()
        #expect(names(try json(empty)["items"]) == [])
        #expect(
            try await code {
                try await directory.service(
                    clinic.services.dependencies.makeID(), clinic.system, in: context,
                    deadline: deadline)
            } == .notFound)
        let practitioner = try await clinic.practitioner()
        #expect(names(try json(await practitioners())["items"]) == ["Dr. Test"])
        let made = try await service(clinic, by: [practitioner])
        #expect(names(try json(await services())["items"]) == ["Check-up"])
        #expect(try await services().entityTag != empty.entityTag)
        #expect(names(try await whole()["services"]) == ["Check-up"])
        #expect(names(try await whole()["practitioners"]) == ["Dr. Test"])
        let found = try await directory.service(
            made.id, clinic.system, in: context, deadline: deadline)
        #expect(found.entityTag == made.entityTag && found.bytes == made.json())
        var patch = CareServicePatch()
        patch.isActive = false
        patch.practitionerIDs = []
        let changed = try await clinic.services.catalog.update(
            made.id, patch, .versions([1]), clinic.system, in: context, deadline: deadline)
        #expect(changed.practitionerIDs == [] && changed.version == 2)
        #expect(names(try json(await services())["items"]) == [])
        #expect(names(try await whole()["services"]) == [])
        #expect(
            try await directory.service(made.id, clinic.system, in: context, deadline: deadline)
                .entityTag == changed.entityTag)
        var rename = PractitionerPatch()
        rename.name = "Dr. Renamed"
        _ = try await clinic.services.practitioners.update(
            practitioner, rename, .any, clinic.system, in: context, deadline: deadline)
        #expect(names(try json(await practitioners())["items"]) == ["Dr. Renamed"])
        #expect(names(try await whole()["practitioners"]) == ["Dr. Renamed"])
    }

    @Test("a service names practitioners that are there, and a change the version it is of")
    func refusals() async throws {
        let clinic = try await LiveClinic.make()
        #expect(
            try await code {
                try await service(clinic, by: [clinic.services.dependencies.makeID()])
            } == .invalidInput)
        let made = try await service(clinic)
        func update(_ ifMatch: IfMatch) async throws -> CareService {
            try await clinic.services.catalog.update(
                made.id, CareServicePatch(), ifMatch, clinic.system, in: clinic.context,
                deadline: clinic.deadline)
        }
        #expect(try await code { try await update(.missing) } == .preconditionRequired)
        #expect(try await code { try await update(.versions([2])) } == .preconditionFailed)
        #expect(try await update(.versions([1])).version == 2)
    }

    @Test("questions for slots that make no sense are refused with the fields")
    func badQueries() throws {
        let practitioner = PractitionerID(UUID(high: 1, low: 1)).description
        let day = ["from": "2032-07-01T10:00:00Z", "to": "2032-07-01T12:00:00Z"]
        func fields(_ parameters: [String: String]) -> [String] {
            do {
                _ = try SlotQuery { parameters[$0] }
                return []
            } catch {
                return error.fields.map(\.field).sorted()
            }
        }
        var good = day
        good["practitionerId"] = practitioner
        good["durationMinutes"] = "30"
        #expect(fields(good) == [])
        #expect(fields([:]) == ["from", "practitionerId", "to"])
        for (name, value, wrong) in [
            ("durationMinutes", "0", "durationMinutes"),
            ("durationMinutes", "x", "durationMinutes"),
            ("to", "2032-07-01T10:00:00Z", "to"), ("to", "2033-07-01T10:00:00Z", "to"),
            ("serviceId", practitioner, "serviceId"), ("practitionerId", "x", "practitionerId"),
        ] {
            var bad = good
            bad[name] = value
            #expect(fields(bad) == [wrong], "\(name)=\(value)")
        }
        good["durationMinutes"] = nil
        #expect(fields(good) == ["serviceId"])
    }
}
