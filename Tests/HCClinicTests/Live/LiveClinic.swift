import HCCore
import HCCrypto
import HCIO
import HCTenancy
import HCTesting
import Testing

@testable import HCClinic

/// A clinic of one test, with its owner, served by the real services on a real PostgreSQL. The wall clock is
/// the test's; it begins now.
@LoopActor
final class LiveClinic {
    nonisolated static let ownerEmail = "owner@clinic.example"
    nonisolated static let password = Sensitive("a long test password")

    let ground: LiveGround
    let context: TenantContext
    let services: ClinicServices
    let clock: ManualClock
    let owner: AccountID

    static func make(sessions: SessionPolicy = SessionPolicy()) async throws -> LiveClinic {
        let ground = try await LiveGround.shared()
        let clock = ManualClock(now: Clocks.system.now())
        let services = try makeServices(clock, sessions)
        let context = try ground.takeTenant()
        let outcome = try await OwnerAccount.create(
            in: context, email: ownerEmail, password: password, services: services,
            requestID: "test", deadline: .after(.seconds(180), from: Loop.now))
        guard case .created(let owner) = outcome else { throw ClinicError(.emailTaken) }
        return LiveClinic(ground, context, services, clock, owner)
    }

    private static func makeServices(
        _ clock: ManualClock, _ sessions: SessionPolicy
    ) throws -> ClinicServices {
        ClinicServices(
            ClinicDependencies(
                clocks: Clocks(now: { clock.now }, monotonic: Clocks.system.monotonic),
                blockingPool: fixtureThreads, secrets: try .forTests(), sessions: sessions,
                passwordHashing: PasswordHash.Parameters(logN: 4, r: 8, p: 1)))
    }

    /// What another process has in memory.
    func anotherWorker() throws -> ClinicServices {
        try LiveClinic.makeServices(clock, SessionPolicy())
    }

    private init(
        _ ground: LiveGround, _ context: TenantContext, _ services: ClinicServices,
        _ clock: ManualClock, _ owner: AccountID
    ) {
        self.ground = ground
        self.context = context
        self.services = services
        self.clock = clock
        self.owner = owner
    }

    /// Generous: a test that needs it has failed.
    var deadline: Deadline { .after(.seconds(180), from: Loop.now) }

    var system: Actor { .system(requestID: "test") }

    // MARK: People

    func login(
        _ email: String = LiveClinic.ownerEmail, password: Sensitive<String> = LiveClinic.password
    ) async throws -> TokenPair {
        try await services.auth.login(
            LoginCredentials(email: email, password: password), in: context, requestID: "test",
            deadline: deadline)
    }

    /// As a request would be admitted whose session the cache does not know.
    func admit(_ accessToken: String) async throws -> Actor {
        let claims = try services.auth.verify(accessToken, in: context)
        return try await services.auth.admit(
            claims, .unknown(nil), in: context, requestID: "test", deadline: deadline)
    }

    /// What the cache says of the session of a token.
    func lookup(_ accessToken: String) async throws -> SessionLookup {
        let claims = try services.auth.verify(accessToken, in: context)
        return await context.gate(session: claims.session, cost: .read, deadline: deadline).session
    }

    /// As a request is admitted: by the cache, or else by the database, after which the cache knows.
    func admitCached(_ accessToken: String) async throws -> Actor {
        let claims = try services.auth.verify(accessToken, in: context)
        return try await services.auth.admit(
            claims, try await lookup(accessToken), in: context, requestID: "test",
            deadline: deadline)
    }

    /// An account of the staff that is logged in.
    func staff(_ roles: Role..., email: String) async throws -> Actor {
        let account = try await services.staff.create(
            AccountDraft(
                person: AccountPerson(email: email, name: "Test Person"), roles: RoleSet(roles),
                password: LiveClinic.password), system, in: context, deadline: deadline)
        let actor = try await admit(try await login(email).accessToken)
        #expect(actor.accountID == account.id)
        return actor
    }

    /// A patient with an account who is logged in.
    func patientActor(_ patient: PatientID, email: String) async throws -> Actor {
        _ = try await services.staff.createForPatient(
            AccountDraft(
                person: AccountPerson(email: email, name: "Test Patient"),
                roles: RoleSet(.patient), password: LiveClinic.password, patientID: patient),
            system, in: context, deadline: deadline)
        return try await admit(try await login(email).accessToken)
    }

    // MARK: Things

    func register(
        _ givenName: String = "Testa", _ familyName: String = "Demofield",
        change: (inout Patient) -> Void = { _ in }
    ) async throws -> PatientID {
        var patient = Patient(
            givenName: givenName, familyName: familyName,
            birthDate: CalendarDate(year: 1980, month: 5, day: 17) ?? .first, sex: .female)
        change(&patient)
        let reply = try await services.patients.create(
            patient, nil, system, in: context, deadline: deadline)
        return try #require(
            reply.location.split(separator: "/").last.flatMap { PatientID(String($0)) })
    }

    func practitioner(
        _ name: String = "Dr. Test", change: (inout PractitionerDraft) -> Void = { _ in }
    ) async throws -> PractitionerID {
        var draft = PractitionerDraft(name: name)
        change(&draft)
        return try await services.practitioners.create(
            draft, system, in: context, deadline: deadline
        ).id
    }

    /// The slot that begins at a whole hour, so many hours from now.
    func draft(
        _ patient: PatientID, _ practitioner: PractitionerID, inHours hours: Int = 48,
        minute: Int = 0, minutes: Int = 30
    ) -> AppointmentDraft {
        let hour = (clock.now.seconds / 3600 + Int64(hours)) * 3600 + Int64(minute) * 60
        let start = Timestamp(seconds: hour)
        return AppointmentDraft(
            patientID: patient, practitionerID: practitioner, startsAt: start,
            endsAt: start + .seconds(minutes * 60), reason: "test reason")
    }

    @discardableResult
    func book(_ draft: AppointmentDraft, as actor: Actor? = nil) async throws -> AppointmentID {
        let reply = try await services.appointments.create(
            draft, nil, actor ?? system, in: context, deadline: deadline)
        return try #require(
            reply.location.split(separator: "/").last.flatMap { AppointmentID(String($0)) })
    }

    /// Those that are found, in no order: the clock of a test stands still, so ids are not in order either.
    func search(_ change: (inout PatientSearch) -> Void) async throws -> Set<PatientID> {
        var search = PatientSearch()
        change(&search)
        let page = try await services.patients.list(
            search, PageRequest(limit: 200), system, in: context, deadline: deadline)
        #expect(Set(page.items.map(\.id)).count == page.items.count)
        return Set(page.items.map(\.id))
    }

    func perform(
        _ action: AppointmentAction, _ id: AppointmentID, as actor: Actor? = nil,
        ifMatch: IfMatch = .missing, reason: String? = nil
    ) async throws -> Appointment {
        try await services.appointments.perform(
            action, on: id, AppointmentActionNote(reason: reason), ifMatch, actor ?? system,
            in: context, deadline: deadline
        ).appointment
    }

    /// Rows that a superuser sees, through no code of ours.
    func psql(_ sql: String) async throws -> String {
        let (services, shard) = (ground.services, ground.shard)
        let rows = try await offLoop { try services.psql(shard.superuser, sql) }
        return TextRules.trim(rows)
    }
}

extension AuthService {
    func verify(
        _ accessToken: String, in context: TenantContext
    ) throws(ClinicError) -> AccessClaims {
        let claims = Array(accessToken.utf8).withUnsafeBytes { token in
            Result { () throws(ClinicError) in try verify(token, in: context) }
        }
        return try claims.get()
    }
}

/// The code of a refusal.
@LoopActor func code(_ body: @LoopActor () async throws -> some Sendable) async throws
    -> ClinicError.Code?
{
    do {
        _ = try await body()
        return nil
    } catch let error as ClinicError {
        return error.code
    }
}

extension Result where Failure == any Error {
    var value: Success? { try? get() }

    var clinicError: ClinicError? {
        if case .failure(let error) = self { error as? ClinicError } else { nil }
    }
}
