/// RFC 9113 7.
package enum HTTP2ErrorCode: UInt32, Sendable {
    case noError = 0
    case protocolError = 1
    case internalError = 2
    case flowControlError = 3
    case settingsTimeout = 4
    case streamClosed = 5
    case frameSizeError = 6
    case refusedStream = 7
    case cancel = 8
    case compressionError = 9
    case connectError = 10
    case enhanceYourCalm = 11
    case inadequateSecurity = 12
    case http11Required = 13
}

/// Why a connection was ended or a request reset by us. The raw value is the label of the counter.
package enum HTTP2Fault: String, Sendable, CaseIterable {
    // The connection is over: a rule was broken.
    case badPreface = "bad-preface"
    case protocolError = "protocol-error"
    case frameSize = "frame-size"
    case flowControl = "flow-control"
    case compression = "compression"
    case streamClosed = "stream-closed"
    case streamNumber = "stream-number"
    case internalError = "internal-error"

    // The connection is over: a budget is spent (ENHANCE_YOUR_CALM).
    case resetFlood = "reset-flood"
    case continuationFlood = "continuation-flood"
    case headerBlockTooLarge = "header-block-too-large"
    case headerBomb = "header-bomb"
    case settingsFlood = "settings-flood"
    case pingFlood = "ping-flood"
    case windowUpdateFlood = "window-update-flood"
    case priorityFlood = "priority-flood"
    case emptyFrameFlood = "empty-frame-flood"
    case unknownFrameFlood = "unknown-frame-flood"
    case slowHead = "slow-head"

    // One stream is over.
    case malformedRequest = "malformed-request"
    case contentLengthMismatch = "content-length-mismatch"
    case trailersTooLarge = "trailers-too-large"
    case tooManyStreams = "too-many-streams"
    case closedStream = "closed-stream"
    case streamFlowControl = "stream-flow-control"
    case writerFailed = "writer-failed"
    case answerTooLarge = "answer-too-large"

    package var code: HTTP2ErrorCode {
        switch self {
        case .badPreface, .protocolError, .streamNumber, .malformedRequest,
            .contentLengthMismatch:
            .protocolError
        case .frameSize: .frameSizeError
        case .flowControl, .streamFlowControl: .flowControlError
        case .compression: .compressionError
        case .streamClosed, .closedStream: .streamClosed
        case .internalError, .writerFailed, .answerTooLarge: .internalError
        case .resetFlood, .continuationFlood, .headerBlockTooLarge, .headerBomb, .settingsFlood,
            .pingFlood, .windowUpdateFlood, .priorityFlood, .emptyFrameFlood,
            .unknownFrameFlood, .slowHead, .trailersTooLarge:
            .enhanceYourCalm
        case .tooManyStreams: .refusedStream
        }
    }

    /// What a GOAWAY of the library itself was about.
    init(connectionError code: UInt32) {
        switch HTTP2ErrorCode(rawValue: code) {
        case .flowControlError: self = .flowControl
        case .frameSizeError: self = .frameSize
        case .compressionError: self = .compression
        case .streamClosed: self = .streamClosed
        case .enhanceYourCalm: self = .settingsFlood
        case .internalError: self = .internalError
        default: self = .protocolError
        }
    }
}
