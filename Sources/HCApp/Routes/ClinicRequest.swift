import HCClinic
import HCCore
import HCHTTP
import HCIO
import HCTenancy

/// What a route of a clinic works with.
struct ClinicRequest {
    let http: HTTPRequest
    let tenant: TenantContext
    let actor: Actor
    private let match: RouteMatch
    let bodyBytesMax: Int

    /// - Throws: `unauthenticated` if `AccessMiddleware` did not run before: without it nothing is served.
    @LoopActor
    init(
        _ request: HTTPRequest, _ context: RequestContext, bodyBytesMax: Int
    ) throws(ClinicError) {
        guard let tenant = context.tenant, let actor = context.actor else {
            throw ClinicError(.unauthenticated)
        }
        http = request
        self.tenant = tenant
        self.actor = actor
        match = context.match
        self.bodyBytesMax = bodyBytesMax
    }

    var deadline: Deadline { http.deadline }
    var parameters: PathParameters { match.parameters }

    /// A path parameter as an id. What is no id at all is not found either: it tells nothing.
    func id<Kind>(_ name: String = "id") throws(Problem) -> Identifier<Kind> {
        guard let uuid = UUID(parameters[name]) else { throw .notFound }
        return Identifier(uuid)
    }

    /// The document that was sent.
    /// - Throws: `Problem` 415 for another media type, 400 for what is no JSON, 413.
    @LoopActor
    func json() async throws -> JSONValue {
        try JSONContent.parse(await content())
    }

    /// The bytes of a JSON document: creations are replayed by them.
    @LoopActor
    func content() async throws -> [UInt8] {
        try await JSONContent.collect(http, max: bodyBytesMax)
    }

    /// The request as something that may come twice; nil without an `Idempotency-Key`.
    func idempotency(_ body: [UInt8]) throws -> IdempotentRequest? {
        guard http.headers.contains(.idempotencyKey) else { return nil }
        guard http.headers.count(of: .idempotencyKey) == 1,
            let field = http.headers[.idempotencyKey]
        else { throw ClinicError(.invalidIdempotencyKey) }
        return try IdempotentRequest(key: IdempotencyKey(field), body: body)
    }

    /// Several fields of that name are one list (RFC 9110 5.2). The tag of a compressed answer names the same version
    /// as that of the answer before it was compressed.
    var ifMatch: IfMatch {
        get throws {
            let fields = http.headers.values(.ifMatch)
            return try IfMatch(
                field: fields.isEmpty ? nil : EntityTags.uncoded(fields.joined(separator: ", ")))
        }
    }

    /// A value that may be a copy; 304 for a client that has it already (RFC 9110 13.1.2).
    func answer(_ value: CachedValue) -> HTTPResponse {
        let held = http.headers.values(.ifNoneMatch)
        let isHeld =
            !held.isEmpty
            && EntityTags.isListed(
                value.entityTag, in: EntityTags.uncoded(held.joined(separator: ", ")))
        var response =
            isHeld ? HTTPResponse(.notModified) : HTTPResponse(.ok, body: .bytes(value.bytes))
        if !isHeld {
            response.headers.append(.contentType, "application/json" as StaticString)
        }
        response.headers.append(.etag, value.entityTag)
        // May be kept by who asked, and is asked for each time: a change is seen at once.
        response.headers.append(.cacheControl, "private, no-cache" as StaticString)
        return response
    }

    /// The page that is asked for, and the other parameters of the list.
    /// - Throws: `Problem` 400 for a parameter that the list does not have, or that comes twice.
    func page(
        allowing names: [String] = []
    ) throws -> (page: PageRequest, parameter: (String) -> String?) {
        let query = http.query
        try query.allow(Set(names + ["limit", "cursor"]))
        var values: [String: String] = [:]
        for name in names { values[name] = try query.single(name) }
        let page = try PageRequest(limitText: query.single("limit"), cursor: query.single("cursor"))
        return (page, { values[$0] })
    }
}

extension ClinicRequest {
    /// The query's parameters: those of the names, each once, and no others.
    func parameters(_ names: [String]) throws -> (String) -> String? {
        let query = http.query
        try query.allow(Set(names))
        var values: [String: String] = [:]
        for name in names { values[name] = try query.single(name) }
        return { values[$0] }
    }
}

/// Reads a request's content as JSON (RFC 8259).
@LoopActor
enum JSONContent {
    static func read(_ request: HTTPRequest, max: Int) async throws -> JSONValue {
        try parse(await collect(request, max: max))
    }

    static func collect(_ request: HTTPRequest, max: Int) async throws -> [UInt8] {
        guard isJSON(request.headers[.contentType]) else {
            throw Problem(
                .unsupportedMediaType, code: "unsupported-media-type",
                title: "Unsupported Media Type",
                detail: "Send application/json.")
        }
        return try await request.body.collect(max: max)
    }

    nonisolated static func parse(_ bytes: [UInt8]) throws(Problem) -> JSONValue {
        do {
            return try JSONReader.parse(bytes)
        } catch {
            throw Problem(
                .badRequest, code: "malformed-json", title: "Bad Request",
                detail: "The content is not JSON: \(error)")
        }
    }

    /// `application/json`, with any parameters and in any case (RFC 9110 8.3.1).
    private static func isJSON(_ value: String?) -> Bool {
        guard let value else { return false }
        let type = value.prefix { $0 != ";" }
        return type.filter { $0 != " " && $0 != "\t" }.lowercased() == "application/json"
    }
}
