import HCClinic
import HCControl
import HCCore
import HCIO

struct DemoSeed: Command {
    static let specification = CommandSpecification(
        path: ["demo", "seed"], summary: "Fills a clinic with plainly fictitious sample data.",
        discussion: """
            Practitioners, patients and appointments are made by the code that serves requests, always the
            same ones. What is there already is left alone: given again, nothing is added.
            """,
        arguments: [.init(name: "SLUG", help: "The clinic.")],
        options: [
            .value("patients", "N", "How many patients, 1 to 100000; 500."),
            .value("days", "N", "Days of appointments, 1 to 365; 60."),
        ],
        changes: true, examples: ["demo seed sunrise", "demo seed sunrise --patients 50 --days 5"])

    func run(_ invocation: Invocation, _ environment: AdminEnvironment) async throws -> Report {
        let patients = try invocation.integer("patients", in: 1...100_000) ?? 500
        let days = try invocation.integer("days", in: 1...365) ?? 60
        let plane = try environment.plane()
        let tenant = try await TenantRegistry(plane: plane).find(invocation.argument(0))
        guard !invocation.isDryRun else {
            return Report(
                json: ["outcome": "would-seed", "slug": .string(tenant.slug)],
                text:
                    "'\(tenant.slug)' would get up to \(patients) patients and \(days) days of appointments"
            )
        }
        let hooks = try ClinicHooks(plane, environment.clocks)
        let context = try await plane.context(tenant: tenant.id)
        let tell = environment.tell
        let progress = try await DemoData.seed(
            in: context, services: hooks.services, patientCount: patients, dayCount: days
        ) { progress in
            tell(
                "\(tenant.slug): \(progress.patients) patients, \(progress.appointments) appointments"
            )
        }
        return Report(
            json: [
                "outcome": "seeded", "slug": .string(tenant.slug),
                "practitioners": .integer(Int64(progress.practitioners)),
                "patients": .integer(Int64(progress.patients)),
                "appointments": .integer(Int64(progress.appointments)),
                "created": .integer(Int64(progress.created)),
            ],
            text:
                "\(tenant.slug) has \(progress.practitioners) practitioners, \(progress.patients) patients and"
                + " \(progress.appointments) appointments; \(progress.created) were made now")
    }
}
