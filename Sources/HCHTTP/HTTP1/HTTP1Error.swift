/// Why bytes are not an acceptable HTTP/1 message. The raw value is the label of the refusal's counter.
package enum HTTP1Error: String, Error, Sendable, CaseIterable {
    case malformedRequestLine = "malformed-request-line"
    case unknownMethod = "unknown-method"
    case unsupportedVersion = "unsupported-version"
    /// The preface of HTTP/2 (RFC 9113 3.4): the place where a connection will change its protocol.
    case http2Preface = "http2-preface"
    case requestLineTooLong = "request-line-too-long"
    case pathSegmentTooLong = "path-segment-too-long"
    case invalidTarget = "invalid-target"
    case invalidPercentCoding = "invalid-percent-coding"
    case dotSegment = "dot-segment"
    case invalidLineEnd = "invalid-line-end"
    case lineFolding = "line-folding"
    case invalidFieldName = "invalid-field-name"
    case invalidFieldValue = "invalid-field-value"
    case headersTooLarge = "headers-too-large"
    case tooManyHeaders = "too-many-headers"
    case missingHost = "missing-host"
    case repeatedHost = "repeated-host"
    case invalidHost = "invalid-host"
    case lengthWithTransferCoding = "length-with-transfer-coding"
    case invalidContentLength = "invalid-content-length"
    case repeatedContentLength = "repeated-content-length"
    case invalidTransferCoding = "invalid-transfer-coding"
    case unknownTransferCoding = "unknown-transfer-coding"
    case unknownExpectation = "unknown-expectation"
    case contentTooLarge = "content-too-large"
    case invalidChunk = "invalid-chunk"
    case chunkOverhead = "chunk-overhead"
    case invalidTrailer = "invalid-trailer"
    case trailersTooLarge = "trailers-too-large"
    /// The client went away before the end of its content.
    case incompleteContent = "incomplete-content"

    package var status: HTTPStatus {
        switch self {
        case .unknownMethod, .unknownTransferCoding: .notImplemented
        case .unsupportedVersion, .http2Preface: .versionNotSupported
        case .requestLineTooLong, .pathSegmentTooLong: .uriTooLong
        case .headersTooLarge, .tooManyHeaders, .trailersTooLarge: .headerFieldsTooLarge
        case .unknownExpectation: .expectationFailed
        case .contentTooLarge: .contentTooLarge
        default: .badRequest
        }
    }

    package var problem: Problem {
        Problem(status, code: rawValue, title: status.reason.description)
    }
}
