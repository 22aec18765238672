import HCControl
import HCCore
import HCIO

struct TenantCors: Command {
    static let specification = CommandSpecification(
        path: ["tenant", "cors"],
        summary: "Shows or changes the web origins whose pages may call a clinic's API.",
        discussion: """
            An origin is scheme, host and port, to the letter: there are no wildcards. Without --allow and
            --remove the list is shown. Running servers follow within about a second; what a browser has
            learned of a preflight it may keep for ten minutes, but gets no answers any more.
            """,
        arguments: [.init(name: "SLUG", help: "The clinic.")],
        options: [
            .values("allow", "ORIGIN", "Lets its pages in; may be given again, or with commas."),
            .values("remove", "ORIGIN", "Lets them in no longer; as --allow."),
        ],
        changes: true,
        examples: [
            "tenant cors sunrise",
            "tenant cors sunrise --allow https://portal.example --allow https://desk.example:8443",
            "tenant cors sunrise --remove https://portal.example --dry-run",
        ])

    func run(_ invocation: Invocation, _ environment: AdminEnvironment) async throws -> Report {
        let slug = invocation.argument(0)
        let origins = TenantOrigins(plane: try environment.plane())
        let change = try await origins.change(
            slug, allow: try origins.parse(invocation.values("allow")),
            remove: try origins.parse(invocation.values("remove")), dryRun: invocation.isDryRun)
        let isChanged = change.after != change.before
        var lines = change.added.map { "+ \($0)" } + change.removed.map { "- \($0)" }
        if isChanged {
            lines.append(invocation.isDryRun ? "nothing was changed (--dry-run)" : "applied")
        } else if change.after.isEmpty {
            lines.append("no page of another origin may call the API of '\(slug)'")
        } else {
            lines = change.after
        }
        return Report(
            json: [
                "slug": .string(slug),
                "origins": .array(change.after.map { .string($0) }),
                "added": .array(change.added.map { .string($0) }),
                "removed": .array(change.removed.map { .string($0) }),
                "applied": .bool(isChanged && !invocation.isDryRun),
            ], text: lines.joined(separator: "\n"))
    }
}
