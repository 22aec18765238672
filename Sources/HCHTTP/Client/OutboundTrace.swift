import HCCore
import HCCrypto

/// The trace that requests to others continue (W3C Trace Context): the caller's, under a span of our own for each
/// attempt.
package struct OutboundTrace: Sendable, Hashable {
    package let context: TraceContext
    /// The vendors' own entries, passed on as they came.
    package let state: String?

    /// Longer ones may be dropped (Trace Context 3.3.1.5 asks to keep 512).
    static let stateBytesMax = 512

    package init(_ context: TraceContext, state: String? = nil) {
        self.context = context
        self.state = state.flatMap { $0.isEmpty || $0.utf8.count > Self.stateBytesMax ? nil : $0 }
    }

    /// The trace of a request that we serve, nil if it has none.
    package init?(continuing request: HTTPRequest) {
        guard let context = request.traceContext else { return nil }
        self.init(context, state: request.headers.values(.tracestate).joined(separator: ","))
    }

    /// The same trace with a new span as the parent of what follows.
    func traceparent(using random: inout some RandomNumberGenerator) -> String {
        var span = random.next()
        while span == 0 { span = random.next() }
        let digits = Hex.encode(withUnsafeBytes(of: span.bigEndian) { Array($0) })
        return "00-\(context.traceID)-\(digits)-\(context.isSampled ? "01" : "00")"
    }
}
