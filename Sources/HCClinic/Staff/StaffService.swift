package import HCCore
package import HCIO
import HCPostgres
package import HCTenancy

/// Accounts of the staff and of patients: who may log in, and as what.
@LoopActor
package final class StaffService {
    private let dependencies: ClinicDependencies
    private let passwords: PasswordService
    private let cursors: CursorCodec

    nonisolated init(_ dependencies: ClinicDependencies, passwords: PasswordService) {
        self.dependencies = dependencies
        self.passwords = passwords
        cursors = CursorCodec(dependencies.secrets.cursors)
    }

    // MARK: Making

    /// Makes an account of the staff.
    ///
    /// - Throws: `email-taken`; `forbidden` for roles that the actor may not give.
    package func create(
        _ draft: AccountDraft, _ actor: Actor, in context: TenantContext, deadline: Deadline
    ) async throws -> Account {
        let scope = try await context.require(
            .staffWrite, of: actor, on: "account", deadline: deadline)
        try await refuseOwners(
            scope, draft.roles.contains(.owner), actor, nil, context, deadline)
        return try await insert(draft, actor, in: context, deadline: deadline)
    }

    /// Gives a patient an account.
    ///
    /// - Throws: `email-taken`; `already-linked` if the patient has one; `invalid-input` if there is no such
    ///   patient.
    package func createForPatient(
        _ draft: AccountDraft, _ actor: Actor, in context: TenantContext, deadline: Deadline
    ) async throws -> Account {
        _ = try await context.require(
            .patientAccountsWrite, of: actor, on: "account", deadline: deadline)
        return try await insert(draft, actor, in: context, deadline: deadline)
    }

    private func insert(
        _ draft: AccountDraft, _ actor: Actor, in context: TenantContext, deadline: Deadline
    ) async throws -> Account {
        precondition(
            draft.roles == RoleSet(.patient)
                ? draft.patientID != nil : !draft.roles.contains(.patient),
            "an account is of the staff or of one patient")
        let store = AccountStore(tenant: context.id, keys: try context.keys)
        let hash = try await passwords.hash(draft.password, deadline: deadline)
        let now = dependencies.clocks.now()
        let account = Account(
            id: dependencies.makeID(), person: draft.person, roles: draft.roles, status: .active,
            patientID: draft.patientID, lastLoginAt: nil, version: 1, createdAt: now,
            updatedAt: now)
        let query = store.insert(
            account, sealed: try store.seal(account.person, id: account.id),
            emailToken: try store.emailToken(account.person.email), passwordHash: hash)
        do {
            let results = try await context.write(
                [query],
                audit: [
                    actor.event(
                        "create", "account", account.id.uuid, detail: .roles(account.roles))
                ], deadline: deadline)
            guard results[0].affectedRows == 1 else { throw StaffService.noSuchPatient }
        } catch let error as PostgresError {
            throw StaffService.clinicError(error) ?? error
        }
        return account
    }

    private static let noSuchPatient = ClinicError.invalid(
        "patientId", .notFound, "names no patient")

    private static func clinicError(_ error: PostgresError) -> ClinicError? {
        switch (error.sqlstate, error.constraint) {
        case (.uniqueViolation?, "account_email"?): ClinicError(.emailTaken)
        case (.uniqueViolation?, "account_patient"?): ClinicError(.alreadyLinked)
        case (.foreignKeyViolation?, _): noSuchPatient
        default: nil
        }
    }

    // MARK: Reading

    package func read(
        _ id: AccountID, _ actor: Actor, in context: TenantContext, deadline: Deadline
    ) async throws -> Account {
        _ = try await context.require(
            .staffRead, of: actor, on: "account", id.uuid, deadline: deadline)
        let store = AccountStore(tenant: context.id, keys: try context.keys)
        let rows = try await context.read([store.find(id)], deadline: deadline)
        guard let row = rows[0].first else { throw ClinicError.notFound }
        let account = try store.account(row)
        // Patients' accounts are patients' data: not here.
        guard account.patientID == nil else { throw ClinicError.notFound }
        return account
    }

    package func list(
        _ page: PageRequest, _ actor: Actor, in context: TenantContext, deadline: Deadline
    ) async throws -> Page<Account> {
        _ = try await context.require(.staffRead, of: actor, on: "account", deadline: deadline)
        let identity = QueryIdentity("staff by id")
        let after = try cursors.id(page.cursor, in: context.id, identity)
        let store = AccountStore(tenant: context.id, keys: try context.keys)
        let rows = try await context.read(
            [store.listStaff(after: after.map { AccountID($0) }, limit: page.limit + 1)],
            from: .replica, deadline: deadline)
        return try cursors.page(
            try rows[0].rows.map { try store.account($0) }, page, in: context.id, identity
        ) { KeysetPosition.bytes(of: $0.id.uuid) }
    }

    // MARK: Changing

    /// Changes name, phone, roles or status of an account of the staff. From the next request on: who is
    /// disabled is out, who has other roles has them.
    ///
    /// - Throws: `precondition-required`, `precondition-failed`, `last-owner`, `forbidden`.
    package func update(
        _ id: AccountID, _ patch: AccountPatch, _ ifMatch: IfMatch, _ actor: Actor,
        in context: TenantContext, deadline: Deadline
    ) async throws -> Account {
        let scope = try await context.require(
            .staffWrite, of: actor, on: "account", id.uuid, deadline: deadline)
        try ifMatch.requirePresent()
        try await refuseOwners(
            scope, patch.roles?.contains(.owner) == true, actor, id, context, deadline)
        let store = AccountStore(tenant: context.id, keys: try context.keys)
        let sessions = SessionStore(tenant: context.id)
        let now = dependencies.clocks.now()
        struct Outcome {
            var account: Account
            var ended: [SessionID] = []
            var changed: [SessionID] = []
            var isOwnerOutOfReach = false
        }
        let outcome = try await context.transaction(.write, deadline: deadline) {
            transaction -> Outcome in
            // Owners first, then the account: everybody locks in this order.
            let results = try await transaction.execute([
                store.lockActiveOwners(), store.findForUpdate(id),
            ])
            guard let row = results[1].first else { throw ClinicError.notFound }
            let account = try store.account(row)
            guard account.patientID == nil else { throw ClinicError.notFound }
            if scope < .all, account.roles.contains(.owner) {
                return Outcome(account: account, isOwnerOutOfReach: true)
            }
            try ifMatch.require(version: account.version)
            let changed = patch.applied(to: account, at: now)
            guard changed != account else {
                transaction.audit(
                    actor.event("update", "account", id.uuid, detail: .change(account, account)))
                return Outcome(account: account)
            }
            let owners = try results[0].rows.map { try $0.uuid(0) }
            if !changed.isActiveOwner, owners == [id.uuid] { throw ClinicError(.lastOwner) }
            var outcome = Outcome(account: changed)
            var queries = [
                store.update(changed, sealed: try store.seal(changed.person, id: id))
            ]
            if changed.status != .active {
                queries.append(sessions.revokeAll(of: id, .disabled, at: now))
            } else {
                queries.append(sessions.listLiving(of: id, at: now))
            }
            let written = try await transaction.execute(queries)
            if changed.status != .active {
                outcome.ended = try SessionStore.ids(written[1])
            } else if changed.roles != account.roles {
                outcome.changed = try SessionStore.ids(written[1])
            }
            transaction.audit(
                actor.event("update", "account", id.uuid, detail: .change(account, changed)))
            return outcome
        }
        if outcome.isOwnerOutOfReach {
            try await context.recordDenial(
                of: .staffWrite, to: actor, on: "account", id.uuid, deadline: deadline)
            throw ClinicError.forbidden
        }
        await context.revoke(outcome.ended, deadline: deadline)
        for session in outcome.changed {
            await context.renewSession(session, deadline: deadline)
        }
        return outcome.account
    }

    /// Ends a patient's account, as the last step of deleting the patient or by itself.
    package func disablePatientAccount(
        of patient: PatientID, _ actor: Actor, in context: TenantContext, deadline: Deadline
    ) async throws {
        _ = try await context.require(
            .patientAccountsWrite, of: actor, on: "account", deadline: deadline)
        let store = AccountStore(tenant: context.id, keys: try context.keys)
        let sessions = SessionStore(tenant: context.id)
        let now = dependencies.clocks.now()
        let ended: [SessionID] = try await context.transaction(.write, deadline: deadline) {
            transaction in
            guard
                let row = try await transaction.execute(
                    store.disable(patient: patient, at: now)
                ).first
            else { throw ClinicError.notFound }
            let id: AccountID = try row.id(0)
            let results = try await transaction.execute(
                sessions.revokeAll(of: id, .disabled, at: now))
            transaction.audit(actor.event("disable", "account", id.uuid))
            return try SessionStore.ids(results)
        }
        await context.revoke(ended, deadline: deadline)
    }

    /// What `except-owners` means.
    private func refuseOwners(
        _ scope: Scope, _ givesOwner: Bool, _ actor: Actor, _ id: AccountID?,
        _ context: TenantContext, _ deadline: Deadline
    ) async throws {
        guard scope < .all, givesOwner else { return }
        try await context.recordDenial(
            of: .staffWrite, to: actor, on: "account", id?.uuid, deadline: deadline)
        throw ClinicError.forbidden
    }
}

extension Account {
    fileprivate var isActiveOwner: Bool { status == .active && roles.contains(.owner) }
}

extension JSONObject {
    fileprivate static func roles(_ roles: RoleSet) -> JSONObject {
        JSONObject(("roles", .array(roles.names.map { .string($0) })))
    }

    /// Roles and status before and after; of the person only that it changed.
    fileprivate static func change(_ old: Account, _ new: Account) -> JSONObject {
        JSONObject(
            ("rolesBefore", .array(old.roles.names.map { .string($0) })),
            ("rolesAfter", .array(new.roles.names.map { .string($0) })),
            ("statusBefore", .string(old.status.rawValue)),
            ("statusAfter", .string(new.status.rawValue)),
            ("personChanged", .bool(old.person != new.person)))
    }
}
