package import HCCore
import HCCrypto
package import HCIO
import HCPostgres
package import HCTenancy

/// Appointments: book, list, move, cancel, and the steps of the day.
///
/// That a slot has one winner is the database's constraint (`booking_slot`), not a check made here.
@LoopActor
package final class AppointmentService {
    private static let route: StaticString = "POST /v1/appointments"
    /// Tries for a lane, where a practitioner has several and others take them at the same time, and for a
    /// zone that was just changed.
    private static let attemptsMax = 10

    private let dependencies: ClinicDependencies
    private let settings: ClinicSettingsService
    private let cursors: CursorCodec

    nonisolated init(_ dependencies: ClinicDependencies, settings: ClinicSettingsService) {
        self.dependencies = dependencies
        self.settings = settings
        cursors = CursorCodec(dependencies.secrets.cursors)
    }

    private func store(in context: TenantContext) throws -> AppointmentStore {
        AppointmentStore(tenant: context.id, keys: try context.keys)
    }

    private func view(_ appointment: Appointment) -> AppointmentView {
        AppointmentView(appointment, zones: dependencies.zones)
    }

    // MARK: Booking

    /// Books, in one round trip.
    ///
    /// - Throws: `slot-taken`, with the day's next free slots in `data.alternatives`; `invalid-input` for a
    ///   patient or practitioner that is not there; `practitioner-inactive`, `idempotency-key-reused`.
    package func create(
        _ draft: AppointmentDraft, _ idempotency: IdempotentRequest?, _ actor: Actor,
        in context: TenantContext, deadline: Deadline
    ) async throws -> CreationReply {
        try await requireBooking(draft, actor, context, deadline)
        try AppointmentTime.check(
            from: draft.startsAt, to: draft.endsAt, now: dependencies.clocks.now())
        let store = try store(in: context)
        let answers = IdempotencyStore(
            context, keys: store.keys, actor: actor, route: AppointmentService.route)
        for _ in 1...AppointmentService.attemptsMax {
            let zone = try await settings.settings(in: context, deadline: deadline).timeZone
            let appointment = makeAppointment(draft, clinicZone: zone, actor)
            let reply = CreationReply(
                location: "/v1/appointments/\(appointment.id)", entityTag: appointment.entityTag,
                body: view(appointment).json())
            let claim = try idempotency.map {
                try answers.claim($0, reply: reply, at: appointment.createdAt)
            }
            do {
                try await context.write(
                    (claim ?? []) + [
                        store.insert(
                            appointment,
                            sealed: try store.seal(appointment.notes, id: appointment.id),
                            clinicZone: zone),
                        store.awaitTurn(at: appointment.practitionerID),
                        BookedTime(tenant: context.id).book(
                            dependencies.makeUUID(), for: appointment,
                            isOverbooked: draft.overbooking != nil),
                    ], audit: [actor.event("create", "appointment", appointment.id.uuid)],
                    outbox: [.appointment("appointment.booked", appointment)],
                    changing: [.slots(appointment.practitionerID)], deadline: deadline)
                return reply
            } catch let error as PostgresError {
                switch (error.sqlstate, error.constraint) {
                case (.uniqueViolation?, IdempotencyStore.constraint?):
                    guard let idempotency else { throw error }
                    return try await context.replay(
                        idempotency, in: answers, actor: actor, entity: "appointment",
                        deadline: deadline)
                case (.exclusionViolation?, "booking_slot"?), (.foreignKeyViolation?, _):
                    try await explain(
                        appointment, clinicZone: zone, draft, store, context, deadline)
                default: throw error
                }
            }
        }
        throw ClinicError(.slotTaken, data: JSONObject(("alternatives", .array([]))))
    }

    private func requireBooking(
        _ draft: AppointmentDraft, _ actor: Actor, _ context: TenantContext, _ deadline: Deadline
    ) async throws {
        let scope = try await context.require(
            .appointmentsWrite, of: actor, on: "appointment", deadline: deadline)
        if scope <= .own, actor.patientID != draft.patientID {
            try await context.recordDenial(
                of: .appointmentsWrite, to: actor, on: "patient", draft.patientID.uuid,
                deadline: deadline)
            throw ClinicError.invalid("patientId", .notFound, "names no patient")
        }
        guard draft.overbooking != nil else { return }
        let overbook = try await context.require(
            .appointmentsOverbook, of: actor, on: "appointment", deadline: deadline)
        if overbook <= .own {
            try await requireOwnPractice(
                draft.practitionerID, .appointmentsOverbook, actor, context, deadline)
        }
    }

    /// What `own` means for a doctor: the practitioner is the actor's.
    private func requireOwnPractice(
        _ practitioner: PractitionerID, _ permission: Permission, _ actor: Actor,
        _ context: TenantContext, _ deadline: Deadline
    ) async throws {
        let rows = try await context.read(
            [PractitionerStore(tenant: context.id).find(practitioner)], deadline: deadline)
        let account = try rows[0].first.flatMap { try PractitionerStore.practitioner($0).accountID }
        if let account, account == actor.accountID { return }
        try await context.recordDenial(
            of: permission, to: actor, on: "practitioner", practitioner.uuid, deadline: deadline)
        throw ClinicError.forbidden
    }

    private func makeAppointment(
        _ draft: AppointmentDraft, clinicZone: String, _ actor: Actor
    ) -> Appointment {
        let now = dependencies.clocks.now()
        return Appointment(
            id: dependencies.makeID(), patientID: draft.patientID,
            practitionerID: draft.practitionerID, startsAt: draft.startsAt, endsAt: draft.endsAt,
            zone: draft.zone ?? clinicZone,
            state: AppointmentState(status: draft.status, isStarted: false), startedAt: nil,
            notes: AppointmentNotes(
                reason: draft.reason, notes: draft.notes,
                overbookReason: draft.overbooking?.reason),
            createdBy: actor.accountID, version: 1, createdAt: now, updatedAt: now)
    }

    /// Why a booking was refused. Returns if another try may do better: a lane is free after all, or the
    /// clinic's zone had changed.
    private func explain(
        _ appointment: Appointment, clinicZone: String, _ draft: AppointmentDraft,
        _ store: AppointmentStore, _ context: TenantContext, _ deadline: Deadline
    ) async throws {
        let search = AlternativeSearch(appointment, zones: dependencies.zones)
        let results = try await context.read(
            [
                store.circumstances(
                    patient: appointment.patientID, practitioner: appointment.practitionerID),
                BookedTime(tenant: context.id).busy(
                    appointment.practitionerID, in: search.span, max: AlternativeSearch.busyMax),
            ], deadline: deadline)
        let now = try BookingCircumstances(try results[0].single())
        var problems: [InvalidField] = []
        if !now.hasPatient {
            problems.append(InvalidField("patientId", .notFound, "names no patient"))
        }
        if !now.hasPractitioner {
            problems.append(InvalidField("practitionerId", .notFound, "names no practitioner"))
        }
        if !problems.isEmpty { throw ClinicError(.invalidInput, fields: problems) }
        if !now.isActive { throw ClinicError(.practitionerInactive) }
        if now.clinicZone != clinicZone {
            settings.forget(context.id)
            return
        }
        let busy = try results[1].rows.map { try SlotFinder.Busy($0) }
        let lanes =
            now.capacity + (draft.overbooking == nil ? 0 : AppointmentStore.overbookedLanesMax)
        let finder = now.finder(for: appointment)
        if lanes > 1, finder.isFree(appointment.startsAt, busy: busy, capacity: lanes) { return }
        throw search.slotTaken(finder, busy: busy, capacity: now.capacity)
    }

    // MARK: Reading

    package func read(
        _ id: AppointmentID, _ actor: Actor, in context: TenantContext, deadline: Deadline
    ) async throws -> AppointmentView {
        let scope = try await context.require(
            .appointmentsRead, of: actor, on: "appointment", id.uuid, deadline: deadline)
        let store = try store(in: context)
        let found = try await context.findAudited(store.find(id), deadline: deadline) {
            actor.event("read", "appointment", id.uuid, outcome: $0.isEmpty ? .failure : .success)
        }
        guard let row = found.first else { throw ClinicError.notFound }
        let appointment = try store.appointment(row)
        if scope <= .own, appointment.patientID != actor.patientID {
            try await context.recordDenial(
                of: .appointmentsRead, to: actor, on: "appointment", id.uuid, deadline: deadline)
            throw ClinicError.notFound
        }
        return view(appointment)
    }

    /// Appointments in order of time. Patients see their own.
    package func list(
        _ filter: AppointmentFilter, _ page: PageRequest, _ actor: Actor,
        in context: TenantContext, deadline: Deadline
    ) async throws -> Page<AppointmentView> {
        let scope = try await context.require(
            .appointmentsRead, of: actor, on: "appointment", deadline: deadline)
        var filter = filter
        if scope <= .own {
            guard let own = actor.patientID, filter.patientID ?? own == own else {
                return Page(items: [], nextCursor: nil)
            }
            filter.patientID = own
        }
        let identity = filter.identity
        let after = try page.cursor.map { cursor in
            let bytes = try cursors.position(in: cursor, tenant: context.id, query: identity)
            let (startsAt, id) = try KeysetPosition.instantAndID(in: bytes)
            return AppointmentStore.Position(startsAt: startsAt, id: id)
        }
        let zone = try await settings.settings(in: context, deadline: deadline).timeZone
        let span = filter.span(dependencies.zones.rules(named: zone) ?? .utc)
        let store = try store(in: context)
        let results = try await context.readAudited(
            [store.list(filter, span: span, after: after, limit: page.limit + 1)],
            from: .replica, deadline: deadline
        ) {
            actor.event(
                "list", "appointment", filter.patientID?.uuid,
                detail: JSONObject(("found", .integer(Int64(min($0[0].count, page.limit))))))
        }
        let found = try results[0].rows.map { view(try store.appointment($0)) }
        return try cursors.page(found, page, in: context.id, identity) {
            KeysetPosition.bytes(of: $0.appointment.startsAt, $0.appointment.id.uuid)
        }
    }

    // MARK: Changing

    /// Moves an appointment to another time, and to another practitioner if asked: all of it or nothing.
    ///
    /// - Throws: `slot-taken` with alternatives, `illegal-transition`, `precondition-required`,
    ///   `precondition-failed`.
    package func reschedule(
        _ id: AppointmentID, _ move: AppointmentMove, _ ifMatch: IfMatch, _ actor: Actor,
        in context: TenantContext, deadline: Deadline
    ) async throws -> AppointmentView {
        let scope = try await context.require(
            .appointmentsWrite, of: actor, on: "appointment", id.uuid, deadline: deadline)
        // Whoever moves an appointment has seen where it is: as with any other change of a document.
        try ifMatch.requirePresent()
        let now = dependencies.clocks.now()
        try AppointmentTime.check(from: move.startsAt, to: move.endsAt, now: now)
        let store = try store(in: context)
        for _ in 1...AppointmentService.attemptsMax {
            var wanted: Appointment?
            let before = try await practitioner(of: id, store, context, deadline)
            let touched = [before, move.practitionerID].compactMap { $0 }
            do {
                let moved = try await context.transaction(
                    .write, changing: touched.map { .slots($0) }, deadline: deadline
                ) { transaction in
                    let appointment = try await self.lock(
                        id, .reschedule, scope, ifMatch, actor, store, transaction)
                    guard appointment.practitionerID == before else { throw Refused.overtaken }
                    var moved = appointment
                    moved.startsAt = move.startsAt
                    moved.endsAt = move.endsAt
                    moved.practitionerID = move.practitionerID ?? appointment.practitionerID
                    moved.version += 1
                    moved.updatedAt = now
                    let practice = try await self.requirePractitioner(moved, store, transaction)
                    // Who may not book beside others does not move there either.
                    if !practice.mayBeOverbooked(by: actor) { moved.notes.overbookReason = nil }
                    wanted = moved
                    _ = try await transaction.execute([
                        store.awaitTurn(at: moved.practitionerID),
                        store.unbook(id),
                        store.update(moved, sealed: try store.seal(moved.notes, id: id)),
                        BookedTime(tenant: context.id).book(
                            self.dependencies.makeUUID(), for: moved,
                            isOverbooked: moved.notes.overbookReason != nil),
                    ])
                    transaction.audit(actor.event("reschedule", "appointment", id.uuid))
                    transaction.publish(
                        .appointment("appointment.rescheduled", moved, before: appointment))
                    return moved
                }
                return view(moved)
            } catch let error as PostgresError
                where error.sqlstate == .exclusionViolation && error.constraint == "booking_slot"
            {
                guard let wanted else { throw error }
                try await explainMove(wanted, store, context, deadline)
            } catch Refused.overtaken {
                continue
            } catch Refused.outOfReach {
                throw try await outOfReach(.appointmentsWrite, id, actor, context, deadline)
            } catch let error as ClinicError where error.code == .illegalTransition {
                try await recordRefusal(.reschedule, id, actor, context, deadline)
                throw error
            }
        }
        throw ClinicError(.slotTaken, data: JSONObject(("alternatives", .array([]))))
    }

    private func requirePractitioner(
        _ appointment: Appointment, _ store: AppointmentStore, _ transaction: TenantTransaction
    ) async throws -> BookingCircumstances {
        let row = try await transaction.execute(
            store.circumstances(
                patient: appointment.patientID, practitioner: appointment.practitionerID)
        ).single()
        let now = try BookingCircumstances(row)
        guard now.hasPractitioner else {
            throw ClinicError.invalid("practitionerId", .notFound, "names no practitioner")
        }
        guard now.isActive else { throw ClinicError(.practitionerInactive) }
        return now
    }

    /// As `explain`, for an appointment that has a time already.
    private func explainMove(
        _ wanted: Appointment, _ store: AppointmentStore, _ context: TenantContext,
        _ deadline: Deadline
    ) async throws {
        let search = AlternativeSearch(wanted, zones: dependencies.zones)
        let results = try await context.read(
            [
                store.circumstances(patient: wanted.patientID, practitioner: wanted.practitionerID),
                BookedTime(tenant: context.id).busy(
                    wanted.practitionerID, in: search.span, except: wanted.id,
                    max: AlternativeSearch.busyMax),
            ], deadline: deadline)
        let now = try BookingCircumstances(try results[0].single())
        let busy = try results[1].rows.map { try SlotFinder.Busy($0) }
        let isOverbooked = wanted.notes.overbookReason != nil
        let lanes = now.capacity + (isOverbooked ? AppointmentStore.overbookedLanesMax : 0)
        let finder = now.finder(for: wanted)
        if lanes > 1, finder.isFree(wanted.startsAt, busy: busy, capacity: lanes) { return }
        throw search.slotTaken(finder, busy: busy, capacity: now.capacity)
    }

    /// Takes an appointment a step further: confirm, cancel, check in, start, complete, mark a no-show.
    ///
    /// - Throws: `illegal-transition` with `data.status` and `data.allowed`; `precondition-failed`.
    package func perform(
        _ action: AppointmentAction, on id: AppointmentID, _ note: AppointmentActionNote,
        _ ifMatch: IfMatch, _ actor: Actor, in context: TenantContext, deadline: Deadline
    ) async throws -> AppointmentView {
        precondition(action != .reschedule, "a new time needs a time")
        if note.reason != nil, action != .cancel {
            throw ClinicError.invalid("reason", .unknown, "is not a field of this request")
        }
        let permission = action.permission
        let scope = try await context.require(
            permission, of: actor, on: "appointment", id.uuid, deadline: deadline)
        // A clinic confirms to its patients, not they to it.
        if scope <= .own, action == .confirm {
            try await context.recordDenial(
                of: permission, to: actor, on: "appointment", id.uuid, deadline: deadline)
            throw ClinicError.forbidden
        }
        let store = try store(in: context)
        for _ in 1...AppointmentService.attemptsMax {
            do {
                return view(
                    try await perform(
                        action, on: id, note, ifMatch, actor, scope, store, context, deadline))
            } catch Refused.overtaken {
                continue
            } catch Refused.outOfReach {
                throw try await outOfReach(permission, id, actor, context, deadline)
            } catch let error as ClinicError where error.code == .illegalTransition {
                try await recordRefusal(action, id, actor, context, deadline)
                throw error
            }
        }
        throw ClinicError(.busy)
    }

    private func perform(
        _ action: AppointmentAction, on id: AppointmentID, _ note: AppointmentActionNote,
        _ ifMatch: IfMatch, _ actor: Actor, _ scope: Scope, _ store: AppointmentStore,
        _ context: TenantContext, _ deadline: Deadline
    ) async throws -> Appointment {
        let now = dependencies.clocks.now()
        // Whose time becomes free or taken must be said before the commit.
        let changing =
            action.mayChangeTime ? try await practitioner(of: id, store, context, deadline) : nil
        return try await context.transaction(
            .write, changing: changing.map { [.slots($0)] } ?? [], deadline: deadline
        ) { transaction in
            let appointment = try await self.lock(
                id, action, scope, ifMatch, actor, store, transaction)
            let changed = try appointment.after(action, note, at: now)
            guard
                changed.state.isBlocking == appointment.state.isBlocking
                    || appointment.practitionerID == changing
            else { throw Refused.overtaken }
            var queries = [
                store.update(changed, sealed: try store.seal(changed.notes, id: id))
            ]
            if changed.state.isBlocking != appointment.state.isBlocking {
                queries.append(store.awaitTurn(at: changed.practitionerID))
                queries.append(store.setBlocking(id, changed.state.isBlocking))
            }
            _ = try await transaction.execute(queries)
            transaction.audit(
                actor.event(
                    action.auditAction, "appointment", id.uuid,
                    detail: JSONObject(
                        ("before", .string(appointment.status.rawValue)),
                        ("after", .string(changed.status.rawValue)))))
            transaction.publish(
                .appointment(
                    action == .cancel ? "appointment.cancelled" : "appointment.changed",
                    changed))
            return changed
        }
    }

    /// Whose time an appointment takes, as far as anybody can say without locking it.
    private func practitioner(
        of id: AppointmentID, _ store: AppointmentStore, _ context: TenantContext,
        _ deadline: Deadline
    ) async throws -> PractitionerID? {
        try await context.read([store.practitioner(of: id)], deadline: deadline)[0].first.map {
            try $0.id(0)
        }
    }

    /// Inside a transaction nothing can be recorded that should stay after a refusal: this carries it out.
    private enum Refused: Error {
        case outOfReach
        /// Between a look and the lock the appointment went to another practitioner.
        case overtaken
    }

    private func outOfReach(
        _ permission: Permission, _ id: AppointmentID, _ actor: Actor, _ context: TenantContext,
        _ deadline: Deadline
    ) async throws -> ClinicError {
        try await context.recordDenial(
            of: permission, to: actor, on: "appointment", id.uuid, deadline: deadline)
        return actor.roles == RoleSet(.patient) ? .notFound : .forbidden
    }

    /// A refusal that says where the appointment stands lets it be seen, and that is recorded.
    private func recordRefusal(
        _ action: AppointmentAction, _ id: AppointmentID, _ actor: Actor, _ context: TenantContext,
        _ deadline: Deadline
    ) async throws {
        try await context.record(
            actor.event(action.auditAction, "appointment", id.uuid, outcome: .failure),
            deadline: deadline)
    }

    /// The appointment, locked, in reach of the actor, as the client has seen it, and ready for the action.
    private func lock(
        _ id: AppointmentID, _ action: AppointmentAction, _ scope: Scope, _ ifMatch: IfMatch,
        _ actor: Actor, _ store: AppointmentStore, _ transaction: TenantTransaction
    ) async throws -> Appointment {
        guard let row = try await transaction.execute(store.findForUpdate(id)).first else {
            throw ClinicError.notFound
        }
        let appointment = try store.appointment(row)
        if scope <= .own {
            let isOwn: Bool
            if actor.patientID != nil {
                isOwn = actor.patientID == appointment.patientID
            } else {
                let account = try await transaction.execute(
                    PractitionerStore(tenant: store.tenant).find(appointment.practitionerID)
                ).first.flatMap { try PractitionerStore.practitioner($0).accountID }
                isOwn = account != nil && account == actor.accountID
            }
            guard isOwn else { throw Refused.outOfReach }
        }
        try ifMatch.requireIfPresent(version: appointment.version)
        guard appointment.state.next(action) != nil else {
            throw appointment.state.illegalTransition
        }
        return appointment
    }
}

extension AppointmentAction {
    /// Whether the practitioner's time may be taken or free after it, and was not before.
    fileprivate var mayChangeTime: Bool {
        switch self {
        case .confirm, .cancel, .noShow, .reschedule: true
        case .checkIn, .start, .complete: false
        }
    }

    package var permission: Permission {
        switch self {
        case .confirm, .reschedule, .cancel: .appointmentsWrite
        case .checkIn, .start, .complete, .noShow: .appointmentsOperate
        }
    }

    fileprivate var auditAction: StaticString {
        switch self {
        case .confirm: "confirm"
        case .reschedule: "reschedule"
        case .cancel: "cancel"
        case .checkIn: "check-in"
        case .start: "start"
        case .complete: "complete"
        case .noShow: "no-show"
        }
    }
}

extension AppointmentState {
    fileprivate var illegalTransition: ClinicError {
        ClinicError(
            .illegalTransition,
            data: JSONObject(
                ("status", .string(status.rawValue)),
                ("allowed", .array(allowedActions.map { .string($0.rawValue) }))))
    }
}

extension Appointment {
    /// - Throws: `illegal-transition`.
    func after(
        _ action: AppointmentAction, _ note: AppointmentActionNote, at now: Timestamp
    ) throws(ClinicError) -> Appointment {
        guard let next = state.next(action) else { throw state.illegalTransition }
        var changed = self
        changed.state = next
        if action == .start { changed.startedAt = now }
        if action == .cancel { changed.notes.cancellationReason = note.reason }
        changed.version += 1
        changed.updatedAt = now
        return changed
    }
}

extension BookingCircumstances {
    func mayBeOverbooked(by actor: Actor) -> Bool {
        switch actor.scope(of: .appointmentsOverbook) {
        case nil: false
        case .all, .exceptOwners: true
        case .own, .ownContact:
            practitionerAccount != nil && practitionerAccount == actor.accountID
        }
    }

    func finder(for appointment: Appointment) -> SlotFinder {
        SlotFinder(
            duration: appointment.endsAt - appointment.startsAt, bufferBefore: bufferBefore,
            bufferAfter: bufferAfter)
    }
}

/// Where alternatives to a taken slot are looked for: the rest of that day on the appointment's wall clock.
struct AlternativeSearch {
    private let appointment: Appointment
    private let rules: TimeZoneRules
    private let endOfDay: Timestamp

    init(_ appointment: Appointment, zones: ZoneCatalog) {
        self.appointment = appointment
        rules = zones.rules(named: appointment.zone) ?? .utc
        let day = rules.local(at: appointment.startsAt).date
        endOfDay = rules.startOfDay(day.adding(days: 1) ?? .last)
    }

    /// Rows that are looked at: many more than a day and its margins hold.
    static let busyMax: Int64 = 2000

    /// What has to be known of the practitioner's time: with room for buffers, at most 4 hours each.
    var span: Range<Timestamp> {
        let margin = Duration.seconds(4 * 3600) + AppointmentTime.durationMax
        return (appointment.startsAt - margin)..<(max(endOfDay, appointment.endsAt) + margin)
    }

    func slotTaken(
        _ finder: SlotFinder, busy: [SlotFinder.Busy], capacity: Int
    ) -> ClinicError {
        let slots = finder.slots(
            after: appointment.startsAt, until: endOfDay, busy: busy, capacity: capacity)
        let alternatives: [JSONValue] = slots.map { slot in
            .object(
                JSONObject(
                    ("startsAt", .string(ZonedTime.text(slot.startsAt, rules))),
                    ("endsAt", .string(ZonedTime.text(slot.endsAt, rules)))))
        }
        return ClinicError(.slotTaken, data: JSONObject(("alternatives", .array(alternatives))))
    }
}
