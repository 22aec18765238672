import HCHTTP
import HCIO
import HCTenancy

/// Host to clinic, in memory. What is asked of an unknown host gets the 404 that an unknown id gets.
struct TenantMiddleware: Middleware {
    let door: TenantDoor

    func handle(
        _ request: HTTPRequest, _ context: RequestContext, next: NextHandler<RequestContext>
    ) async throws -> HTTPResponse {
        if let route = context.match.route, RouteClass(route) == .platform {
            return await next(request, context)
        }
        context.tenant = try door.context(host: request.host)
        return await next(request, context)
    }
}
