package import HCCore

/// What compression does, in both directions.
package final class CompressionMetrics: Sendable {
    private let answers: [Counter]
    private let bytesIn: Counter
    private let bytesOut: Counter
    let streamsRefused: Counter
    private let bodies: Counter
    private let refusals: [ContentDecodingError: Counter]
    private let unknownCodings: Counter

    package init(_ registry: MetricsRegistry) {
        answers = ContentCoding.allCases.map { coding in
            registry.counter(
                "hc_http_compressed_total", "Answers that were compressed, but for streams.",
                labels: [("coding", coding.name.description)])
        }
        bytesIn = registry.counter(
            "hc_http_compressed_bytes_in_total", "Bytes of answers before they were compressed.")
        bytesOut = registry.counter(
            "hc_http_compressed_bytes_out_total", "Bytes of answers after they were compressed.")
        streamsRefused = registry.counter(
            "hc_http_compressed_streams_refused_total",
            "Streams sent as they are because too many were being compressed.")
        bodies = registry.counter(
            "hc_http_request_bodies_compressed_total", "Requests with compressed content.")
        refusals = Dictionary(
            uniqueKeysWithValues: ContentDecodingError.allCases.map { reason in
                let counter = registry.counter(
                    "hc_http_request_bodies_refused_total",
                    "Compressed content of requests that was refused.",
                    labels: [("reason", reason.rawValue)])
                return (reason, counter)
            })
        unknownCodings = registry.counter(
            "hc_http_request_bodies_refused_total",
            "Compressed content of requests that was refused.",
            labels: [("reason", "unknown-coding")])
    }

    func compressed(_ coding: ContentCoding, from before: Int, to after: Int) {
        answers[Int(coding.rawValue)].increment()
        bytesIn.increment(by: before)
        bytesOut.increment(by: after)
    }

    func received() { bodies.increment() }
    func refused(_ reason: ContentDecodingError) { refusals[reason]?.increment() }
    func refusedUnknownCoding() { unknownCodings.increment() }

    package func refusals(_ reason: ContentDecodingError) -> UInt64 {
        refusals[reason]?.value ?? 0
    }

    package func compressed(_ coding: ContentCoding) -> UInt64 {
        answers[Int(coding.rawValue)].value
    }
}
