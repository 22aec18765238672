package import HCCore
package import HCIO
import HCPostgres
package import HCTenancy

/// Changes what the clinic offers; `DirectoryService` reads it.
@LoopActor
package final class ServiceCatalog {
    private let dependencies: ClinicDependencies

    nonisolated init(_ dependencies: ClinicDependencies) {
        self.dependencies = dependencies
    }

    /// - Throws: `invalid-input` if there is no such practitioner.
    package func create(
        _ draft: CareServiceDraft, _ actor: Actor, in context: TenantContext, deadline: Deadline
    ) async throws -> CareService {
        _ = try await context.require(
            .servicesWrite, of: actor, on: "service", deadline: deadline)
        let now = dependencies.clocks.now()
        let service = CareService(
            id: dependencies.makeID(), name: draft.name, description: draft.description,
            durationMinutes: draft.durationMinutes, priceMinor: draft.priceMinor.map { Int64($0) },
            practitionerIDs: CareService.ordered(draft.practitionerIDs), isActive: true, version: 1,
            createdAt: now, updatedAt: now)
        do {
            try await context.write(
                CareServiceStore(tenant: context.id).insert(service),
                audit: [actor.event("create", "service", service.id.uuid)],
                changing: [.services], deadline: deadline)
        } catch let error as PostgresError {
            throw ServiceCatalog.clinicError(error) ?? error
        }
        return service
    }

    /// - Throws: `precondition-required`, `precondition-failed`; `invalid-input` if there is no such practitioner.
    package func update(
        _ id: ServiceID, _ patch: CareServicePatch, _ ifMatch: IfMatch, _ actor: Actor,
        in context: TenantContext, deadline: Deadline
    ) async throws -> CareService {
        _ = try await context.require(
            .servicesWrite, of: actor, on: "service", id.uuid, deadline: deadline)
        try ifMatch.requirePresent()
        let store = CareServiceStore(tenant: context.id)
        let now = dependencies.clocks.now()
        do {
            return try await context.transaction(
                .write, changing: [.services], deadline: deadline
            ) { transaction in
                guard let row = try await transaction.execute(store.findForUpdate(id)).first else {
                    throw ClinicError.notFound
                }
                let service = try CareServiceStore.service(row)
                try ifMatch.require(version: service.version)
                let changed = patch.applied(to: service, at: now)
                _ = try await transaction.execute(store.update(changed))
                transaction.audit(actor.event("update", "service", id.uuid))
                return changed
            }
        } catch let error as PostgresError {
            throw ServiceCatalog.clinicError(error) ?? error
        }
    }

    private static func clinicError(_ error: PostgresError) -> ClinicError? {
        error.sqlstate == .foreignKeyViolation
            ? .invalid("practitionerIds", .notFound, "names no practitioner") : nil
    }
}
