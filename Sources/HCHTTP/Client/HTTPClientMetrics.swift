package import HCCore

/// What a client counts. Labels are its name, targets that the code names, and our own codes: never a host that a
/// tenant gave.
package final class HTTPClientMetrics: Sendable {
    let connectionsOpened: Counter
    let openConnections: Gauge
    let inFlight: Gauge
    let queued: Gauge
    private let registry: MetricsRegistry
    private let client: String

    /// - Parameter client: what the client is for, `storage`, `webhooks`.
    package init(_ registry: MetricsRegistry, client: StaticString) {
        self.registry = registry
        self.client = "\(client)"
        let labels: [(StaticString, String)] = [("client", "\(client)")]
        connectionsOpened = registry.counter(
            "hc_outbound_connections_opened_total", "Connections begun to others.", labels: labels)
        openConnections = registry.gauge(
            "hc_outbound_connections_open", "Connections to others open now, idle ones too.",
            labels: labels)
        inFlight = registry.gauge(
            "hc_outbound_in_flight", "Transfers under way.", labels: labels)
        queued = registry.gauge(
            "hc_outbound_queued", "Transfers waiting for their turn.", labels: labels)
    }

    /// The counters of one target: made once and kept by the client.
    func target(_ target: OutboundTarget) -> Target {
        Target(registry, [("client", client), ("target", target.name)])
    }

    struct Target: Sendable {
        let attempts: Counter
        let retriesGivenUp: [RetryPolicy.Reason: Counter]
        private let outcomes: [String: Counter]
        private let latency: Histogram

        init(_ registry: MetricsRegistry, _ labels: [(StaticString, String)]) {
            attempts = registry.counter(
                "hc_outbound_attempts_total", "Attempts, retries and redirects among them.",
                labels: labels)
            latency = registry.histogram(
                "hc_outbound_request_seconds", "From the request to the end of its answer.",
                labels: labels)
            let classes = (1...5).map { "\($0)xx" }
            outcomes = Dictionary(
                uniqueKeysWithValues: (classes + HTTPClientError.codes).map { outcome in
                    let counter = registry.counter(
                        "hc_outbound_requests_total", "Requests to others by how they ended.",
                        labels: labels + [("outcome", outcome)])
                    return (outcome, counter)
                })
            let reasons: [RetryPolicy.Reason] = [.notRepeatable, .attempts, .budget, .deadline]
            retriesGivenUp = Dictionary(
                uniqueKeysWithValues: reasons.map { reason in
                    let counter = registry.counter(
                        "hc_outbound_retries_given_up_total",
                        "Failures that were not tried again, by the reason.",
                        labels: labels + [("reason", reason.rawValue)])
                    return (reason, counter)
                })
        }

        func ended(_ status: HTTPStatus, after duration: Duration) {
            outcomes["\(status.code / 100)xx"]?.increment()
            latency.observe(duration)
        }

        func failed(_ error: HTTPClientError, after duration: Duration) {
            outcomes[error.code]?.increment()
            latency.observe(duration)
        }
    }
}

/// What a request is for: a name in our own source, by which it is counted.
package struct OutboundTarget: Sendable, Hashable {
    let name: String

    package init(_ name: StaticString) {
        self.name = "\(name)"
    }
}
