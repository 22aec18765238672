import HCClinic
import HCCore
import HCHTTP
import HCIO
import HCTenancy

/// Builds the table of routes: every route of a clinic gets its tenant and, unless it is open, its actor.
@LoopActor
struct RouteTable {
    private(set) var router = Router<RequestContext>()

    /// A route for those who are logged in. What they may do there the clinic's services decide by the permission
    /// matrix; `permission` says here which row that is.
    ///
    /// `compresses` is for routes that only read: what they answer holds no credentials and nothing that the
    /// request brought with it (`CompressionMiddleware` has the rule).
    mutating func add(
        _ method: HTTPMethod, _ pattern: String, _ name: String, permission: Permission?,
        class routeClass: RouteClass, lane: RequestLane? = nil, audit: String? = nil,
        takesKey: Bool = false, needsVersion: Bool = false, compresses: Bool = false,
        bodyBytesMax: Int = 0, _ summary: String,
        _ handler: @escaping @LoopActor (ClinicRequest) async throws -> HTTPResponse
    ) {
        let route = RouteDescription(
            method, pattern, name: name,
            access: permission.map { .permission($0.rawValue) } ?? .authenticated,
            limitClass: routeClass.rawValue, lane: lane ?? routeClass.lane, auditAction: audit,
            acceptsIdempotencyKey: takesKey, requiresIfMatch: needsVersion, mayCompress: compresses,
            bodyBytesMax: bodyBytesMax, summary: summary)
        router.add(route) { request, context in
            try await handler(try ClinicRequest(request, context, bodyBytesMax: bodyBytesMax))
        }
    }

    /// A route for those who are logged in that mostly waits for nothing and takes neither content nor parameters.
    mutating func addImmediate(
        _ method: HTTPMethod, _ pattern: String, _ name: String, permission: Permission?,
        class routeClass: RouteClass, lane: RequestLane? = nil, _ summary: String,
        _ handler:
            @escaping @LoopActor (HTTPRequest, TenantContext, Actor) throws -> ImmediateAnswer
    ) {
        let route = RouteDescription(
            method, pattern, name: name,
            access: permission.map { .permission($0.rawValue) } ?? .authenticated,
            limitClass: routeClass.rawValue, lane: lane ?? routeClass.lane, bodyBytesMax: 0,
            summary: summary)
        router.addImmediate(route) { request, context in
            guard let actor = context.actor,
                let answer = try context.withTenant({ try handler(request, $0, actor) })
            else { throw ClinicError(.unauthenticated) }
            return answer
        }
    }

    /// A route of a clinic for anybody.
    mutating func addOpen(
        _ method: HTTPMethod, _ pattern: String, _ name: String, class routeClass: RouteClass,
        lane: RequestLane? = nil, audit: String? = nil, bodyBytesMax: Int = 0, _ summary: String,
        _ handler: @escaping @LoopActor (HTTPRequest, TenantContext) async throws -> HTTPResponse
    ) {
        let route = RouteDescription(
            method, pattern, name: name, access: .open, limitClass: routeClass.rawValue,
            lane: lane ?? routeClass.lane,
            auditAction: audit, bodyBytesMax: bodyBytesMax, summary: summary)
        router.add(route) { request, context in
            guard let tenant = context.tenant else { throw Problem.notFound }
            return try await handler(request, tenant)
        }
    }

    /// A route of the platform, on any host.
    mutating func addPlatform(
        _ method: HTTPMethod, _ pattern: String, _ name: String,
        lane: RequestLane = RouteClass.platform.lane, bodyBytesMax: Int = 0, _ summary: String,
        _ handler: @escaping @LoopActor (HTTPRequest) async throws -> HTTPResponse
    ) {
        let route = RouteDescription(
            method, pattern, name: name, access: .open, limitClass: RouteClass.platform.rawValue,
            lane: lane, bodyBytesMax: bodyBytesMax, summary: summary)
        router.add(route) { request, _ in try await handler(request) }
    }

    /// The same, where there is nothing to wait for.
    mutating func addPlatformImmediate(
        _ method: HTTPMethod, _ pattern: String, _ name: String,
        lane: RequestLane = RouteClass.platform.lane, _ summary: String,
        _ handler: @escaping @LoopActor (HTTPRequest) throws -> HTTPResponse
    ) {
        let route = RouteDescription(
            method, pattern, name: name, access: .open, limitClass: RouteClass.platform.rawValue,
            lane: lane, bodyBytesMax: 0, summary: summary)
        router.addImmediate(route) { request, _ in .ready(try handler(request)) }
    }
}

/// All routes of the public listener.
@LoopActor
enum Routes {
    /// - Parameters:
    ///   - sockets: of the feed of events; nil for a table that is only looked at.
    ///   - assets: static files, if there are any to serve.
    ///   - conformance: nil everywhere but where conformance clients are run.
    static func all(
        _ services: ClinicServices, clocks: Clocks, sockets: WebSocketEndpoint? = nil,
        assets: AssetCatalog? = nil, conformance: Conformance? = nil
    ) -> Router<RequestContext> {
        var table = RouteTable()
        addPlatform(to: &table)
        if let assets { addAssets(to: &table, assets) }
        if let conformance { addConformance(to: &table, conformance) }
        addLimits(to: &table)
        addAuth(to: &table, services)
        addClinic(to: &table, services)
        addStaff(to: &table, services)
        addPractitioners(to: &table, services)
        addDirectory(to: &table, services)
        addPatients(to: &table, services, clocks)
        addAppointments(to: &table, services)
        addEvents(
            to: &table, services,
            sockets
                ?? WebSocketEndpoint(
                    eventSockets, metrics: WebSocketMetrics(.unread), clocks: clocks))
        return table.router
    }
}

extension HTTPResponse {
    /// A value of the clinic as JSON.
    static func value(
        _ value: some JSONWritable, status: HTTPStatus = .ok, entityTag: String? = nil
    ) -> HTTPResponse {
        var writer = JSONWriter()
        value.write(to: &writer)
        var response = HTTPResponse.json(status, writer.finish())
        if let entityTag { response.headers.append(.etag, entityTag) }
        return response
    }

    /// What was made, or what was made when the request came first.
    static func created(_ reply: CreationReply) -> HTTPResponse {
        var response = HTTPResponse(HTTPStatus(reply.status), body: .bytes(reply.body))
        response.headers.append(.contentType, "application/json" as StaticString)
        response.headers.append(.location, reply.location)
        response.headers.append(.etag, reply.entityTag)
        if reply.isReplay {
            response.headers.append("Idempotency-Replayed", "true" as StaticString)
        }
        return response
    }

    static func made(
        _ value: some JSONWritable, at location: String, entityTag: String
    ) -> HTTPResponse {
        var response = HTTPResponse.value(value, status: .created, entityTag: entityTag)
        response.headers.append(.location, location)
        return response
    }

    static let nothing = HTTPResponse(.noContent)
}
