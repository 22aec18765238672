package import HCCore

/// What a server counts. Labels come from our own enums, never from a request.
package final class HTTPServerMetrics: Sendable {
    package enum Timeout: String, Sendable, CaseIterable {
        case keepAlive = "keep-alive"
        case head
        case request
        case body
        case write
        case linger
    }

    package let connections: Counter
    package let openConnections: Gauge
    package let requests: Counter
    private let responses: [Counter]
    private let refusals: [HTTP1Error: Counter]
    private let timeouts: [Timeout: Counter]
    /// Answers that came after the client had been told 503 or 408, or had gone.
    package let lateAnswers: Counter

    package init(_ registry: MetricsRegistry) {
        connections = registry.counter(
            "hc_http_connections_total", "Connections accepted.")
        openConnections = registry.gauge(
            "hc_http_connections_open", "Connections open now.")
        requests = registry.counter("hc_http_requests_total", "Requests begun.")
        lateAnswers = registry.counter(
            "hc_http_late_answers_total", "Answers that nobody waited for any more.")
        responses = (1...5).map { digit in
            registry.counter(
                "hc_http_responses_total", "Answers by class of their status.",
                labels: [("class", "\(digit)xx")])
        }
        refusals = Dictionary(
            uniqueKeysWithValues: HTTP1Error.allCases.map { reason in
                let counter = registry.counter(
                    "hc_http_refusals_total", "Input that was no acceptable request.",
                    labels: [("reason", reason.rawValue)])
                return (reason, counter)
            })
        timeouts = Dictionary(
            uniqueKeysWithValues: Timeout.allCases.map { kind in
                let counter = registry.counter(
                    "hc_http_timeouts_total", "Waits for a client or a handler that ended.",
                    labels: [("wait", kind.rawValue)])
                return (kind, counter)
            })
    }

    func responded(_ status: HTTPStatus) {
        responses[status.code / 100 - 1].increment()
    }

    func refused(_ reason: HTTP1Error) {
        refusals[reason]?.increment()
    }

    func timedOut(_ kind: Timeout) {
        timeouts[kind]?.increment()
    }

    package func refusals(_ reason: HTTP1Error) -> UInt64 { refusals[reason]?.value ?? 0 }
    package func timeouts(_ kind: Timeout) -> UInt64 { timeouts[kind]?.value ?? 0 }
}
