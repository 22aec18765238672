import HCHTTP
import HCIO
import HCTenancy

/// Host to clinic, in memory. What is asked of an unknown host gets the 404 that an unknown id gets.
struct TenantMiddleware: Middleware {
    let door: TenantDoor

    func enter(_ request: HTTPRequest, _ context: RequestContext) throws -> StageEntry {
        if let route = context.match.route, RouteClass(route) == .platform { return .next }
        context.tenant = try door.context(host: request.host)
        return .next
    }
}
