import HCControl
import HCCore
import HCIO
import HCTenancy

struct RebalancePlanCommand: Command {
    static let specification = CommandSpecification(
        path: ["rebalance", "plan"],
        summary: "Says which clinics should move, and what each shard gains by it.",
        discussion: """
            From what 'rebalance collect' has kept and the rules of a file (tenants/rebalance.json): clinics that must not
            stay where they are, then those whose moves make the shards more even and are worth their cost. Each
            move makes the whole better than it was, so one may stop after any. Changes nothing; --out
            writes the plan down for 'rebalance apply'.
            """,
        options: [
            .value("rules", "FILE", "rebalance.json of the tenants directory unless given."),
            .value("out", "FILE", "Writes the plan down; a file that is there is replaced."),
            .value("moves", "N", "At most so many moves; as the rules say unless given."),
            .value(
                "trace", "FILE",
                "Adds the present load to a trace for 'rebalance simulate'; begins one if there is none."
            ),
        ],
        examples: [
            "rebalance plan", "rebalance plan --out plan.json",
            "rebalance plan --rules tenants/rebalance.json --moves 20 --json",
        ])

    func run(_ invocation: Invocation, _ environment: AdminEnvironment) async throws -> Report {
        let movesMax = try invocation.integer("moves", in: 1...100_000)
        let plane = try environment.plane()
        let rulesFile =
            invocation.option("rules") ?? "\(plane.configuration.tenantsDirectory)/rebalance.json"
        var settings = try RebalanceDesk.settings(file: rulesFile)
        if let movesMax { settings.rules.movesMax = movesMax }
        let view = try await RebalanceDesk(plane: plane).view(settings)
        let plan = RebalancePlanner.plan(view.fleet, rules: settings.rules)
        let file = RebalancePlanFile(plan, view, madeAt: environment.clocks.now())
        if let path = invocation.option("out") {
            try Files.replace(
                path, with: file.json().serialized + [UInt8(ascii: "\n")], mode: 0o644)
        }
        if let path = invocation.option("trace") {
            try record(view, to: path, now: environment.clocks.now())
        }
        let report = RebalanceReport(
            view: view, plan: plan, file: file, rules: settings.rules)
        if let warning = report.warning(now: environment.clocks.now()) {
            environment.tell("warning: \(warning)")
        }
        return Report(
            json: try report.json(),
            text: report.text
                + (invocation.option("out").map {
                    "\n\nwritten to \($0); apply it: hc-admin rebalance apply \($0)"
                } ?? ""))
    }

    private func record(_ view: RebalanceView, to path: String, now: Timestamp) throws {
        var present: [UInt8] = []
        do throws(Files.FileError) {
            present = try Files.read(path, bytesMax: RecordedTrace.Limits.bytesMax)
        } catch {
            guard error.isMissing else { throw error }
        }
        let more: [UInt8]
        do throws(RebalanceFormatError) {
            more = try view.fleet.traced(after: present, view.loads, now: now)
        } catch {
            throw ControlError(
                .conflict, code: "bad-trace", "\(path) is there and no trace can go on from it",
                remedy: "Name another file with --trace.", cause: error)
        }
        if present.isEmpty {
            try Files.replace(path, with: more, mode: 0o644)
        } else {
            try Files.append(more, to: path, at: present.count)
        }
    }
}
