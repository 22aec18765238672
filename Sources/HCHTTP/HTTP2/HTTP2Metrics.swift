package import HCCore

/// What HTTP/2 counts besides what all of HTTP counts.
package final class HTTP2Metrics: Sendable {
    package let openStreams: Gauge
    package let streams: Counter
    /// GOAWAY frames sent, the notice that comes first when a server drains included.
    package let goaways: Counter
    package let peerResets: Counter
    private let faults: [HTTP2Fault: Counter]

    package init(_ registry: MetricsRegistry) {
        openStreams = registry.gauge(
            "hc_http2_streams_open", "HTTP/2 requests and tunnels in progress now.")
        streams = registry.counter("hc_http2_streams_total", "HTTP/2 streams opened.")
        goaways = registry.counter("hc_http2_goaways_total", "GOAWAY frames sent.")
        peerResets = registry.counter(
            "hc_http2_peer_resets_total", "HTTP/2 streams that the client reset.")
        faults = Dictionary(
            uniqueKeysWithValues: HTTP2Fault.allCases.map { reason in
                let counter = registry.counter(
                    "hc_http2_faults_total",
                    "HTTP/2 connections ended and streams reset by us, by reason.",
                    labels: [("reason", reason.rawValue)])
                return (reason, counter)
            })
    }

    func found(_ fault: HTTP2Fault) {
        faults[fault]?.increment()
    }

    package func faults(_ reason: HTTP2Fault) -> UInt64 { faults[reason]?.value ?? 0 }
}
