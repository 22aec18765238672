import HCHTTP
import HCIO
import HCTenancy

/// Host to clinic, in memory. What is asked of an unknown host gets the 404 that an unknown id gets.
struct TenantMiddleware: Middleware {
    let door: TenantDoor

    func applies(to route: RouteDescription?) -> Bool {
        route.map { RouteClass($0) != .platform } ?? true
    }

    func enter(_ request: HTTPRequest, _ context: RequestContext) throws -> StageEntry {
        context.found(try door.context(host: request.host))
        return .next
    }
}
