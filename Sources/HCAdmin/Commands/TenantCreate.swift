import HCClinic
import HCControl
import HCCore
import HCIO

struct TenantCreate: Command {
    static let specification = CommandSpecification(
        path: ["tenant", "create"],
        summary: "Opens a clinic and prints its owner's first password.",
        discussion: """
            Places the clinic on the open shard with most room, makes its keys, its hostname and its owner's
            account, and asks the running server for it. A failure takes everything back; a command that was
            killed is simply given again.
            """,
        arguments: [
            .init(name: "SLUG", help: "Its name in its hostname: 3 to 40 of a-z, 0-9 and '-'.")
        ],
        options: [
            .value("name", "NAME", "What people call it; required."),
            .value("tier", "TIER", "What it may use; standard unless given."),
            .value("shard", "ID", "Its shard; the one with most room unless given."),
            .value("owner-email", "EMAIL", "The owner's login; owner@SLUG.example unless given."),
            .value("time-zone", "ZONE", "IANA name; UTC unless given."),
        ],
        changes: true,
        examples: [
            "tenant create hillview --name \"Hillview\"",
            "tenant create hillview --name \"Hillview\" --tier enterprise --shard s2 --dry-run",
        ])

    func run(_ invocation: Invocation, _ environment: AdminEnvironment) async throws -> Report {
        guard let name = invocation.option("name") else {
            throw UsageError("'--name' is missing", TenantCreate.specification)
        }
        let slug = try Slug(invocation.argument(0))
        let zone = invocation.option("time-zone") ?? "UTC"
        guard ZoneCatalog.system.rules(named: zone) != nil else {
            throw ControlError(
                .invalid, code: "bad-time-zone", "there is no time zone '\(zone)'",
                remedy: "Use an IANA name such as Europe/Berlin.")
        }
        let request = TenantProvisioner.Request(
            slug: slug, name: name, tier: invocation.option("tier") ?? "standard",
            shard: invocation.option("shard"),
            ownerEmail: invocation.option("owner-email") ?? "owner@\(slug).example", timeZone: zone)
        let plane = try environment.plane()
        let provisioner = TenantProvisioner(
            plane: plane, hooks: try ClinicHooks(plane, environment.clocks).hooks)
        if invocation.isDryRun {
            let shard = try await provisioner.plan(request)
            return Report(
                json: [
                    "outcome": .string("would-create"), "slug": .string(slug.text),
                    "shard": .string(shard.id), "tier": .string(request.tier),
                ], text: "'\(slug)' would be created on shard \(shard.id) (\(request.tier))")
        }
        let outcome = try await provisioner.create(request)
        let tenant = outcome.tenant
        let password = outcome.ownerPassword.reveal()
        let json = tenant.json.adding([
            "outcome": .string("created"),
            "ownerEmail": .string(outcome.ownerEmail),
            "ownerPassword": .string(password),
            "smoke": outcome.smoke.map { .string($0) } ?? .null,
        ])
        let smoke = outcome.smoke ?? "no server answers at the public URL; not checked"
        return Report(
            json: json,
            text: """
                \(tenant.slug) is open at \(tenant.host) on shard \(tenant.shard) (\(tenant.tier))
                owner     \(outcome.ownerEmail)
                password  \(password)   (shown this once)
                smoke     \(smoke)
                """)
    }
}
