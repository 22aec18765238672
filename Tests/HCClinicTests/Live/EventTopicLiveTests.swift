import HCCore
import HCIO
import HCRedis
import HCTenancy
import HCTesting
import Testing

@testable import HCClinic

@Suite("Events: topics, and who may hear what", .onLoop)
@LoopActor
struct EventTopicLiveTests {
    @Test("bookings, moves, cancellations and steps of the day reach calendars and patients")
    func appointments() async throws {
        let clinic = try await LiveClinic.make()
        let patient = try await clinic.register()
        let first = try await clinic.practitioner("Dr. First")
        let second = try await clinic.practitioner("Dr. Second")
        let follower = try await Follower(
            clinic, try await clinic.staff(.receptionist, email: "desk@clinic.example"))
        await follower.follow("calendar:\(first)", "calendar:\(second)", "patient:\(patient)")
        #expect(follower.socket.all("subscribed").count == 1)
        let id = try await clinic.book(clinic.draft(patient, first))
        let draft = clinic.draft(patient, second, inHours: 72)
        _ = try await clinic.services.appointments.reschedule(
            id,
            AppointmentMove(
                startsAt: draft.startsAt, endsAt: draft.endsAt, practitionerID: second), .any,
            clinic.system, in: clinic.context, deadline: clinic.deadline)
        _ = try await clinic.perform(.checkIn, id)
        let other = try await clinic.book(clinic.draft(patient, second, inHours: 96))
        _ = try await clinic.perform(.cancel, other, reason: "test")
        let expected = [
            ("booked", [first], 1), ("rescheduled", [first, second], 2), ("changed", [second], 3),
            ("booked", [second], 1), ("cancelled", [second], 2),
        ].map { name, calendars, version in
            Set(
                (calendars.map { "calendar:\($0)" } + ["patient:\(patient)"]).map {
                    "appointment.\(name) \($0) \(version)"
                })
        }
        try await follower.socket.wait { follower.socket.events.count == 11 }
        let heard = follower.socket.events.map {
            "\($0["event"]?.asString ?? "") \($0["topic"]?.asString ?? "") \($0["version"]?.asInteger ?? 0)"
        }
        #expect(Set(heard) == expected.reduce([]) { $0.union($1) })
        #expect(Set(follower.socket.events.map(\.text)).count == heard.count)
        for event in follower.socket.events {
            #expect([id, other].map(\.description).contains(event["id"]?.asString))
            #expect(
                Set(event.asObject?.names ?? []) == [
                    "type", "topic", "sequence", "event", "id", "version", "at", "eventId",
                ])
        }
        let places = follower.socket.events.compactMap { $0["sequence"]?.asInteger }
        #expect(places == places.sorted())
        await follower.say(["type": "ping", "id": "p"])
        #expect(follower.socket.all("pong").last?["sequence"]?.asInteger == places.last)
    }

    @Test("a patient's record: created by the desk, changed, deleted")
    func patients() async throws {
        let clinic = try await LiveClinic.make()
        let patient = try await clinic.register()
        let follower = try await Follower(clinic, try await clinic.owner())
        await follower.follow("patient:\(patient)")
        _ = try await clinic.services.patients.update(
            patient,
            PatientPatch(json: ["phone": "+15550100123"], today: clinic.services.patients.today),
            try IfMatch(field: "\"v1\""), clinic.system, in: clinic.context,
            deadline: clinic.deadline)
        try await clinic.services.patients.delete(
            patient, try IfMatch(field: "\"v2\""), clinic.system, in: clinic.context,
            deadline: clinic.deadline)
        try await follower.socket.wait { follower.socket.events.count == 2 }
        #expect(
            follower.socket.heard == [
                "patient.updated patient:\(patient)", "patient.deleted patient:\(patient)",
            ])
        // Nothing of a patient is in what was sent, nor in Redis.
        let sent = follower.socket.messages.map(\.text).joined()
        for secret in ["Testa", "Demofield", "15550100123"] { #expect(!sent.contains(secret)) }
        let again = try await Follower(clinic, try await clinic.owner())
        await again.follow("patient:\(patient)")
        #expect(again.socket.errors == ["not-found"])
    }

    @Test("patients follow themselves, nobody else and no calendar; each decision is recorded")
    func ownScope() async throws {
        let clinic = try await LiveClinic.make()
        let (patient, other) = (try await clinic.register(), try await clinic.register())
        let practitioner = try await clinic.practitioner()
        let follower = try await Follower(
            clinic, try await clinic.patientActor(patient, email: "patient@clinic.example"))
        await follower.follow(
            "patient:\(patient)", "patient:\(other)", "calendar:\(practitioner)")
        #expect(follower.socket.errors == ["forbidden", "forbidden"])
        #expect(
            follower.socket.all("subscribed").first?["topics"]
                == .array([.string("patient:\(patient)")]))
        try await clinic.book(clinic.draft(other, practitioner))
        try await clinic.book(clinic.draft(patient, practitioner, inHours: 96))
        try await follower.socket.wait { follower.socket.events.count == 1 }
        #expect(follower.socket.heard == ["appointment.booked patient:\(patient)"])
        let recorded = try await clinic.psql(
            """
            SELECT action || ' ' || entity || ' ' || outcome FROM audit_event
            WHERE tenant_id = '\(clinic.context.id)' AND action IN ('subscribe', 'deny')
            ORDER BY 1
            """)
        #expect(
            recorded.split(separator: "\n") == [
                "deny calendar denied", "deny patient denied", "subscribe patient success",
            ])
    }

    @Test("ids of another clinic and ids of nobody are answered alike, and give nothing")
    func foreignIDs() async throws {
        let (home, away) = (try await LiveClinic.make(), try await LiveClinic.make())
        let patient = try await away.register()
        let practitioner = try await away.practitioner()
        let follower = try await Follower(home, try await home.owner())
        let nobody = home.services.dependencies.makeUUID()
        await follower.follow(
            "patient:\(patient)", "calendar:\(practitioner)", "patient:\(nobody)",
            "calendar:\(nobody)")
        #expect(follower.socket.errors == Array(repeating: "not-found", count: 4))
        #expect(follower.socket.all("subscribed").isEmpty)
        let recorded = try await home.psql(
            """
            SELECT entity || ' ' || outcome FROM audit_event
            WHERE tenant_id = '\(home.context.id)' AND action = 'subscribe' ORDER BY 1
            """)
        #expect(
            recorded.split(separator: "\n") == [
                "calendar failure", "calendar failure", "patient failure", "patient failure",
            ])
        try await away.book(away.draft(patient, practitioner))
        #expect(follower.socket.events.isEmpty)
    }

    @Test("who comes back with the last place hears what was missed, and nothing twice")
    func resume() async throws {
        let clinic = try await LiveClinic.make()
        let patient = try await clinic.register()
        let practitioner = try await clinic.practitioner()
        let actor = try await clinic.owner()
        let before = try await Follower(clinic, actor)
        await before.follow("calendar:\(practitioner)")
        try await clinic.book(clinic.draft(patient, practitioner))
        try await before.socket.wait { before.socket.events.count == 1 }
        before.session.ended()
        try await clinic.book(clinic.draft(patient, practitioner, inHours: 60))
        try await clinic.book(clinic.draft(patient, practitioner, inHours: 61))
        let after = try await Follower(clinic, actor)
        await after.follow(
            "calendar:\(practitioner)", after: before.socket.events[0]["sequence"]?.asInteger)
        try await after.socket.wait { after.socket.events.count == 2 }
        #expect(after.socket.all("resync").isEmpty)
        let lost = try await Follower(clinic, actor)
        await lost.follow("calendar:\(practitioner)", after: 7)
        #expect(lost.socket.all("resync").count == 1)
        #expect(lost.socket.messages.last?["type"]?.asString == "resync")
    }
}
