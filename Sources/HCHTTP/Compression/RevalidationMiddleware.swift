package import HCIO

/// Answers 304 in place of a document that the client holds already (RFC 9110 13.1.2, 15.4.5): of any GET whose 200 has
/// an entity tag that `If-None-Match` lists.
///
/// The handler has run: what the client may see was decided, and its access recorded. What is saved is the content
/// and its compression, so this is the stage inside `CompressionMiddleware`, which gives the tag of the coded form.
@LoopActor
package final class RevalidationMiddleware<Context: RequestState>: Middleware {
    package init() {}

    package nonisolated func applies(to route: RouteDescription?) -> Bool {
        route?.method == .get
    }

    package func leave(
        _ request: HTTPRequest, _ context: Context, _ response: inout HTTPResponse
    ) -> StageExit {
        guard request.headers.contains(.ifNoneMatch), response.status == .ok,
            let tag = response.headers[.etag]
        else { return .done }
        let held = request.headers.values(.ifNoneMatch).joined(separator: ", ")
        guard EntityTags.isListed(tag, in: EntityTags.uncoded(held)) else { return .done }
        response.status = .notModified
        response.body = .none
        response.headers.remove(.contentType)
        return .done
    }
}
