package import HCCore

/// What the WebSockets of a worker count. Labels come from our own enums, never from a peer.
package final class WebSocketMetrics: Sendable {
    package let opened: Counter
    package let open: Gauge
    package let messagesReceived: Counter
    package let messagesSent: Counter
    package let bytesReceived: Counter
    package let bytesSent: Counter
    package let pings: Counter
    private let endings: [WebSocketEnding.Kind: Counter]
    private let violations: [WebSocketError: Counter]
    private let refusals: [WebSocketHandshake.Refusal: Counter]

    package init(_ registry: MetricsRegistry) {
        opened = registry.counter("hc_websocket_opened_total", "WebSockets opened.")
        open = registry.gauge("hc_websocket_open", "WebSockets open now.")
        messagesReceived = registry.counter(
            "hc_websocket_messages_total", "Whole messages.", labels: [("direction", "received")])
        messagesSent = registry.counter(
            "hc_websocket_messages_total", "Whole messages.", labels: [("direction", "sent")])
        bytesReceived = registry.counter(
            "hc_websocket_bytes_total", "Bytes of frames.", labels: [("direction", "received")])
        bytesSent = registry.counter(
            "hc_websocket_bytes_total", "Bytes of frames.", labels: [("direction", "sent")])
        pings = registry.counter("hc_websocket_pings_total", "Pings sent to silent peers.")
        endings = Dictionary(
            uniqueKeysWithValues: WebSocketEnding.Kind.allCases.map { kind in
                let counter = registry.counter(
                    "hc_websocket_ended_total", "WebSockets by how they ended.",
                    labels: [("reason", kind.rawValue)])
                return (kind, counter)
            })
        violations = Dictionary(
            uniqueKeysWithValues: WebSocketError.allCases.map { error in
                let counter = registry.counter(
                    "hc_websocket_violations_total", "What peers did against the protocol.",
                    labels: [("reason", error.rawValue)])
                return (error, counter)
            })
        refusals = Dictionary(
            uniqueKeysWithValues: WebSocketHandshake.Refusal.allCases.map { refusal in
                let counter = registry.counter(
                    "hc_websocket_refusals_total", "Handshakes that were refused.",
                    labels: [("reason", refusal.rawValue)])
                return (refusal, counter)
            })
    }

    func ended(_ kind: WebSocketEnding.Kind) { endings[kind]?.increment() }
    func violated(_ error: WebSocketError) { violations[error]?.increment() }
    func refused(_ refusal: WebSocketHandshake.Refusal) { refusals[refusal]?.increment() }

    package func endings(_ kind: WebSocketEnding.Kind) -> UInt64 { endings[kind]?.value ?? 0 }
    package func violations(_ error: WebSocketError) -> UInt64 { violations[error]?.value ?? 0 }
    package func refusals(_ refusal: WebSocketHandshake.Refusal) -> UInt64 {
        refusals[refusal]?.value ?? 0
    }
}
