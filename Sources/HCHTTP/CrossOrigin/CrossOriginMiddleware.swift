package import HCCore
package import HCIO

/// What pages of other origins may do with an answer.
package struct CrossOriginPolicy: Sendable {
    /// Exact origins, in the form of `WebOrigin.text`.
    package let origins: [String]

    package init(origins: [String]) {
        self.origins = origins
    }
}

/// Cross-origin resource sharing (Fetch 3.2), strict: an origin is on a list of exact origins or gets nothing.
///
/// - An allowed origin gets `Access-Control-Allow-Origin` with its own name on every answer, errors included, so
///   that its page can read why it was refused. There is no `*` and no `null`, and credentials are never allowed:
///   tokens come in `Authorization`, cookies are not used.
/// - A preflight of an allowed origin is answered by the route table: the methods of that path.
/// - A preflight of any other origin is 403 `origin-not-allowed`, whatever the path, and the same for a host that
///   does not exist: it tells nothing.
/// - Any other request of an origin that is not allowed is served as if it had none, without fields of this kind: its
///   browser keeps the answer from the page. It would be no protection to refuse it: who is no browser sends no
///   `Origin`.
/// - `Vary: Origin` stands on every answer of a host with a list.
@LoopActor
package final class CrossOriginMiddleware<Context: RequestState>: Middleware {
    /// - Returns: the policy of the request's host; nil for a host that has none or does not exist. For a request
    ///   with an `Origin` it is asked before anything else is known of it, for others when they are answered.
    private let policy: @LoopActor (HTTPRequest, Context) -> CrossOriginPolicy?
    private let fields: CrossOriginFields
    private let preflightsRefused: Counter

    package init(
        registry: MetricsRegistry, fields: CrossOriginFields = CrossOriginFields(),
        policy: @escaping @LoopActor (HTTPRequest, Context) -> CrossOriginPolicy?
    ) {
        self.fields = fields
        self.policy = policy
        preflightsRefused = registry.counter(
            "hc_http_preflights_refused_total",
            "Preflights of origins that the clinic does not allow.")
    }

    package func enter(_ request: HTTPRequest, _ context: Context) throws -> StageEntry {
        guard request.headers.contains(.origin), CrossOriginMiddleware.isPreflight(request),
            allowedOrigin(request, policy(request, context)) == nil
        else { return .next }
        preflightsRefused.increment()
        var refusal = Problem.originNotAllowed.response(for: request.id)
        refusal.headers.add("Origin", to: .vary)
        return .answer(refusal)
    }

    package func leave(
        _ request: HTTPRequest, _ context: Context, _ response: inout HTTPResponse
    ) -> StageExit {
        // Whose clinic it is may be known only now.
        let policy = policy(request, context)
        guard request.headers.contains(.origin), let origin = allowedOrigin(request, policy) else {
            if let policy, !policy.origins.isEmpty { response.headers.add("Origin", to: .vary) }
            return .done
        }
        response.headers.add("Origin", to: .vary)
        response.headers.set(.accessControlAllowOrigin, origin)
        guard CrossOriginMiddleware.isPreflight(request) else {
            response.headers.append(.accessControlExposeHeaders, fields.exposedText)
            return .done
        }
        // The route table answers OPTIONS with the path's methods; a path that is none stays 404.
        if let methods = response.headers[.allow], response.status == .noContent {
            response.headers.append(.accessControlAllowMethods, methods)
            response.headers.append(.accessControlAllowHeaders, fields.allowedText)
            response.headers.append(.accessControlMaxAge, fields.maxAgeText)
        }
        return .done
    }

    private static func isPreflight(_ request: HTTPRequest) -> Bool {
        request.method == .options && request.headers.contains(.accessControlRequestMethod)
    }

    /// The request's origin if it is on the list, letter by letter. Two fields are none.
    private func allowedOrigin(_ request: HTTPRequest, _ policy: CrossOriginPolicy?) -> String? {
        guard let policy, request.headers.count(of: .origin) == 1,
            let field = request.headers[.origin], policy.origins.contains(field),
            let origin = WebOrigin(field: field)
        else { return nil }
        return origin.text
    }
}

/// What a page may send and see beyond what every page may (Fetch 2.2.2).
package struct CrossOriginFields: Sendable {
    package var allowed: [HTTPFieldName] = [
        .accept, .acceptLanguage, .authorization, .contentEncoding, .contentType, .hcReadAfter,
        .idempotencyKey, .ifMatch, .ifNoneMatch, .traceparent, .tracestate, .xRequestId,
    ]
    package var exposed: [HTTPFieldName] = [
        .contentDisposition, .etag, .hcReadAfter, "Idempotency-Replayed", .link, .location,
        .rateLimit,
        .rateLimitPolicy, .retryAfter, .wwwAuthenticate, .xRequestId,
    ]
    /// How long a browser may go by a preflight's answer. A list that has become shorter is felt at once all the
    /// same: the answers themselves lack their field then.
    package var maxAge = Duration.seconds(600)

    package init() {}

    fileprivate var allowedText: String { allowed.map(\.text).joined(separator: ", ") }
    fileprivate var exposedText: String { exposed.map(\.text).joined(separator: ", ") }
    fileprivate var maxAgeText: String { "\(maxAge.components.seconds)" }
}

extension Problem {
    package static let originNotAllowed = Problem(
        .forbidden, code: "origin-not-allowed", title: "Forbidden",
        detail: "Pages of this origin may not use this host.")
}

extension HTTPFieldName {
    static let accessControlRequestMethod: HTTPFieldName = "Access-Control-Request-Method"
    static let accessControlAllowMethods: HTTPFieldName = "Access-Control-Allow-Methods"
    static let accessControlAllowHeaders: HTTPFieldName = "Access-Control-Allow-Headers"
    static let accessControlExposeHeaders: HTTPFieldName = "Access-Control-Expose-Headers"
    static let accessControlMaxAge: HTTPFieldName = "Access-Control-Max-Age"
}
