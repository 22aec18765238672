import HCCore

/// Why there is no answer. Codes are stable: logs, metrics and callers go by them.
package enum HTTPClientError: Error, Sendable, Equatable, CustomStringConvertible {
    package enum Stage: String, Sendable, CaseIterable {
        /// For a place among the transfers that may run at a time.
        case queue
        case resolving
        /// TCP and TLS.
        case connecting
        /// Between sending and the end of the answer's head.
        case answer
        case content
        /// Between two attempts.
        case retry
    }

    package enum Part: String, Sendable {
        case head
        case content
    }

    package enum RedirectRefusal: Sendable, Equatable {
        case tooMany
        /// From https to http.
        case downgrade
        case location(OutboundURL.Refusal)
    }

    case invalidURL(OutboundURL.Refusal)
    /// A field that the client itself has to write.
    case invalidHeader(String)
    case refusedAddress(GuardRules.Refusal)
    case resolve
    /// No connection: refused, unreachable, or not made within the connect timeout.
    case connect
    /// No handshake, or a certificate that is not to be trusted; in curl's words.
    case tls(String)
    /// The deadline passed.
    case timeout(Stage)
    case tooLarge(Part)
    /// The connection broke after the request, or a part of it, was sent.
    case disconnected
    case cancelled
    /// What came is no acceptable answer; in curl's words or ours.
    case malformed(String)
    /// Too many transfers under way and waiting.
    case overloaded
    /// The origin failed again and again, and is left alone for a while.
    case circuitOpen(retryAfter: Duration)
    case redirect(RedirectRefusal)
    /// The request's content could not be made, or was not as long as announced.
    case contentFailed

    package var code: String {
        switch self {
        case .invalidURL: "invalid-url"
        case .invalidHeader: "invalid-header"
        case .refusedAddress: "refused-address"
        case .resolve: "resolve"
        case .connect: "connect"
        case .tls: "tls"
        case .timeout: "timeout"
        case .tooLarge: "too-large"
        case .disconnected: "disconnected"
        case .cancelled: "cancelled"
        case .malformed: "protocol"
        case .overloaded: "overloaded"
        case .circuitOpen: "circuit-open"
        case .redirect: "redirect"
        case .contentFailed: "content"
        }
    }

    static let codes = [
        "invalid-url", "invalid-header", "refused-address", "resolve", "connect", "tls", "timeout",
        "too-large", "disconnected", "cancelled", "protocol", "overloaded", "circuit-open",
        "redirect", "content",
    ]

    /// False if the server cannot have seen any of the request: then it is safe to make it again elsewhere.
    package var mayHaveBeenSent: Bool {
        switch self {
        case .invalidURL, .invalidHeader, .refusedAddress, .resolve, .connect, .tls, .overloaded,
            .circuitOpen:
            false
        case .timeout(let stage): stage == .answer || stage == .content || stage == .retry
        case .tooLarge, .disconnected, .cancelled, .malformed, .redirect, .contentFailed: true
        }
    }

    package var description: String {
        switch self {
        case .invalidURL(let reason): "\(code): \(reason.rawValue)"
        case .invalidHeader(let name): "\(code): \(name)"
        case .refusedAddress(let reason): "\(code): \(reason.code)"
        case .tls(let words), .malformed(let words): "\(code): \(words)"
        case .timeout(let stage): "\(code): \(stage.rawValue)"
        case .tooLarge(let part): "\(code): \(part.rawValue)"
        case .redirect(.tooMany): "\(code): too-many"
        case .redirect(.downgrade): "\(code): downgrade"
        case .redirect(.location(let reason)): "\(code): \(reason.rawValue)"
        case .circuitOpen(let wait): "\(code): for \(wait.inMilliseconds) ms"
        case .resolve, .connect, .disconnected, .cancelled, .overloaded, .contentFailed: code
        }
    }
}
