import HCClinic
import HCHTTP
import HCIO
import HCTenancy

/// Whoever has written finds it in what is read afterwards, also where a replica answers.
///
/// Within a session this needs nothing of the client. An answer to a write also carries `HC-Read-After`: sent along with
/// a request of another session, it makes that one find the write too.
struct ReadAfterMiddleware: Middleware {
    static let field: HTTPFieldName = "HC-Read-After"

    func handle(
        _ request: HTTPRequest, _ context: RequestContext, next: NextHandler<RequestContext>
    ) async throws -> HTTPResponse {
        guard let tenant = context.tenant, let actor = context.actor else {
            return await next(request, context)
        }
        // Several fields are one text that opens as no token: then the primary answers.
        let tokens = request.headers.values(ReadAfterMiddleware.field)
        let reading = tenant.reading(
            session: actor.sessionID, after: tokens.isEmpty ? nil : tokens.joined(separator: ","))
        context.tenant = reading
        var response = await next(request, context)
        if let token = await reading.finishReading(deadline: request.deadline) {
            response.headers.append(ReadAfterMiddleware.field, token)
        }
        return response
    }
}
