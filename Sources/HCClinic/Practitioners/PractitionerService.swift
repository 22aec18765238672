package import HCCore
package import HCIO
import HCPostgres
package import HCTenancy

/// With whom appointments can be made.
@LoopActor
package final class PractitionerService {
    private let dependencies: ClinicDependencies
    private let cursors: CursorCodec

    nonisolated init(_ dependencies: ClinicDependencies) {
        self.dependencies = dependencies
        cursors = CursorCodec(dependencies.secrets.cursors)
    }

    /// - Throws: `already-linked`; `invalid-input` if there is no such account.
    package func create(
        _ draft: PractitionerDraft, _ actor: Actor, in context: TenantContext, deadline: Deadline
    ) async throws -> Practitioner {
        _ = try await context.require(
            .practitionersWrite, of: actor, on: "practitioner", deadline: deadline)
        let now = dependencies.clocks.now()
        let practitioner = Practitioner(
            id: dependencies.makeID(), accountID: draft.accountID, name: draft.name,
            specialities: draft.specialities, bufferBeforeMinutes: draft.bufferBeforeMinutes,
            bufferAfterMinutes: draft.bufferAfterMinutes, capacity: draft.capacity, isActive: true,
            version: 1, createdAt: now, updatedAt: now)
        do {
            try await context.write(
                [PractitionerStore(tenant: context.id).insert(practitioner)],
                audit: [actor.event("create", "practitioner", practitioner.id.uuid)],
                changing: [.practitioners], deadline: deadline)
        } catch let error as PostgresError {
            throw PractitionerService.clinicError(error) ?? error
        }
        return practitioner
    }

    package func read(
        _ id: PractitionerID, _ actor: Actor, in context: TenantContext, deadline: Deadline
    ) async throws -> Practitioner {
        _ = try await context.require(
            .practitionersRead, of: actor, on: "practitioner", id.uuid, deadline: deadline)
        let rows = try await context.read(
            [PractitionerStore(tenant: context.id).find(id)], from: .primaryUnlessLost,
            deadline: deadline)
        guard let row = rows[0].first else { throw ClinicError.notFound }
        return try PractitionerStore.practitioner(row)
    }

    /// - Parameter isActive: nil for both.
    package func list(
        _ page: PageRequest, isActive: Bool?, _ actor: Actor, in context: TenantContext,
        deadline: Deadline
    ) async throws -> Page<Practitioner> {
        _ = try await context.require(
            .practitionersRead, of: actor, on: "practitioner", deadline: deadline)
        var identity = QueryIdentity("practitioners by id")
        identity.add("active", isActive.map { $0 ? "true" : "false" })
        let after = try cursors.id(page.cursor, in: context.id, identity)
        let query = PractitionerStore(tenant: context.id).list(
            isActive: isActive, after: after.map { PractitionerID($0) }, limit: page.limit + 1)
        let rows = try await context.read(
            [query], from: .primaryUnlessLost, deadline: deadline)
        return try cursors.page(
            try rows[0].rows.map { try PractitionerStore.practitioner($0) }, page,
            in: context.id, identity
        ) { KeysetPosition.bytes(of: $0.id.uuid) }
    }

    /// Changes a practitioner; deactivates with `active: false`: no new appointments, those there stay.
    ///
    /// - Throws: `precondition-required`, `precondition-failed`, `already-linked`.
    package func update(
        _ id: PractitionerID, _ patch: PractitionerPatch, _ ifMatch: IfMatch, _ actor: Actor,
        in context: TenantContext, deadline: Deadline
    ) async throws -> Practitioner {
        _ = try await context.require(
            .practitionersWrite, of: actor, on: "practitioner", id.uuid, deadline: deadline)
        try ifMatch.requirePresent()
        let store = PractitionerStore(tenant: context.id)
        let now = dependencies.clocks.now()
        do {
            return try await context.transaction(
                .write, changing: [.practitioners], deadline: deadline
            ) { transaction in
                guard let row = try await transaction.execute(store.findForUpdate(id)).first else {
                    throw ClinicError.notFound
                }
                let practitioner = try PractitionerStore.practitioner(row)
                try ifMatch.require(version: practitioner.version)
                let changed = patch.applied(to: practitioner, at: now)
                guard changed != practitioner else {
                    transaction.audit(actor.event("update", "practitioner", id.uuid))
                    return practitioner
                }
                _ = try await transaction.execute(store.update(changed))
                transaction.audit(actor.event("update", "practitioner", id.uuid))
                return changed
            }
        } catch let error as PostgresError {
            throw PractitionerService.clinicError(error) ?? error
        }
    }

    private static func clinicError(_ error: PostgresError) -> ClinicError? {
        switch (error.sqlstate, error.constraint) {
        case (.uniqueViolation?, "practitioner_account"?): ClinicError(.alreadyLinked)
        case (.foreignKeyViolation?, _):
            .invalid("accountId", .notFound, "names no account")
        default: nil
        }
    }
}
