import HCControl
import HCCore
import HCHTTP
import HCIO
import HCTenancy

struct TenantTop: Command {
    static let specification = CommandSpecification(
        path: ["tenant", "top"],
        summary: "Shows which clinics use the shards' connections now, like top(1).",
        discussion: """
            Asks the operator listener of the running server twice and shows what came between: transactions,
            those that waited and for how long, the time for which connections were used, and those turned
            away. Each worker names the 32 clinics of a shard that use most; all others are one line, "other".
            "platform" is the platform's own work. Goes on until it is interrupted, unless --once or --json.
            """,
        options: [
            .value("shard", "SHARD", "Only clinics of this shard."),
            .flag("once", "One look, and the end."),
            .value(
                "interval", "TIME",
                "Between two looks: 1s (the default) to 60s, or 200ms and above."),
            .value("lines", "N", "Clinics that are shown; 20 if not said."),
            .values(
                "server", "URL",
                "The operator listener of a server, such as http://10.0.0.5:9464; may be given again. If not said, that of this machine."
            ),
        ],
        examples: [
            "tenant top --once", "tenant top --shard s1 --interval 2s", "tenant top --once --json",
        ])

    private static let answerBytesMax = 16 << 20
    private static let patience = Duration.seconds(5)

    func run(_ invocation: Invocation, _ environment: AdminEnvironment) async throws -> Report {
        let interval = try TenantTop.interval(invocation.option("interval"))
        let lines = try invocation.integer("lines", in: 1...10_000) ?? 20
        let shard = invocation.option("shard")
        var servers = invocation.values("server")
        if servers.isEmpty { servers = [TenantTop.local(try environment.configuration())] }
        let client = TenantTop.makeClient(environment.clocks)
        var before = try await TenantTop.look(servers, client, environment.clocks)
        while true {
            try await Loop.shared.sleep(for: interval)
            let now = try await TenantTop.look(servers, client, environment.clocks)
            let table = UseTable(from: before, to: now, shard: shard)
            if invocation.flag("once") || invocation.wantsJSON {
                return Report(json: table.json(lines: lines), text: table.text(lines: lines))
            }
            // Home, and nothing below: ECMA-48 8.3.21 and 8.3.39.
            let start = environment.isTerminal ? "\u{1B}[H\u{1B}[J" : ""
            environment.show(start + table.text(lines: lines) + "\n\n")
            before = now
        }
    }

    nonisolated static func interval(_ text: String?) throws(UsageError) -> Duration {
        guard let text else { return .seconds(1) }
        let units: [(suffix: String, unit: Duration)] = [
            ("ms", .milliseconds(1)), ("s", .seconds(1)),
        ]
        for (suffix, unit) in units where text.hasSuffix(suffix) {
            guard let count = Int(text.dropLast(suffix.count)), (1...60_000).contains(count) else {
                break
            }
            let interval = unit * count
            if interval >= .milliseconds(200), interval <= .seconds(60) { return interval }
            break
        }
        throw UsageError(
            "'--interval' takes a time from 200ms to 60s, such as 1s, not '\(text)'",
            command: ["tenant", "top"])
    }

    private static func local(_ configuration: PlatformConfiguration) -> String {
        let server = configuration.server
        let isWildcard = ["0.0.0.0", "::"].contains(server.bindAddress)
        let host = isWildcard ? "127.0.0.1" : server.bindAddress
        return "http://\(host.contains(":") ? "[\(host)]" : host):\(server.opsPort)"
    }

    @LoopActor
    private static func makeClient(_ clocks: Clocks) -> HTTPClient {
        var configuration = HTTPClientConfiguration(.trusted)
        configuration.retry = .never
        configuration.breaker = nil
        return HTTPClient(configuration, clocks: clocks)
    }

    @LoopActor
    private static func look(
        _ servers: [String], _ client: HTTPClient, _ clocks: Clocks
    ) async throws -> [UseLook] {
        var looks: [UseLook] = []
        for server in servers {
            let request = OutboundRequest(
                OutboundTarget("operator"), .get, "\(server)/tenants/use",
                responseBytesMax: answerBytesMax)
            let response: OutboundResponse
            do throws(HTTPClientError) {
                response = try await client.send(
                    request, deadline: .after(patience, from: clocks.monotonic()))
            } catch {
                throw ControlError(
                    .failed, code: "server-unreachable",
                    "the operator listener at \(server) did not answer: \(error)",
                    remedy:
                        "Is the server running? Name its operator listener with --server URL.")
            }
            guard response.status == .ok, let look = UseLook(response.body) else {
                throw ControlError(
                    .failed, code: "server-answer",
                    "what answers at \(server)/tenants/use is no operator listener of this release",
                    remedy: "Name the operator listener (server.opsPort) with --server URL.")
            }
            looks.append(look)
        }
        return looks
    }
}
