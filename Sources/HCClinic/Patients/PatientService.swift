package import HCCore
import HCCrypto
package import HCIO
import HCPostgres
package import HCTenancy

/// Patients: register, read, search, change, take out.
@LoopActor
package final class PatientService {
    private static let route: StaticString = "POST /v1/patients"

    private let dependencies: ClinicDependencies
    private let cursors: CursorCodec

    nonisolated init(_ dependencies: ClinicDependencies) {
        self.dependencies = dependencies
        cursors = CursorCodec(dependencies.secrets.cursors)
    }

    /// The latest birth date that is today somewhere: zones are up to 14 hours ahead of UTC.
    package var today: CalendarDate {
        let seconds = Int(dependencies.clocks.now().seconds) + 14 * 3600
        return CalendarDate(daysSinceEpoch: seconds / 86_400) ?? .last
    }

    // MARK: Registering

    /// Registers a patient, in one round trip.
    ///
    /// - Throws: `mrn-taken`, `idempotency-key-reused`.
    package func create(
        _ patient: Patient, _ idempotency: IdempotentRequest?, _ actor: Actor,
        in context: TenantContext, deadline: Deadline
    ) async throws -> CreationReply {
        _ = try await context.require(
            .patientsCreate, of: actor, on: "patient", deadline: deadline)
        let keys = try context.keys
        let store = PatientStore(tenant: context.id, keys: keys)
        let now = dependencies.clocks.now()
        let record = PatientRecord(
            id: dependencies.makeID(), document: PatientDocument(patient), version: 1,
            createdAt: now, updatedAt: now)
        let reply = CreationReply(
            location: "/v1/patients/\(record.id)", entityTag: record.entityTag,
            body: record.json())
        let answers = IdempotencyStore(
            context, keys: keys, actor: actor, route: PatientService.route)
        var queries = try idempotency.map { try answers.claim($0, reply: reply, at: now) } ?? []
        queries += store.insert(
            record.id, sealed: try store.seal(record.document, id: record.id),
            terms: try PatientTerms(patient, keys: keys), at: now)
        do {
            try await context.write(
                queries, audit: [actor.event("create", "patient", record.id.uuid)],
                outbox: [.patient("patient.created", record.id, version: 1)],
                deadline: deadline)
            return reply
        } catch let error as PostgresError where error.sqlstate == .uniqueViolation {
            if let idempotency, error.constraint == IdempotencyStore.constraint {
                return try await context.replay(
                    idempotency, in: answers, actor: actor, entity: "patient", deadline: deadline)
            }
            throw PatientService.clinicError(error)
        }
    }

    private static func clinicError(_ error: PostgresError) -> any Error {
        guard error.sqlstate == .uniqueViolation, error.constraint == "patient_mrn" else {
            return error
        }
        return ClinicError(
            .mrnTaken,
            fields: [InvalidField("mrn", .notAllowed, "is another patient's")])
    }

    // MARK: Reading

    /// Reads one patient. The access is durably recorded before this returns.
    ///
    /// - Throws: `not-found`, also for a patient who asks for another.
    package func read(
        _ id: PatientID, _ actor: Actor, in context: TenantContext, deadline: Deadline
    ) async throws -> PatientRecord {
        let scope = try await context.require(
            .patientsRead, of: actor, on: "patient", id.uuid, deadline: deadline)
        try await requireReach(scope, .patientsRead, id, actor, context, deadline)
        let store = PatientStore(tenant: context.id, keys: try context.keys)
        let found = try await context.findAudited(store.find(id), deadline: deadline) {
            actor.event("read", "patient", id.uuid, outcome: $0.isEmpty ? .failure : .success)
        }
        guard let row = found.first else { throw ClinicError.notFound }
        return try store.record(row)
    }

    /// Patients in order of registration, those that match.
    ///
    /// A page may have fewer than `limit` items before the last one: what the index found is compared after
    /// decryption.
    package func list(
        _ search: PatientSearch, _ page: PageRequest, _ actor: Actor, in context: TenantContext,
        deadline: Deadline
    ) async throws -> Page<PatientRecord> {
        _ = try await context.require(
            .patientsSearch, of: actor, on: "patient", deadline: deadline)
        let identity = search.identity
        let after = try cursors.id(page.cursor, in: context.id, identity).map { PatientID($0) }
        let keys = try context.keys
        let store = PatientStore(tenant: context.id, keys: keys)
        guard let tokens = try search.tokens(keys) else {
            try await context.record(search.event(actor, found: 0), deadline: deadline)
            return Page(items: [], nextCursor: nil)
        }
        let query =
            tokens.isEmpty
            ? store.list(after: after, limit: page.limit + 1)
            : store.search(tokens: tokens, after: after, limit: page.limit + 1)
        let results = try await context.readAudited(
            [query], from: .replica, deadline: deadline
        ) {
            search.event(actor, found: min($0[0].count, page.limit))
        }
        let found = try results[0].rows.map { try store.record($0) }
        let whole = try cursors.page(found, page, in: context.id, identity) {
            KeysetPosition.bytes(of: $0.id.uuid)
        }
        guard !search.isEmpty else { return whole }
        return Page(
            items: try whole.items.filter { search.matches(try $0.patient()) },
            nextCursor: whole.nextCursor)
    }

    // MARK: Changing

    /// Changes a patient by a merge patch. One that changes nothing (RFC 5789 2 lets it succeed) leaves the version as
    /// it is, for a new one would make the tags of all who hold the record stale; it is recorded all the same.
    ///
    /// - Throws: `precondition-required`, `precondition-failed`, `mrn-taken`; `forbidden` for patients who
    ///   change more than how to reach them.
    package func update(
        _ id: PatientID, _ patch: PatientPatch, _ ifMatch: IfMatch, _ actor: Actor,
        in context: TenantContext, deadline: Deadline
    ) async throws -> PatientRecord {
        let scope = try await context.require(
            .patientsWrite, of: actor, on: "patient", id.uuid, deadline: deadline)
        try await requireReach(scope, .patientsWrite, id, actor, context, deadline)
        if scope == .ownContact, !patch.isContactOnly {
            try await context.recordDenial(
                of: .patientsWrite, to: actor, on: "patient", id.uuid, deadline: deadline)
            throw ClinicError.forbidden
        }
        try ifMatch.requirePresent()
        let keys = try context.keys
        let store = PatientStore(tenant: context.id, keys: keys)
        let now = dependencies.clocks.now()
        do {
            return try await context.transaction(.write, deadline: deadline) { transaction in
                guard let row = try await transaction.execute(store.findForUpdate(id)).first else {
                    throw ClinicError.notFound
                }
                let record = try store.record(row)
                try ifMatch.require(version: record.version)
                let patient = try record.patient()
                let changed = patch.applied(to: patient)
                guard changed != patient else {
                    transaction.audit(
                        actor.event("update", "patient", id.uuid, detail: .fields([])))
                    return record
                }
                let document = PatientDocument(changed)
                let version = record.version + 1
                _ = try await transaction.execute(
                    store.update(
                        id, sealed: try store.seal(document, id: id),
                        terms: try PatientTerms(changed, keys: keys), version: version, at: now))
                transaction.audit(
                    actor.event(
                        "update", "patient", id.uuid,
                        detail: .fields(PatientPatch.changedFields(from: patient, to: changed))))
                transaction.publish(.patient("patient.updated", id, version: version))
                return PatientRecord(
                    id: id, document: document, version: version, createdAt: record.createdAt,
                    updatedAt: now)
            }
        } catch let error as PostgresError {
            throw PatientService.clinicError(error)
        }
    }

    /// Takes a patient out of the clinic's lists. The sealed row stays for as long as the law asks; search
    /// terms go, and a patient's account is disabled.
    ///
    /// - Throws: `precondition-required`, `precondition-failed`; `future-appointments` while there are
    ///   appointments to come: they are cancelled one by one, by somebody who knows why.
    package func delete(
        _ id: PatientID, _ ifMatch: IfMatch, _ actor: Actor, in context: TenantContext,
        deadline: Deadline
    ) async throws {
        _ = try await context.require(
            .patientsDelete, of: actor, on: "patient", id.uuid, deadline: deadline)
        try ifMatch.requirePresent()
        let keys = try context.keys
        let store = PatientStore(tenant: context.id, keys: keys)
        let accounts = AccountStore(tenant: context.id, keys: keys)
        let sessions = SessionStore(tenant: context.id)
        let now = dependencies.clocks.now()
        let ended: [SessionID]? = try await context.transaction(.write, deadline: deadline) {
            transaction in
            let results = try await transaction.execute([
                store.findForUpdate(id), store.hasFutureAppointments(id, at: now),
            ])
            guard let row = results[0].first else { throw ClinicError.notFound }
            let version = Int64(try row.int(2))
            try ifMatch.require(version: version)
            guard try !results[1].single().bool(0) else {
                // The refusal says something of the patient.
                transaction.audit(actor.event("delete", "patient", id.uuid, outcome: .failure))
                return nil
            }
            let written = try await transaction.execute(
                store.delete(id, version: version + 1, at: now)
                    + [accounts.disable(patient: id, at: now)])
            var ended: [SessionID] = []
            if let account = written[2].first {
                ended = try SessionStore.ids(
                    try await transaction.execute(
                        sessions.revokeAll(of: AccountID(try account.uuid(0)), .disabled, at: now)))
            }
            transaction.audit(actor.event("delete", "patient", id.uuid))
            transaction.publish(.patient("patient.deleted", id, version: version + 1))
            return ended
        }
        guard let ended else { throw ClinicError(.futureAppointments) }
        await context.revoke(ended, deadline: deadline)
    }

    /// What `own` means: a patient who reaches for another's record learns nothing, and it is recorded.
    private func requireReach(
        _ scope: Scope, _ permission: Permission, _ id: PatientID, _ actor: Actor,
        _ context: TenantContext, _ deadline: Deadline
    ) async throws {
        guard scope <= .own, actor.patientID != id else { return }
        try await context.recordDenial(
            of: permission, to: actor, on: "patient", id.uuid, deadline: deadline)
        throw ClinicError.notFound
    }
}

extension PatientSearch {
    fileprivate func event(_ actor: Actor, found: Int) -> AuditEvent {
        var detail = JSONObject.fields(fieldNames)
        detail.insert(.integer(Int64(found)), for: "found")
        return actor.event(isEmpty ? "list" : "search", "patient", detail: detail)
    }
}
