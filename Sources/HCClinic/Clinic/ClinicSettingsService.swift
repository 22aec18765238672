package import HCCore
package import HCIO
import HCPostgres
package import HCTenancy

/// The clinic's settings, and a short memory of them for services that need the clinic's zone.
@LoopActor
package final class ClinicSettingsService {
    /// Another worker's change is seen at the latest after this long. Where it matters, the database looks
    /// again (`AppointmentStore.insert`).
    static let memoryLife = Duration.seconds(5)
    private nonisolated static let clinicsMax = 1024

    private struct Memory {
        let settings: ClinicSettings
        let readAt: MonotonicTime
    }

    private let dependencies: ClinicDependencies
    private var memory: LRUCache<TenantID, Memory>

    nonisolated init(_ dependencies: ClinicDependencies) {
        self.dependencies = dependencies
        memory = LRUCache(capacityMax: ClinicSettingsService.clinicsMax)
    }

    package func read(
        _ actor: Actor, in context: TenantContext, deadline: Deadline
    ) async throws -> ClinicSettings {
        _ = try await context.require(.clinicRead, of: actor, on: "clinic", deadline: deadline)
        return try await fetch(in: context, deadline: deadline)
    }

    /// - Throws: `precondition-required`, `precondition-failed`.
    package func update(
        _ patch: ClinicSettingsPatch, _ ifMatch: IfMatch, _ actor: Actor,
        in context: TenantContext, deadline: Deadline
    ) async throws -> ClinicSettings {
        _ = try await context.require(.clinicWrite, of: actor, on: "clinic", deadline: deadline)
        try ifMatch.requirePresent()
        let store = ClinicSettingsStore(tenant: context.id)
        let now = dependencies.clocks.now()
        let changed = try await context.transaction(
            .write, changing: [.clinic], deadline: deadline
        ) { transaction in
            guard let row = try await transaction.execute(store.findForUpdate()).first else {
                throw ClinicError.notFound
            }
            let settings = try ClinicSettingsStore.settings(row)
            try ifMatch.require(version: settings.version)
            let changed = patch.applied(to: settings, at: now)
            guard changed != settings else {
                transaction.audit(actor.event("update", "clinic", context.id.uuid))
                return settings
            }
            _ = try await transaction.execute(store.update(changed))
            transaction.audit(actor.event("update", "clinic", context.id.uuid))
            return changed
        }
        remember(changed, of: context.id)
        return changed
    }

    /// From memory if it is fresh, else from the database.
    func settings(in context: TenantContext, deadline: Deadline) async throws -> ClinicSettings {
        if let memory = memory.find(context.id),
            dependencies.clocks.monotonic() - memory.readAt < ClinicSettingsService.memoryLife
        {
            return memory.settings
        }
        return try await fetch(in: context, deadline: deadline)
    }

    func forget(_ tenant: TenantID) {
        memory.remove(tenant)
    }

    private func fetch(
        in context: TenantContext, deadline: Deadline
    ) async throws -> ClinicSettings {
        let rows = try await context.read(
            [ClinicSettingsStore(tenant: context.id).find()], deadline: deadline)
        guard let row = rows[0].first else { throw ClinicError.notFound }
        let settings = try ClinicSettingsStore.settings(row)
        remember(settings, of: context.id)
        return settings
    }

    private func remember(_ settings: ClinicSettings, of tenant: TenantID) {
        memory.insert(
            Memory(settings: settings, readAt: dependencies.clocks.monotonic()), for: tenant)
    }
}
