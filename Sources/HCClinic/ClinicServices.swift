package import HCCore
package import HCIO

/// All services of the clinic, made once per process. They keep no clinic's data: every call brings its
/// `TenantContext`.
@LoopActor
package final class ClinicServices {
    package let auth: AuthService
    package let staff: StaffService
    package let settings: ClinicSettingsService
    package let practitioners: PractitionerService
    package let catalog: ServiceCatalog
    package let directory: DirectoryService
    package let patients: PatientService
    package let appointments: AppointmentService
    package let events: EventService
    let dependencies: ClinicDependencies

    package nonisolated init(
        _ dependencies: ClinicDependencies, metrics: MetricsRegistry = .unread
    ) {
        self.dependencies = dependencies
        let passwords = PasswordService(dependencies)
        auth = AuthService(dependencies, passwords: passwords)
        staff = StaffService(dependencies, passwords: passwords)
        settings = ClinicSettingsService(dependencies)
        practitioners = PractitionerService(dependencies)
        catalog = ServiceCatalog(dependencies)
        directory = DirectoryService(dependencies)
        patients = PatientService(dependencies)
        appointments = AppointmentService(dependencies, settings: settings)
        events = EventService(dependencies, auth: auth, metrics: metrics)
    }
}
