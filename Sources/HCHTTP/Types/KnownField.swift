/// The fields that are worth a number: they are told apart once, when a head is parsed, and looked for by one
/// comparison afterwards. The raw value is a bit position in `HTTPHeaders.knownFields`.
enum KnownField: UInt8, CaseIterable, Sendable {
    case other
    case accept
    case acceptEncoding
    case acceptLanguage
    case allow
    case authorization
    case cacheControl
    case connection
    case contentDisposition
    case contentEncoding
    case contentLanguage
    case contentLength
    case contentRange
    case contentSecurityPolicy
    case contentType
    case cookie
    case crossOriginOpenerPolicy
    case crossOriginResourcePolicy
    case date
    case etag
    case expect
    case forwarded
    case host
    case idempotencyKey
    case ifMatch
    case ifModifiedSince
    case ifNoneMatch
    case keepAlive
    case lastModified
    case link
    case location
    case maxForwards
    case origin
    case permissionsPolicy
    case pragma
    case range
    case rateLimit
    case rateLimitPolicy
    case referer
    case referrerPolicy
    case retryAfter
    case server
    case setCookie
    case strictTransportSecurity
    case te
    case traceparent
    case tracestate
    case trailer
    case transferEncoding
    case upgrade
    case userAgent
    case vary
    case wwwAuthenticate
    case xContentTypeOptions
    case xForwardedFor
    case xForwardedHost
    case xForwardedProto
    case xFrameOptions
    case xRequestId
    case accessControlAllowOrigin
    case proxyAuthorization
    case hcReadAfter

    /// As it is written in an answer.
    var text: StaticString {
        switch self {
        case .other: ""
        case .accept: "Accept"
        case .acceptEncoding: "Accept-Encoding"
        case .acceptLanguage: "Accept-Language"
        case .allow: "Allow"
        case .authorization: "Authorization"
        case .cacheControl: "Cache-Control"
        case .connection: "Connection"
        case .contentDisposition: "Content-Disposition"
        case .contentEncoding: "Content-Encoding"
        case .contentLanguage: "Content-Language"
        case .contentLength: "Content-Length"
        case .contentRange: "Content-Range"
        case .contentSecurityPolicy: "Content-Security-Policy"
        case .contentType: "Content-Type"
        case .cookie: "Cookie"
        case .crossOriginOpenerPolicy: "Cross-Origin-Opener-Policy"
        case .crossOriginResourcePolicy: "Cross-Origin-Resource-Policy"
        case .date: "Date"
        case .etag: "ETag"
        case .expect: "Expect"
        case .forwarded: "Forwarded"
        case .host: "Host"
        case .idempotencyKey: "Idempotency-Key"
        case .ifMatch: "If-Match"
        case .ifModifiedSince: "If-Modified-Since"
        case .ifNoneMatch: "If-None-Match"
        case .keepAlive: "Keep-Alive"
        case .lastModified: "Last-Modified"
        case .link: "Link"
        case .location: "Location"
        case .maxForwards: "Max-Forwards"
        case .origin: "Origin"
        case .permissionsPolicy: "Permissions-Policy"
        case .pragma: "Pragma"
        case .range: "Range"
        case .rateLimit: "RateLimit"
        case .rateLimitPolicy: "RateLimit-Policy"
        case .referer: "Referer"
        case .referrerPolicy: "Referrer-Policy"
        case .retryAfter: "Retry-After"
        case .server: "Server"
        case .setCookie: "Set-Cookie"
        case .strictTransportSecurity: "Strict-Transport-Security"
        case .te: "TE"
        case .traceparent: "Traceparent"
        case .tracestate: "Tracestate"
        case .trailer: "Trailer"
        case .transferEncoding: "Transfer-Encoding"
        case .upgrade: "Upgrade"
        case .userAgent: "User-Agent"
        case .vary: "Vary"
        case .wwwAuthenticate: "WWW-Authenticate"
        case .xContentTypeOptions: "X-Content-Type-Options"
        case .xForwardedFor: "X-Forwarded-For"
        case .xForwardedHost: "X-Forwarded-Host"
        case .xForwardedProto: "X-Forwarded-Proto"
        case .xFrameOptions: "X-Frame-Options"
        case .xRequestId: "X-Request-Id"
        case .accessControlAllowOrigin: "Access-Control-Allow-Origin"
        case .proxyAuthorization: "Proxy-Authorization"
        case .hcReadAfter: "HC-Read-After"
        }
    }

    /// The bit of this field in a set of known fields; unknown fields have none.
    @inline(__always)
    var bit: UInt64 { self == .other ? 0 : 1 << UInt64(rawValue) }

    /// The field of this name, in any case of its letters.
    init(_ name: UnsafeRawBufferPointer) {
        self = .other
        switch name.count {
        case 2:
            switch ByteClass.lower(name[0]) {
            case 0x74:
                if name.isEqualIgnoringCase(to: "te") { self = .te }
            default: break
            }
        case 4:
            switch ByteClass.lower(name[0]) {
            case 0x64:
                if name.isEqualIgnoringCase(to: "date") { self = .date }
            case 0x65:
                if name.isEqualIgnoringCase(to: "etag") { self = .etag }
            case 0x68:
                if name.isEqualIgnoringCase(to: "host") { self = .host }
            case 0x6C:
                if name.isEqualIgnoringCase(to: "link") { self = .link }
            case 0x76:
                if name.isEqualIgnoringCase(to: "vary") { self = .vary }
            default: break
            }
        case 5:
            switch ByteClass.lower(name[0]) {
            case 0x61:
                if name.isEqualIgnoringCase(to: "allow") { self = .allow }
            case 0x72:
                if name.isEqualIgnoringCase(to: "range") { self = .range }
            default: break
            }
        case 6:
            switch ByteClass.lower(name[0]) {
            case 0x61:
                if name.isEqualIgnoringCase(to: "accept") { self = .accept }
            case 0x63:
                if name.isEqualIgnoringCase(to: "cookie") { self = .cookie }
            case 0x65:
                if name.isEqualIgnoringCase(to: "expect") { self = .expect }
            case 0x6F:
                if name.isEqualIgnoringCase(to: "origin") { self = .origin }
            case 0x70:
                if name.isEqualIgnoringCase(to: "pragma") { self = .pragma }
            case 0x73:
                if name.isEqualIgnoringCase(to: "server") { self = .server }
            default: break
            }
        case 7:
            switch ByteClass.lower(name[0]) {
            case 0x72:
                if name.isEqualIgnoringCase(to: "referer") { self = .referer }
            case 0x74:
                if name.isEqualIgnoringCase(to: "trailer") { self = .trailer }
            case 0x75:
                if name.isEqualIgnoringCase(to: "upgrade") { self = .upgrade }
            default: break
            }
        case 8:
            switch ByteClass.lower(name[0]) {
            case 0x69:
                if name.isEqualIgnoringCase(to: "if-match") { self = .ifMatch }
            case 0x6C:
                if name.isEqualIgnoringCase(to: "location") { self = .location }
            default: break
            }
        case 9:
            switch ByteClass.lower(name[0]) {
            case 0x66:
                if name.isEqualIgnoringCase(to: "forwarded") { self = .forwarded }
            case 0x72:
                if name.isEqualIgnoringCase(to: "ratelimit") { self = .rateLimit }
            default: break
            }
        case 10:
            switch ByteClass.lower(name[0]) {
            case 0x63:
                if name.isEqualIgnoringCase(to: "connection") { self = .connection }
            case 0x6B:
                if name.isEqualIgnoringCase(to: "keep-alive") { self = .keepAlive }
            case 0x73:
                if name.isEqualIgnoringCase(to: "set-cookie") { self = .setCookie }
            case 0x74:
                if name.isEqualIgnoringCase(to: "tracestate") { self = .tracestate }
            case 0x75:
                if name.isEqualIgnoringCase(to: "user-agent") { self = .userAgent }
            default: break
            }
        case 11:
            switch ByteClass.lower(name[0]) {
            case 0x72:
                if name.isEqualIgnoringCase(to: "retry-after") { self = .retryAfter }
            case 0x74:
                if name.isEqualIgnoringCase(to: "traceparent") { self = .traceparent }
            default: break
            }
        case 12:
            switch ByteClass.lower(name[0]) {
            case 0x63:
                if name.isEqualIgnoringCase(to: "content-type") { self = .contentType }
            case 0x6D:
                if name.isEqualIgnoringCase(to: "max-forwards") { self = .maxForwards }
            case 0x78:
                if name.isEqualIgnoringCase(to: "x-request-id") { self = .xRequestId }
            default: break
            }
        case 13:
            switch ByteClass.lower(name[0]) {
            case 0x61:
                if name.isEqualIgnoringCase(to: "authorization") { self = .authorization }
            case 0x63:
                if name.isEqualIgnoringCase(to: "cache-control") { self = .cacheControl }
                if name.isEqualIgnoringCase(to: "content-range") { self = .contentRange }
            case 0x68:
                if name.isEqualIgnoringCase(to: "hc-read-after") { self = .hcReadAfter }
            case 0x69:
                if name.isEqualIgnoringCase(to: "if-none-match") { self = .ifNoneMatch }
            case 0x6C:
                if name.isEqualIgnoringCase(to: "last-modified") { self = .lastModified }
            default: break
            }
        case 14:
            switch ByteClass.lower(name[0]) {
            case 0x63:
                if name.isEqualIgnoringCase(to: "content-length") { self = .contentLength }
            default: break
            }
        case 15:
            switch ByteClass.lower(name[0]) {
            case 0x61:
                if name.isEqualIgnoringCase(to: "accept-encoding") { self = .acceptEncoding }
                if name.isEqualIgnoringCase(to: "accept-language") { self = .acceptLanguage }
            case 0x69:
                if name.isEqualIgnoringCase(to: "idempotency-key") { self = .idempotencyKey }
            case 0x72:
                if name.isEqualIgnoringCase(to: "referrer-policy") { self = .referrerPolicy }
            case 0x78:
                if name.isEqualIgnoringCase(to: "x-forwarded-for") { self = .xForwardedFor }
                if name.isEqualIgnoringCase(to: "x-frame-options") { self = .xFrameOptions }
            default: break
            }
        case 16:
            switch ByteClass.lower(name[0]) {
            case 0x63:
                if name.isEqualIgnoringCase(to: "content-encoding") { self = .contentEncoding }
                if name.isEqualIgnoringCase(to: "content-language") { self = .contentLanguage }
            case 0x72:
                if name.isEqualIgnoringCase(to: "ratelimit-policy") { self = .rateLimitPolicy }
            case 0x77:
                if name.isEqualIgnoringCase(to: "www-authenticate") { self = .wwwAuthenticate }
            case 0x78:
                if name.isEqualIgnoringCase(to: "x-forwarded-host") { self = .xForwardedHost }
            default: break
            }
        case 17:
            switch ByteClass.lower(name[0]) {
            case 0x69:
                if name.isEqualIgnoringCase(to: "if-modified-since") { self = .ifModifiedSince }
            case 0x74:
                if name.isEqualIgnoringCase(to: "transfer-encoding") { self = .transferEncoding }
            case 0x78:
                if name.isEqualIgnoringCase(to: "x-forwarded-proto") { self = .xForwardedProto }
            default: break
            }
        case 18:
            switch ByteClass.lower(name[0]) {
            case 0x70:
                if name.isEqualIgnoringCase(to: "permissions-policy") { self = .permissionsPolicy }
            default: break
            }
        case 19:
            switch ByteClass.lower(name[0]) {
            case 0x63:
                if name.isEqualIgnoringCase(to: "content-disposition") {
                    self = .contentDisposition
                }
            case 0x70:
                if name.isEqualIgnoringCase(to: "proxy-authorization") {
                    self = .proxyAuthorization
                }
            default: break
            }
        case 22:
            switch ByteClass.lower(name[0]) {
            case 0x78:
                if name.isEqualIgnoringCase(to: "x-content-type-options") {
                    self = .xContentTypeOptions
                }
            default: break
            }
        case 23:
            switch ByteClass.lower(name[0]) {
            case 0x63:
                if name.isEqualIgnoringCase(to: "content-security-policy") {
                    self = .contentSecurityPolicy
                }
            default: break
            }
        case 25:
            switch ByteClass.lower(name[0]) {
            case 0x73:
                if name.isEqualIgnoringCase(to: "strict-transport-security") {
                    self = .strictTransportSecurity
                }
            default: break
            }
        case 26:
            switch ByteClass.lower(name[0]) {
            case 0x63:
                if name.isEqualIgnoringCase(to: "cross-origin-opener-policy") {
                    self = .crossOriginOpenerPolicy
                }
            default: break
            }
        case 27:
            switch ByteClass.lower(name[0]) {
            case 0x61:
                if name.isEqualIgnoringCase(to: "access-control-allow-origin") {
                    self = .accessControlAllowOrigin
                }
            default: break
            }
        case 28:
            switch ByteClass.lower(name[0]) {
            case 0x63:
                if name.isEqualIgnoringCase(to: "cross-origin-resource-policy") {
                    self = .crossOriginResourcePolicy
                }
            default: break
            }
        default: break
        }
    }
}
