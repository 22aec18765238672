import HCCore
import HCHTTP
import HCIO

/// What conformance clients talk to, on any host, over every protocol that the server speaks. There only where
/// `HC_CONFORMANCE` says so, and never in production: elsewhere these are paths like any other that is not there.
@LoopActor
struct Conformance {
    /// The largest case of the known WebSocket clients is 16 MiB.
    static let messageBytesMax = 32 << 20

    let sockets: WebSocketEndpoint

    init(metrics: WebSocketMetrics, clocks: Clocks) {
        var configuration = WebSocketConfiguration()
        configuration.limits = WebSocketLimits(messageBytesMax: Conformance.messageBytesMax)
        // Everything that can be negotiated, and every message through it.
        var deflate = WebSocketDeflateConfiguration()
        deflate.keepsContext = true
        deflate.messageBytesMin = 0
        deflate.messageBytesMax = Conformance.messageBytesMax
        configuration.deflate = deflate
        sockets = WebSocketEndpoint(configuration, metrics: metrics, clocks: clocks)
    }
}

extension Routes {
    static func addConformance(to table: inout RouteTable, _ conformance: Conformance) {
        for method in HTTPMethod.allCases where method != .head {
            table.addPlatform(
                method, "/_conformance/echo",
                "conformanceEcho" + method.name.prefix(1) + method.name.dropFirst().lowercased(),
                bodyBytesMax: ConformanceEcho.bodyBytesMax, "What was sent, as it was understood."
            ) { try await ConformanceEcho.answer($0) }
        }
        table.addPlatform(
            .get, "/_conformance/ws", "conformanceWebSocket",
            "A WebSocket that sends back what it is sent."
        ) { request in
            try conformance.sockets.accept(request) { socket in
                while let message = try await socket.receive() { try await socket.send(message) }
            }
        }
    }
}
