import HCCore

/// The name of a header field. Equal without regard to the case of ASCII letters (RFC 9110 5.1); written over
/// HTTP/1.1 as it is spelled here.
package struct HTTPFieldName: Sendable, Hashable, ExpressibleByStringLiteral,
    CustomStringConvertible
{
    /// No field that anybody uses comes near it; a request with a longer name is 431.
    package static let bytesMax = 256

    let known: KnownField
    /// Empty for a known name, so that nothing is counted when one is handed on.
    private let other: String

    /// - Precondition: `text` is a token (RFC 9110 5.6.2): a name in our own source, never a client's.
    package init(stringLiteral text: String) {
        self.init(trusted: text)
    }

    /// Nil unless `text` is a token of at most `bytesMax` bytes.
    package init?(_ text: String) {
        var copy = text
        let valid = copy.withUTF8 { bytes in
            !bytes.isEmpty && bytes.count <= HTTPFieldName.bytesMax
                && bytes.allSatisfy(ByteClass.isToken)
        }
        guard valid else { return nil }
        self.init(trusted: text)
    }

    private init(trusted text: String) {
        var copy = text
        known = copy.withUTF8 { bytes in
            precondition(bytes.allSatisfy(ByteClass.isToken) && !bytes.isEmpty, "not a field name")
            return KnownField(UnsafeRawBufferPointer(bytes))
        }
        other = known == .other ? text : ""
    }

    init(_ known: KnownField) {
        self.known = known
        other = ""
    }

    /// A known name as this server spells it.
    package var text: String { known == .other ? other : known.text.description }

    package var description: String { text }

    /// Lends the name as it is written.
    @inline(__always)
    func withBytes<Answer>(_ body: (UnsafeRawBufferPointer) -> Answer) -> Answer {
        guard known == .other else {
            let text = known.text
            return body(
                UnsafeRawBufferPointer(start: text.utf8Start, count: text.utf8CodeUnitCount))
        }
        return other.withBytes { body(UnsafeRawBufferPointer($0)) }
    }

    package static func == (left: HTTPFieldName, right: HTTPFieldName) -> Bool {
        if left.known != .other || right.known != .other { return left.known == right.known }
        return left.other.lowercased() == right.other.lowercased()
    }

    package func hash(into hasher: inout Hasher) {
        hasher.combine(text.lowercased())
    }
}

// Computed: what is stored is made once, and whoever asks for it has to see to that.
extension HTTPFieldName {
    package static var accept: HTTPFieldName { HTTPFieldName(.accept) }
    package static var acceptEncoding: HTTPFieldName { HTTPFieldName(.acceptEncoding) }
    package static var acceptLanguage: HTTPFieldName { HTTPFieldName(.acceptLanguage) }
    package static var allow: HTTPFieldName { HTTPFieldName(.allow) }
    package static var authorization: HTTPFieldName { HTTPFieldName(.authorization) }
    package static var cacheControl: HTTPFieldName { HTTPFieldName(.cacheControl) }
    package static var connection: HTTPFieldName { HTTPFieldName(.connection) }
    package static var contentDisposition: HTTPFieldName { HTTPFieldName(.contentDisposition) }
    package static var contentEncoding: HTTPFieldName { HTTPFieldName(.contentEncoding) }
    package static var contentLanguage: HTTPFieldName { HTTPFieldName(.contentLanguage) }
    package static var contentLength: HTTPFieldName { HTTPFieldName(.contentLength) }
    package static var contentRange: HTTPFieldName { HTTPFieldName(.contentRange) }
    package static var contentSecurityPolicy: HTTPFieldName {
        HTTPFieldName(.contentSecurityPolicy)
    }
    package static var contentType: HTTPFieldName { HTTPFieldName(.contentType) }
    package static var cookie: HTTPFieldName { HTTPFieldName(.cookie) }
    package static var crossOriginOpenerPolicy: HTTPFieldName {
        HTTPFieldName(.crossOriginOpenerPolicy)
    }
    package static var crossOriginResourcePolicy: HTTPFieldName {
        HTTPFieldName(.crossOriginResourcePolicy)
    }
    package static var date: HTTPFieldName { HTTPFieldName(.date) }
    package static var etag: HTTPFieldName { HTTPFieldName(.etag) }
    package static var expect: HTTPFieldName { HTTPFieldName(.expect) }
    package static var forwarded: HTTPFieldName { HTTPFieldName(.forwarded) }
    package static var host: HTTPFieldName { HTTPFieldName(.host) }
    package static var idempotencyKey: HTTPFieldName { HTTPFieldName(.idempotencyKey) }
    package static var ifMatch: HTTPFieldName { HTTPFieldName(.ifMatch) }
    package static var ifModifiedSince: HTTPFieldName { HTTPFieldName(.ifModifiedSince) }
    package static var ifNoneMatch: HTTPFieldName { HTTPFieldName(.ifNoneMatch) }
    package static var keepAlive: HTTPFieldName { HTTPFieldName(.keepAlive) }
    package static var lastModified: HTTPFieldName { HTTPFieldName(.lastModified) }
    package static var link: HTTPFieldName { HTTPFieldName(.link) }
    package static var location: HTTPFieldName { HTTPFieldName(.location) }
    package static var maxForwards: HTTPFieldName { HTTPFieldName(.maxForwards) }
    package static var origin: HTTPFieldName { HTTPFieldName(.origin) }
    package static var permissionsPolicy: HTTPFieldName { HTTPFieldName(.permissionsPolicy) }
    package static var pragma: HTTPFieldName { HTTPFieldName(.pragma) }
    package static var range: HTTPFieldName { HTTPFieldName(.range) }
    package static var rateLimit: HTTPFieldName { HTTPFieldName(.rateLimit) }
    package static var rateLimitPolicy: HTTPFieldName { HTTPFieldName(.rateLimitPolicy) }
    package static var referer: HTTPFieldName { HTTPFieldName(.referer) }
    package static var referrerPolicy: HTTPFieldName { HTTPFieldName(.referrerPolicy) }
    package static var retryAfter: HTTPFieldName { HTTPFieldName(.retryAfter) }
    package static var server: HTTPFieldName { HTTPFieldName(.server) }
    package static var setCookie: HTTPFieldName { HTTPFieldName(.setCookie) }
    package static var strictTransportSecurity: HTTPFieldName {
        HTTPFieldName(.strictTransportSecurity)
    }
    package static var te: HTTPFieldName { HTTPFieldName(.te) }
    package static var traceparent: HTTPFieldName { HTTPFieldName(.traceparent) }
    package static var tracestate: HTTPFieldName { HTTPFieldName(.tracestate) }
    package static var trailer: HTTPFieldName { HTTPFieldName(.trailer) }
    package static var transferEncoding: HTTPFieldName { HTTPFieldName(.transferEncoding) }
    package static var upgrade: HTTPFieldName { HTTPFieldName(.upgrade) }
    package static var userAgent: HTTPFieldName { HTTPFieldName(.userAgent) }
    package static var vary: HTTPFieldName { HTTPFieldName(.vary) }
    package static var wwwAuthenticate: HTTPFieldName { HTTPFieldName(.wwwAuthenticate) }
    package static var xContentTypeOptions: HTTPFieldName { HTTPFieldName(.xContentTypeOptions) }
    package static var xForwardedFor: HTTPFieldName { HTTPFieldName(.xForwardedFor) }
    package static var xForwardedHost: HTTPFieldName { HTTPFieldName(.xForwardedHost) }
    package static var xForwardedProto: HTTPFieldName { HTTPFieldName(.xForwardedProto) }
    package static var xFrameOptions: HTTPFieldName { HTTPFieldName(.xFrameOptions) }
    package static var xRequestId: HTTPFieldName { HTTPFieldName(.xRequestId) }
    package static var accessControlAllowOrigin: HTTPFieldName {
        HTTPFieldName(.accessControlAllowOrigin)
    }
    package static var proxyAuthorization: HTTPFieldName { HTTPFieldName(.proxyAuthorization) }
    package static var hcReadAfter: HTTPFieldName { HTTPFieldName(.hcReadAfter) }
}
