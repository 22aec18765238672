package import HCCore
package import HCIO
import HCPostgres
package import HCTenancy

/// The first account of a new clinic.
@LoopActor
package enum OwnerAccount {
    package enum Outcome: Sendable, Equatable {
        case created(AccountID)
        /// There was an owner with this email: nothing was changed, not even the password.
        case existing(AccountID)
    }

    /// Makes the clinic's settings and its owner. Twice is as well as once, also at the same time.
    ///
    /// - Throws: `invalid-input` for an email or password that will not do; `email-taken` if somebody who is
    ///   no owner has the email.
    package static func create(
        in context: TenantContext, email: String, password: Sensitive<String>,
        name: String = "Owner",
        services: ClinicServices, requestID: RequestID, deadline: Deadline
    ) async throws -> Outcome {
        let actor = Actor.system(requestID: requestID)
        try await createSettings(in: context, services, deadline)
        if let existing = try await find(email, in: context, deadline) { return existing }
        let draft = try AccountDraft(
            staff: .object(
                JSONObject(
                    ("email", .string(email)), ("name", .string(name)),
                    ("roles", .array([.string(Role.owner.rawValue)])),
                    ("password", .string(password.reveal())))))
        do {
            return .created(
                try await services.staff.create(draft, actor, in: context, deadline: deadline).id)
        } catch let error as ClinicError where error.code == .emailTaken {
            // Another run was quicker.
            guard let existing = try await find(email, in: context, deadline) else { throw error }
            return existing
        }
    }

    private static func createSettings(
        in context: TenantContext, _ services: ClinicServices, _ deadline: Deadline
    ) async throws {
        let now = services.dependencies.clocks.now()
        let tenant = context.tenant
        let settings = ClinicSettings(
            name: tenant.name, timeZone: tenant.timeZone, locale: tenant.locale, currency: "USD",
            bufferBeforeMinutes: 0, bufferAfterMinutes: 0, version: 1, createdAt: now,
            updatedAt: now)
        try await context.write(
            [ClinicSettingsStore(tenant: context.id).insertIfMissing(settings)], audit: [],
            deadline: deadline)
    }

    private static func find(
        _ email: String, in context: TenantContext, _ deadline: Deadline
    ) async throws -> Outcome? {
        let store = AccountStore(tenant: context.id, keys: try context.keys)
        let rows = try await context.read(
            [store.find(emailToken: try store.emailToken(email))], deadline: deadline)
        guard let row = rows[0].first else { return nil }
        let account = try store.account(row)
        guard account.roles.contains(.owner) else { throw ClinicError(.emailTaken) }
        return .existing(account.id)
    }
}
