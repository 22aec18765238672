package import HCIO

/// Lets requests come with `Content-Encoding: gzip` (RFC 9110 8.4): whoever reads their content gets it decoded, and
/// every bound on it is a bound on the decoded bytes. Nothing is decoded that nobody reads.
///
/// Other codings are 415, which names the one that is understood (RFC 9110 15.5.16). To be the innermost stage:
/// what the content is coded in is nobody's business before it is known who asks.
@LoopActor
package final class RequestDecodingMiddleware<Context: RequestState>: Middleware {
    private let limits: ContentDecodingLimits
    private let metrics: CompressionMetrics

    package init(
        _ limits: ContentDecodingLimits = ContentDecodingLimits(), metrics: CompressionMetrics
    ) {
        self.limits = limits
        self.metrics = metrics
    }

    package nonisolated func applies(to route: RouteDescription?) -> Bool {
        route.map { $0.bodyBytesMax > 0 } ?? false
    }

    package func enter(_ request: HTTPRequest, _ context: Context) throws -> StageEntry {
        if request.headers.contains(.contentEncoding), request.body.announcedCount != 0 {
            try prepare(request)
        }
        return .next
    }

    private func prepare(_ request: HTTPRequest) throws(Problem) {
        var codings = 0
        var isKnown = true
        request.headers.forEachValue(.contentEncoding) { line in
            line.forEachListElement { name in
                // RFC 9110 8.4.1: "identity" should not be there, and says nothing if it is.
                guard !name.isEmpty, !name.isEqualIgnoringCase(to: "identity") else { return }
                codings += 1
                if ContentCoding(name) != .gzip { isKnown = false }
            }
        }
        guard codings > 0 else { return }
        // One layer: content that is compressed twice is a bomb or a mistake.
        guard isKnown, codings == 1 else {
            metrics.refusedUnknownCoding()
            throw Problem(
                .unsupportedMediaType, code: "unsupported-content-coding",
                title: "Unsupported Media Type",
                detail: "Send the content as it is, or in gzip.",
                headers: HTTPHeaders([(.acceptEncoding, "gzip")]))
        }
        metrics.received()
        request.body.decode(with: limits, metrics: metrics)
    }
}
