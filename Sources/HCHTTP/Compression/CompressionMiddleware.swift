import HCCore
package import HCIO

/// Compresses the answers of routes that say so (`RouteDescription.mayCompress`).
///
/// The rule against BREACH: the length of a compressed answer tells which of its parts are alike. So a route may
/// compress only if its answers hold no secret beside text that whoever sent the request could choose; routes that
/// give out tokens, tickets, passwords or keys never do. The default of a route is not to, the default of a table
/// is not to, and an answer can still say no for itself (`HTTPResponse.mayCompress`). Patients' data are read
/// with a token in `Authorization`, which no foreign page can make a browser send.
///
/// For routes that do not compress this stage is left out of the chain; for small content and for requests without
/// `Accept-Encoding` it costs a few comparisons.
@LoopActor
package final class CompressionMiddleware<Context: RequestState>: Middleware {
    private let pool: EncoderPool
    private let metrics: CompressionMetrics

    package init(_ pool: EncoderPool, metrics: CompressionMetrics) {
        self.pool = pool
        self.metrics = metrics
    }

    package nonisolated func applies(to route: RouteDescription?) -> Bool {
        route?.mayCompress ?? false
    }

    package func leave(
        _ request: HTTPRequest, _ context: Context, _ response: inout HTTPResponse
    ) -> StageExit {
        .pending { await self.compressed($0, for: request) }
    }

    private func compressed(
        _ answer: HTTPResponse, for request: HTTPRequest
    ) async -> HTTPResponse {
        guard CompressionMiddleware.isEligible(answer) else {
            return CompressionMiddleware.revalidated(answer, for: request)
        }
        var response = answer
        let asked = request.headers.contains(.acceptEncoding)
        var accepted = AcceptEncoding()
        let count = response.body.count
        if let count, count < pool.configuration.bytesMin {
            // Worth it only for a client that can read nothing else.
            guard asked, count > 0 else { return response }
            accepted = AcceptEncoding(request.headers)
            guard accepted.refusesIdentity else { return response }
        } else if asked {
            accepted = AcceptEncoding(request.headers)
        }
        response.headers.add("Accept-Encoding", to: .vary)
        guard asked, let coding = accepted.choose() else { return response }
        if case .stream(let stream) = response.body {
            guard pool.hasRoomForStream else {
                metrics.streamsRefused.increment()
                return response
            }
            response.body = .stream(pool.encode(stream, coding))
            // Where a stream is cut into pieces is not the same each time.
            if let tag = response.headers[.etag], tag.hasPrefix("\"") {
                response.headers.set(.etag, "W/" + tag)
            }
        } else {
            guard let output = await pool.encode(response.body, coding) else { return response }
            metrics.compressed(coding, from: count ?? 0, to: output.readableCount)
            response.body = .buffer(output)
            if let tag = response.headers[.etag] {
                response.headers.set(.etag, EntityTags.coded(tag, coding))
            }
        }
        response.headers.append(.contentEncoding, coding.name)
        return response
    }

    /// Whether the answer has content of a kind that is compressed, and nothing forbids it: neither the answer
    /// itself, nor a coding or a range that it has already, nor `no-transform` (RFC 9111 5.2.2.6), nor a cookie,
    /// which is a secret.
    private static func isEligible(_ response: HTTPResponse) -> Bool {
        switch response.body {
        case .none, .tunnel: return false
        case .bytes, .buffer, .text, .stream: break
        }
        let headers = response.headers
        guard response.mayCompress, response.status.allowsContent, response.status.code != 206,
            !headers.contains(.contentEncoding), !headers.contains(.contentRange),
            !headers.contains(.setCookie), !headers.hasToken(.cacheControl, "no-transform")
        else { return false }
        return headers.withValue(.contentType) {
            CompressionConfiguration.isCompressible(mediaType: $0)
        } ?? false
    }

    /// A 304 carries the tag that a 200 would have had (RFC 9110 15.4.5): that of the coded form, if that is what
    /// the client holds and would get again.
    private static func revalidated(
        _ answer: HTTPResponse, for request: HTTPRequest
    ) -> HTTPResponse {
        guard answer.status == .notModified, let tag = answer.headers[.etag] else { return answer }
        var response = answer
        response.headers.add("Accept-Encoding", to: .vary)
        guard request.headers.contains(.acceptEncoding),
            let coding = AcceptEncoding(request.headers).choose()
        else { return response }
        let held = request.headers.values(.ifNoneMatch).joined(separator: ", ")
        let coded = EntityTags.coded(tag, coding)
        if coded != tag, EntityTags.isListed(coded, in: held), !EntityTags.isListed(tag, in: held) {
            response.headers.set(.etag, coded)
        }
        return response
    }
}
