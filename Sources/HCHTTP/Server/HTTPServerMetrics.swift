package import HCCore
import HCIO

/// What a server counts. Labels come from our own enums, never from a request.
package final class HTTPServerMetrics: Sendable {
    package enum Timeout: String, Sendable, CaseIterable {
        case keepAlive = "keep-alive"
        case head
        case request
        case body
        case write
        case linger
        /// A client that takes its answers too slowly.
        case answer
    }

    /// What a connection speaks.
    package enum WireProtocol: String, Sendable, CaseIterable {
        case http1
        case http2
    }

    /// By listener, then by protocol.
    private let connections: [[Counter]]
    private let openConnections: [[Gauge]]
    private let refusedConnections: [ConnectionGate.Refusal: Counter]
    private let evictedConnections: [EvictionSweep.Kind: Counter]
    /// Bytes of HTTP: what TLS adds is not in them.
    let receivedBytes: Counter
    let sentBytes: Counter
    package let requests: Counter
    /// By status code less 100; the codes that have no name here share the last.
    private let responses: [Counter]
    private let refusals: [HTTP1Error: Counter]
    private let forwardedRefusals: [ForwardedError: Counter]
    private let timeouts: [Timeout: Counter]
    /// Answers that came after the client had been told 503 or 408, or had gone.
    package let lateAnswers: Counter
    package let http2: HTTP2Metrics

    package init(_ registry: MetricsRegistry) {
        http2 = HTTP2Metrics(registry)
        func labels(
            _ listener: HTTPListenerName, _ wireProtocol: WireProtocol
        ) -> [(StaticString, String)] {
            [("listener", listener.rawValue), ("protocol", wireProtocol.rawValue)]
        }
        connections = HTTPListenerName.allCases.map { listener in
            WireProtocol.allCases.map { wireProtocol in
                registry.counter(
                    "hc_http_connections_total", "Connections that began to speak HTTP.",
                    labels: labels(listener, wireProtocol))
            }
        }
        openConnections = HTTPListenerName.allCases.map { listener in
            WireProtocol.allCases.map { wireProtocol in
                registry.gauge(
                    "hc_http_connections_open", "Connections that speak HTTP now.",
                    labels: labels(listener, wireProtocol))
            }
        }
        refusedConnections = HTTPServerMetrics.family(ConnectionGate.Refusal.self) {
            registry.counter(
                "hc_http_connections_refused_total",
                "Connections that were reset or closed before anything was served.",
                labels: [("reason", $0.rawValue)])
        }
        evictedConnections = HTTPServerMetrics.family(EvictionSweep.Kind.self) {
            registry.counter(
                "hc_http_connections_evicted_total",
                "Connections without a request that were closed to make room for others.",
                labels: [("state", $0.rawValue)])
        }
        receivedBytes = registry.counter(
            "hc_http_received_bytes_total", "Bytes of HTTP that came from clients.")
        sentBytes = registry.counter(
            "hc_http_sent_bytes_total", "Bytes of HTTP that clients were sent.")
        requests = registry.counter("hc_http_requests_total", "Requests begun.")
        lateAnswers = registry.counter(
            "hc_http_late_answers_total", "Answers that nobody waited for any more.")
        let other = registry.counter(
            "hc_http_responses_total", HTTPServerMetrics.responsesHelp,
            labels: [("status", "other")])
        responses = (100...599).map { code in
            guard HTTPStatus(code).isNamed else { return other }
            return registry.counter(
                "hc_http_responses_total", HTTPServerMetrics.responsesHelp,
                labels: [("status", String(code))])
        }
        refusals = HTTPServerMetrics.family(HTTP1Error.self) {
            registry.counter(
                "hc_http_refusals_total", HTTPServerMetrics.refusalsHelp,
                labels: [("reason", $0.rawValue)])
        }
        forwardedRefusals = HTTPServerMetrics.family(ForwardedError.self) {
            registry.counter(
                "hc_http_refusals_total", HTTPServerMetrics.refusalsHelp,
                labels: [("reason", $0.rawValue)])
        }
        timeouts = HTTPServerMetrics.family(Timeout.self) {
            registry.counter(
                "hc_http_timeouts_total", "Waits for a client or a handler that ended.",
                labels: [("wait", $0.rawValue)])
        }
    }

    private static let responsesHelp: StaticString = "Answers by status."
    private static let refusalsHelp: StaticString = "Input that was no acceptable request."

    private static func family<Label: CaseIterable & Hashable>(
        _ labels: Label.Type, _ make: (Label) -> Counter
    ) -> [Label: Counter] {
        Dictionary(uniqueKeysWithValues: labels.allCases.map { ($0, make($0)) })
    }

    // MARK: Connections

    /// A connection begins to speak HTTP, or goes on in another version of it.
    @LoopActor
    func opened(_ pass: ConnectionPass, _ wireProtocol: WireProtocol) {
        closed(pass)
        pass.wireProtocol = wireProtocol
        connections[pass.listener.index][wireProtocol.index].increment()
        openConnections[pass.listener.index][wireProtocol.index].add(1)
    }

    @LoopActor
    func closed(_ pass: ConnectionPass) {
        guard let wireProtocol = pass.wireProtocol else { return }
        pass.wireProtocol = nil
        openConnections[pass.listener.index][wireProtocol.index].add(-1)
    }

    func refused(_ reason: ConnectionGate.Refusal) {
        refusedConnections[reason]?.increment()
    }

    func evicted(_ kind: EvictionSweep.Kind) {
        evictedConnections[kind]?.increment()
    }

    // MARK: Requests

    func responded(_ status: HTTPStatus) {
        responses[status.code - 100].increment()
    }

    func refused(_ reason: HTTP1Error) {
        refusals[reason]?.increment()
    }

    func refused(_ reason: ForwardedError) {
        forwardedRefusals[reason]?.increment()
    }

    func timedOut(_ kind: Timeout) {
        timeouts[kind]?.increment()
    }

    /// Connections that began to speak HTTP, by whatever door and protocol.
    package var connectionsCount: UInt64 {
        connections.joined().reduce(0) { $0 + $1.value }
    }

    package func refusals(_ reason: HTTP1Error) -> UInt64 { refusals[reason]?.value ?? 0 }
    package func refusals(_ reason: ForwardedError) -> UInt64 {
        forwardedRefusals[reason]?.value ?? 0
    }
    package func refusals(_ reason: ConnectionGate.Refusal) -> UInt64 {
        refusedConnections[reason]?.value ?? 0
    }
    func evictions(_ kind: EvictionSweep.Kind) -> UInt64 { evictedConnections[kind]?.value ?? 0 }
    package func timeouts(_ kind: Timeout) -> UInt64 { timeouts[kind]?.value ?? 0 }
}

extension HTTPListenerName {
    fileprivate var index: Int { self == .plain ? 0 : 1 }
}

extension HTTPServerMetrics.WireProtocol {
    fileprivate var index: Int { self == .http1 ? 0 : 1 }
}
