import HCCore
import HCCrypto
import HCIO
import HCPostgres
import HCTenancy
import HCTesting
import Testing

@testable import HCClinic

/// Conditions of statements that a service meets only in a race, or that another of its steps guards as well: each
/// holds by itself.
@Suite("Each condition of a statement holds by itself", .onLoop) @LoopActor
struct GuardLiveTests {
    // MARK: Logins

    @Test("of an account that is disabled or gone no session is admitted, whoever has ended it")
    func accountsOfSessions() async throws {
        for change in ["status = 'disabled'", "deleted_at = now()"] {
            let clinic = try await LiveClinic.make()
            let tokens = try await clinic.login()
            _ = try await clinic.admit(tokens.accessToken)
            // Not through the service, which would end the session itself.
            _ = try await clinic.psql(
                "UPDATE account SET \(change) WHERE tenant_id = '\(clinic.context.id)'")
            #expect(
                try await code { try await clinic.admit(tokens.accessToken) } == .unauthenticated,
                "\(change)")
            #expect(
                try await code {
                    try await clinic.services.auth.refresh(
                        tokens.refreshToken, in: clinic.context, requestID: "test",
                        deadline: clinic.deadline)
                } == .invalidRefreshToken, "\(change)")
        }
    }

    @Test("an access token is good for its time, also one that was found right before")
    func knownTokens() async throws {
        let clinic = try await LiveClinic.make()
        let tokens = try await clinic.login()
        for seconds in [0, 899] {
            clinic.clock.advance(by: .seconds(seconds))
            _ = try await clinic.admit(tokens.accessToken)
        }
        // Clocks of two machines may differ by as much; a token ends at a whole second.
        clinic.clock.advance(by: .seconds(2) + TokenKeyRing.clockSkewMax)
        #expect(throws: ClinicError(.unauthenticated)) {
            try clinic.services.auth.verify(tokens.accessToken, in: clinic.context)
        }
        // Its session is not over.
        _ = try await clinic.services.auth.refresh(
            tokens.refreshToken, in: clinic.context, requestID: "test", deadline: clinic.deadline)
    }

    @Test("a token is not known by its end alone, and a forgery with the end of another harms none")
    func tokensOfOneEnd() async throws {
        let clinic = try await LiveClinic.make()
        let token = try await clinic.login().accessToken
        _ = try await clinic.admit(token)
        let parts = token.split(separator: ".", omittingEmptySubsequences: false)
        // Other claims, another header, nothing before the end, and less than an end.
        for forged in [
            "\(parts[0]).\(parts[1].dropLast())A.\(parts[2])", "A\(token.dropFirst())",
            String(parts[2]), String(token.suffix(16)), String(token.suffix(15)), "",
        ] where forged != token {
            #expect(
                try await code { try await clinic.admit(forged) } == .unauthenticated, "\(forged)")
        }
        _ = try await clinic.admit(token)
    }

    @Test("a session that is over admits nobody, though it is said to be active")
    func sessionsThatAreOver() async throws {
        let clinic = try await LiveClinic.make()
        let claims = try clinic.services.auth.verify(
            try await clinic.login().accessToken, in: clinic.context)
        func admit(_ account: UUID, endsIn time: Duration) async throws -> Actor {
            try await clinic.services.auth.admit(
                claims,
                .active(
                    SessionEntry(
                        accountID: account, roles: ["owner"], expiresAt: clinic.clock.now + time)),
                in: clinic.context, requestID: "test", deadline: clinic.deadline)
        }
        _ = try await admit(claims.account.uuid, endsIn: .seconds(1))
        #expect(
            try await code { try await admit(claims.account.uuid, endsIn: .zero) }
                == .unauthenticated)
        #expect(
            try await code { try await admit(.zero, endsIn: .seconds(1)) } == .unauthenticated)
    }

    @Test("an account that changes while its password is looked at gets no session, no password")
    func overtakenPasswords() async throws {
        for column in ["last_login_at", "password_hash"] {
            let clinic = try await LiveClinic.make()
            let owner = try await clinic.admit(try await clinic.login().accessToken)
            // The statement does not find a row that was changed meanwhile. Here it finds none.
            _ = try await clinic.psql(
                """
                CREATE FUNCTION test_overtaken() RETURNS trigger LANGUAGE plpgsql
                    AS 'BEGIN RETURN NULL; END';
                CREATE TRIGGER test_overtaken BEFORE UPDATE ON account FOR EACH ROW
                    WHEN (NEW.tenant_id = '\(clinic.context.id)'
                        AND NEW.\(column) IS DISTINCT FROM OLD.\(column))
                    EXECUTE FUNCTION test_overtaken();
                """)
            clinic.clock.advance(by: .seconds(1))
            let answer = try await code {
                if column == "last_login_at" {
                    _ = try await clinic.login()
                } else {
                    try await clinic.services.auth.changePassword(
                        PasswordChange(
                            current: LiveClinic.password, new: Sensitive("a new long password")),
                        owner, in: clinic.context, deadline: clinic.deadline)
                }
            }
            _ = try await clinic.psql("DROP FUNCTION test_overtaken() CASCADE")
            #expect(answer == .invalidCredentials, "\(column)")
            let sessions = try await clinic.psql(
                "SELECT count(*) FROM session WHERE tenant_id = '\(clinic.context.id)'")
            #expect(sessions == "1", "\(column)")
        }
    }

    @Test("the cache hears of every session that ends: by a stolen token, by a new password")
    func cachedSessions() async throws {
        let clinic = try await LiveClinic.make()
        let (stolen, other, kept) = (
            try await clinic.login(), try await clinic.login(), try await clinic.login()
        )
        for tokens in [stolen, other, kept] { _ = try await clinic.admitCached(tokens.accessToken) }
        for expected in [nil, ClinicError.Code.refreshTokenReused] {
            let answer = try await code {
                try await clinic.services.auth.refresh(
                    stolen.refreshToken, in: clinic.context, requestID: "test",
                    deadline: clinic.deadline)
            }
            #expect(answer == expected)
        }
        #expect(try await clinic.lookup(stolen.accessToken) == .revoked)
        try await clinic.services.auth.changePassword(
            PasswordChange(current: LiveClinic.password, new: Sensitive("a new long password")),
            try await clinic.admitCached(kept.accessToken), in: clinic.context,
            deadline: clinic.deadline)
        #expect(try await clinic.lookup(other.accessToken) == .revoked)
        _ = try await clinic.admitCached(kept.accessToken)
    }

    @Test("one sees one's own sessions only")
    func ownSessions() async throws {
        let clinic = try await LiveClinic.make()
        for _ in 0..<3 { _ = try await clinic.login() }
        let nurse = try await clinic.staff(.nurse, email: "nurse@clinic.example")
        let page = try await clinic.services.auth.sessions(
            nurse, in: clinic.context, deadline: clinic.deadline)
        #expect(page.items.map(\.id) == [try #require(nurse.sessionID)])
    }

    @Test("a login or a new password for a password that was changed meanwhile changes nothing")
    func changedPasswords() async throws {
        let clinic = try await LiveClinic.make()
        let store = AccountStore(tenant: clinic.context.id, keys: try clinic.context.keys)
        func affected(_ query: Query) async throws -> Int {
            try await clinic.context.write([query], audit: [], deadline: clinic.deadline)[0]
                .affectedRows
        }
        func hash() async throws -> String {
            try await clinic.psql(
                "SELECT password_hash FROM account WHERE tenant_id = '\(clinic.context.id)'")
        }
        let (id, present, now) = (clinic.owner, try await hash(), clinic.clock.now)
        #expect(try await affected(store.recordLogin(id, passwordHash: "old", at: now)) == 0)
        #expect(try await affected(store.changePassword(id, from: "old", to: "x", at: now)) == 0)
        #expect(try await affected(store.rehash(id, from: "old", to: "x")) == 0)
        #expect(try await hash() == present)
        #expect(try await affected(store.recordLogin(id, passwordHash: present, at: now)) == 1)
        _ = try await clinic.psql(
            "UPDATE account SET status = 'disabled' WHERE tenant_id = '\(clinic.context.id)'")
        #expect(try await affected(store.recordLogin(id, passwordHash: present, at: now)) == 0)
    }

    @Test("a patient who is gone gets no account")
    func accountOfDeletedPatient() async throws {
        let clinic = try await LiveClinic.make()
        let id = try await clinic.register()
        try await clinic.services.patients.delete(
            id, .any, clinic.system, in: clinic.context, deadline: clinic.deadline)
        await #expect(throws: (any Error).self) {
            try await clinic.patientActor(id, email: "gone@clinic.example")
        }
        let accounts = try await clinic.psql(
            """
            SELECT count(*) FROM account
            WHERE tenant_id = '\(clinic.context.id)' AND patient_id IS NOT NULL
            """)
        #expect(accounts == "0")
    }

    // MARK: Patients

    @Test("who is taken out leaves no search terms, nor does what was changed")
    func searchTerms() async throws {
        let clinic = try await LiveClinic.make()
        let id = try await clinic.register("Testa", "Demofield") { $0.phone = "+14155550100" }
        func terms() async throws -> Int {
            let count = try await clinic.psql(
                "SELECT count(*) FROM patient_token WHERE tenant_id = '\(clinic.context.id)'")
            return Int(count) ?? -1
        }
        let before = try await terms()
        _ = try await clinic.services.patients.update(
            id, PatientPatch(json: ["phone": nil], today: clinic.services.patients.today), .any,
            clinic.system, in: clinic.context, deadline: clinic.deadline)
        #expect(try await terms() < before)
        try await clinic.services.patients.delete(
            id, .any, clinic.system, in: clinic.context, deadline: clinic.deadline)
        #expect(try await terms() == 0)
    }

    @Test("who is taken out is on no list")
    func deletedPatients() async throws {
        let clinic = try await LiveClinic.make()
        let (kept, gone) = (try await clinic.register(), try await clinic.register())
        try await clinic.services.patients.delete(
            gone, .any, clinic.system, in: clinic.context, deadline: clinic.deadline)
        #expect(try await clinic.search { _ in } == [kept])
    }

    @Test("two who change one patient at once do so one after the other")
    func concurrentChanges() async throws {
        let clinic = try await LiveClinic.make()
        let id = try await clinic.register()
        let results = await concurrently(8) { number in
            try await clinic.services.patients.update(
                id,
                PatientPatch(
                    json: ["givenName": .string("Name \(number)")],
                    today: clinic.services.patients.today), .any, clinic.system,
                in: clinic.context, deadline: clinic.deadline)
        }
        #expect(Set(results.compactMap(\.value?.version)) == Set(2...9))
    }

    @Test("the same key of two people is two keys")
    func keysOfPeople() async throws {
        let clinic = try await LiveClinic.make()
        let people = [
            try await clinic.staff(.receptionist, email: "one@clinic.example"),
            try await clinic.staff(.receptionist, email: "two@clinic.example"),
        ]
        for person in people {
            let reply = try await clinic.services.patients.create(
                Patient(givenName: "Once", familyName: "Only", birthDate: .first, sex: .other),
                IdempotentRequest(key: IdempotencyKey("key-1"), body: [1]), person,
                in: clinic.context, deadline: clinic.deadline)
            #expect(!reply.isReplay)
        }
        for person in people {
            let reply = try await clinic.services.patients.create(
                Patient(givenName: "Once", familyName: "Only", birthDate: .first, sex: .other),
                IdempotentRequest(key: IdempotencyKey("key-1"), body: [1]), person,
                in: clinic.context, deadline: clinic.deadline)
            #expect(reply.isReplay)
        }
        #expect(try await clinic.search { $0.familyName = "only" }.count == 2)
    }

    @Test("the same key at two routes is two keys, and who gets an answer again is recorded")
    func keysOfRoutes() async throws {
        let clinic = try await LiveClinic.make()
        let (patient, practitioner) = (try await clinic.register(), try await clinic.practitioner())
        let request = try IdempotentRequest(key: IdempotencyKey("key-1"), body: [1])
        func replays() async throws -> String {
            try await clinic.psql(
                """
                SELECT count(*) FROM audit_event
                WHERE tenant_id = '\(clinic.context.id)' AND action = 'replay'
                """)
        }
        for isReplay in [false, true] {
            let made = try await clinic.services.patients.create(
                Patient(givenName: "Once", familyName: "Only", birthDate: .first, sex: .other),
                request, clinic.system, in: clinic.context, deadline: clinic.deadline)
            let booked = try await clinic.services.appointments.create(
                clinic.draft(patient, practitioner), request, clinic.system, in: clinic.context,
                deadline: clinic.deadline)
            #expect(made.isReplay == isReplay && booked.isReplay == isReplay)
            #expect(made.location != booked.location)
            #expect(try await replays() == (isReplay ? "2" : "0"))
        }
    }

    @Test("answers that nobody can ask for again go with those that come")
    func oldAnswers() async throws {
        let clinic = try await LiveClinic.make()
        func create(_ key: String) async throws {
            let reply = try await clinic.services.patients.create(
                Patient(givenName: "Once", familyName: "Only", birthDate: .first, sex: .other),
                IdempotentRequest(key: IdempotencyKey(key), body: [1]), clinic.system,
                in: clinic.context, deadline: clinic.deadline)
            #expect(!reply.isReplay)
        }
        for number in 0..<6 {
            clinic.clock.advance(by: .seconds(1))
            try await create("key-\(number)")
        }
        clinic.clock.advance(by: IdempotencyStore.life + .seconds(1))
        // The youngest of them is not among those that go along.
        for number in 5..<7 { try await create("key-\(number)") }
        let left = try await clinic.psql(
            "SELECT count(*) FROM idempotency WHERE tenant_id = '\(clinic.context.id)'")
        #expect(left == "2")
    }

    // MARK: Bookings

    @Test("nobody books for who is gone, at whom is gone, also without the foreign key's help")
    func bookingsOfTheDeleted() async throws {
        for table in ["patient", "practitioner"] {
            let clinic = try await LiveClinic.make()
            let draft = clinic.draft(
                try await clinic.register(), try await clinic.practitioner())
            // The row stays, as after every deletion.
            _ = try await clinic.psql(
                "UPDATE \(table) SET deleted_at = now() WHERE tenant_id = '\(clinic.context.id)'")
            #expect(
                try await code { try await clinic.book(draft) } == .invalidInput, "\(table)")
            let rows = try await clinic.psql(
                "SELECT count(*) FROM appointment WHERE tenant_id = '\(clinic.context.id)'")
            #expect(rows == "0", "\(table)")
        }
    }

    @Test("a lane that was given back is taken again, before one that never was")
    func lanes() async throws {
        let clinic = try await LiveClinic.make()
        let patient = try await clinic.register()
        let practitioner = try await clinic.practitioner { $0.capacity = 2 }
        let draft = clinic.draft(patient, practitioner)
        var booked = [try await clinic.book(draft), try await clinic.book(draft)]
        for place in 0..<2 {
            _ = try await clinic.perform(.cancel, booked[place])
            booked[place] = try await clinic.book(draft)
            let lanes = try await clinic.psql(
                """
                SELECT string_agg(lane::text, ',' ORDER BY lane) FROM booking
                WHERE tenant_id = '\(clinic.context.id)' AND blocking
                """)
            #expect(lanes == "0,1")
        }
        #expect(try await code { try await clinic.book(draft) } == .slotTaken)
    }
}
