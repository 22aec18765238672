import HCControl
import HCCore
import HCHTTP
import HCIO

/// Reads the metrics of the servers that a run of migrations is to leave healthy.
@LoopActor
final class HealthProbe {
    nonisolated static let options: [CommandSpecification.Option] = [
        .values(
            "health", "URL",
            "The metrics of a server, such as http://10.0.0.5:9464/metrics; may be given again. Between two waves they must be within:"
        ),
        .value(
            "health-errors", "PERCENT", "Answers with a status of 500 and above; 1 if not said."),
        .value("health-p95", "TIME", "What 95 of 100 requests take; 500ms if not said."),
        .value("health-watch", "TIME", "For how long after a wave; 5s if not said."),
    ]

    private let urls: [String]
    private let clocks: Clocks
    private let client: HTTPClient
    private static let answerBytesMax = 16 << 20
    private static let patience = Duration.seconds(5)

    private init(_ urls: [String], _ clocks: Clocks) {
        self.urls = urls
        self.clocks = clocks
        var configuration = HTTPClientConfiguration(.trusted)
        configuration.retry = .never
        configuration.breaker = nil
        client = HTTPClient(configuration, clocks: clocks)
    }

    /// - Returns: nil if no server is named.
    static func make(
        _ invocation: Invocation, _ clocks: Clocks
    ) throws(UsageError) -> WaveRunner.Health? {
        var bounds = HealthBounds()
        bounds.failurePercentMax =
            try invocation.integer("health-errors", in: 0...100) ?? bounds.failurePercentMax
        bounds.p95Max =
            try invocation.duration("health-p95", in: .milliseconds(1) ... .seconds(60))
            ?? bounds.p95Max
        bounds.watch =
            try invocation.duration("health-watch", in: .milliseconds(100) ... .seconds(3600))
            ?? bounds.watch
        let urls = invocation.values("health")
        guard !urls.isEmpty else {
            for name in ["health-errors", "health-p95", "health-watch"]
            where invocation.option(name) != nil {
                throw UsageError("'--\(name)' needs '--health'", invocation.specification)
            }
            return nil
        }
        let probe = HealthProbe(urls, clocks)
        return WaveRunner.Health(bounds: bounds) { try await probe.look() }
    }

    private func look() async throws -> ServerHealth {
        var all = ServerHealth()
        for url in urls {
            let request = OutboundRequest(
                OutboundTarget("operator"), .get, url,
                responseBytesMax: HealthProbe.answerBytesMax)
            let response: OutboundResponse
            do throws(HTTPClientError) {
                response = try await client.send(
                    request, deadline: .after(HealthProbe.patience, from: clocks.monotonic()))
            } catch {
                throw ControlError(
                    .failed, code: "health-unknown", "\(url) did not answer: \(error)",
                    remedy: "Name the metrics of a server that runs with --health URL.")
            }
            guard response.status == .ok,
                let health = ServerHealth(metrics: String(decoding: response.body, as: UTF8.self))
            else {
                throw ControlError(
                    .failed, code: "health-unknown",
                    "what answers at \(url) are no metrics of a server of this release",
                    remedy: "Name the operator listener (server.opsPort), with /metrics.")
            }
            all = all + health
        }
        return all
    }
}
