import HCControl
import HCCore
import HCIO

struct MoveAgentCommand: Command {
    static let specification = CommandSpecification(
        path: ["move", "agent"],
        summary:
            "Carries moves on whose process is gone, ends those whose soak is over, and samples the load.",
        discussion: """
            Runs until it is stopped; run one or two per platform, as a service. If the process of a move dies in
            the pause, an agent opens the clinic again within two seconds. Every five minutes it samples what
            clinics use, as 'hc-admin rebalance collect' does. It needs the connection files of hc-admin.
            It may be killed at any time: another agent, or the next one, goes on.
            """,
        examples: ["move agent"])

    func run(_ invocation: Invocation, _ environment: AdminEnvironment) async throws -> Report {
        let plane = try environment.plane()
        let tell = environment.tell
        let agent = MoveAgent(plane: plane) { move, reason in
            tell(MoveText.line(move, reason))
        }
        var lastTrouble = ""
        try await agent.run { error in
            let text = "\(error)"
            if text != lastTrouble { tell("hc-admin move agent: \(text)") }
            lastTrouble = text
        }
        return Report(json: [:], text: "")
    }
}
