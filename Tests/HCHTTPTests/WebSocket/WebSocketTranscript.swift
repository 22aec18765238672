@testable import HCHTTP

/// What the decoder makes of bytes, in a form that does not depend on how they were cut.
struct WebSocketTranscript: Equatable, CustomStringConvertible {
    var events: [String] = []
    var error: WebSocketError?
    /// The most that had to be kept between two pieces.
    var keptBytesMax = 0

    var description: String { "\(events) \(error.map(\.rawValue) ?? "ok")" }

    static func == (left: WebSocketTranscript, right: WebSocketTranscript) -> Bool {
        left.events == right.events && left.error == right.error
    }

    init(_ events: [String], _ error: WebSocketError? = nil) {
        self.events = events
        self.error = error
    }

    init(
        _ bytes: [UInt8], pieceBytes: Int = .max, limits: WebSocketLimits = WebSocketLimits(),
        deflate: WebSocketDeflateAgreement? = nil
    ) {
        var decoder = WebSocketDecoder(
            from: .client, limits: limits, deflate: deflate,
            pool: deflate.map { _ in WebSocketDeflatePool(WebSocketDeflateConfiguration()) })
        var kept: [UInt8] = []
        var start = 0
        while start < bytes.count {
            let end = pieceBytes < bytes.count - start ? start + pieceBytes : bytes.count
            kept.append(contentsOf: bytes[start..<end])
            start = end
            var consumed = 0
            let goesOn = kept.withUnsafeBytes { take(&decoder, $0, &consumed) }
            kept.removeFirst(consumed)
            guard goesOn else { return }
            keptBytesMax = max(keptBytesMax, kept.count)
        }
        if decoder.isInMessage { events.append("unfinished") }
    }

    private mutating func take(
        _ decoder: inout WebSocketDecoder, _ input: UnsafeRawBufferPointer, _ consumed: inout Int
    ) -> Bool {
        do throws(WebSocketError) {
            while true {
                switch try decoder.next(input, consumed: &consumed) {
                case .needMore: return true
                case .message(let message):
                    let shown =
                        message.count > 200 ? "\(message.count) bytes" : Self.text(message.bytes)
                    events.append("\(message.kind) \(shown)")
                case .ping(let content): events.append("ping \(Self.text(content))")
                case .pong(let content): events.append("pong \(Self.text(content))")
                case .close(let code, let reason):
                    events.append("close \(code?.number ?? 0) \(reason)")
                }
            }
        } catch {
            self.error = error
            return false
        }
    }

    private static func text(_ bytes: [UInt8]) -> String {
        String(validating: bytes, as: UTF8.self) ?? "\(bytes)"
    }
}
