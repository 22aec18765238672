import HCCore

/// The name of a header field. Equal without regard to the case of ASCII letters (RFC 9110 5.1); written over
/// HTTP/1.1 as it is spelled here.
package struct HTTPFieldName: Sendable, Hashable, ExpressibleByStringLiteral,
    CustomStringConvertible
{
    /// No field that anybody uses comes near it; a request with a longer name is 431.
    package static let bytesMax = 256

    package let text: String
    let known: KnownField

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
        self.text = text
    }

    init(_ known: KnownField) {
        self.known = known
        text = known.text.description
    }

    package var description: String { text }

    /// Lends the name as it is written.
    @inline(__always)
    func withBytes<Answer>(_ body: (UnsafeRawBufferPointer) -> Answer) -> Answer {
        guard known == .other else {
            let text = known.text
            return body(
                UnsafeRawBufferPointer(start: text.utf8Start, count: text.utf8CodeUnitCount))
        }
        return text.withBytes { body(UnsafeRawBufferPointer($0)) }
    }

    package static func == (left: HTTPFieldName, right: HTTPFieldName) -> Bool {
        if left.known != .other || right.known != .other { return left.known == right.known }
        return left.text.lowercased() == right.text.lowercased()
    }

    package func hash(into hasher: inout Hasher) {
        hasher.combine(text.lowercased())
    }
}

extension HTTPFieldName {
    package static let accept = HTTPFieldName(KnownField.accept)
    package static let acceptEncoding = HTTPFieldName(KnownField.acceptEncoding)
    package static let acceptLanguage = HTTPFieldName(KnownField.acceptLanguage)
    package static let allow = HTTPFieldName(KnownField.allow)
    package static let authorization = HTTPFieldName(KnownField.authorization)
    package static let cacheControl = HTTPFieldName(KnownField.cacheControl)
    package static let connection = HTTPFieldName(KnownField.connection)
    package static let contentDisposition = HTTPFieldName(KnownField.contentDisposition)
    package static let contentEncoding = HTTPFieldName(KnownField.contentEncoding)
    package static let contentLanguage = HTTPFieldName(KnownField.contentLanguage)
    package static let contentLength = HTTPFieldName(KnownField.contentLength)
    package static let contentRange = HTTPFieldName(KnownField.contentRange)
    package static let contentSecurityPolicy = HTTPFieldName(KnownField.contentSecurityPolicy)
    package static let contentType = HTTPFieldName(KnownField.contentType)
    package static let cookie = HTTPFieldName(KnownField.cookie)
    package static let crossOriginOpenerPolicy = HTTPFieldName(KnownField.crossOriginOpenerPolicy)
    package static let crossOriginResourcePolicy = HTTPFieldName(
        KnownField.crossOriginResourcePolicy)
    package static let date = HTTPFieldName(KnownField.date)
    package static let etag = HTTPFieldName(KnownField.etag)
    package static let expect = HTTPFieldName(KnownField.expect)
    package static let forwarded = HTTPFieldName(KnownField.forwarded)
    package static let host = HTTPFieldName(KnownField.host)
    package static let idempotencyKey = HTTPFieldName(KnownField.idempotencyKey)
    package static let ifMatch = HTTPFieldName(KnownField.ifMatch)
    package static let ifModifiedSince = HTTPFieldName(KnownField.ifModifiedSince)
    package static let ifNoneMatch = HTTPFieldName(KnownField.ifNoneMatch)
    package static let keepAlive = HTTPFieldName(KnownField.keepAlive)
    package static let lastModified = HTTPFieldName(KnownField.lastModified)
    package static let link = HTTPFieldName(KnownField.link)
    package static let location = HTTPFieldName(KnownField.location)
    package static let maxForwards = HTTPFieldName(KnownField.maxForwards)
    package static let origin = HTTPFieldName(KnownField.origin)
    package static let permissionsPolicy = HTTPFieldName(KnownField.permissionsPolicy)
    package static let pragma = HTTPFieldName(KnownField.pragma)
    package static let range = HTTPFieldName(KnownField.range)
    package static let rateLimit = HTTPFieldName(KnownField.rateLimit)
    package static let rateLimitPolicy = HTTPFieldName(KnownField.rateLimitPolicy)
    package static let referer = HTTPFieldName(KnownField.referer)
    package static let referrerPolicy = HTTPFieldName(KnownField.referrerPolicy)
    package static let retryAfter = HTTPFieldName(KnownField.retryAfter)
    package static let server = HTTPFieldName(KnownField.server)
    package static let setCookie = HTTPFieldName(KnownField.setCookie)
    package static let strictTransportSecurity = HTTPFieldName(KnownField.strictTransportSecurity)
    package static let te = HTTPFieldName(KnownField.te)
    package static let traceparent = HTTPFieldName(KnownField.traceparent)
    package static let tracestate = HTTPFieldName(KnownField.tracestate)
    package static let trailer = HTTPFieldName(KnownField.trailer)
    package static let transferEncoding = HTTPFieldName(KnownField.transferEncoding)
    package static let upgrade = HTTPFieldName(KnownField.upgrade)
    package static let userAgent = HTTPFieldName(KnownField.userAgent)
    package static let vary = HTTPFieldName(KnownField.vary)
    package static let wwwAuthenticate = HTTPFieldName(KnownField.wwwAuthenticate)
    package static let xContentTypeOptions = HTTPFieldName(KnownField.xContentTypeOptions)
    package static let xForwardedFor = HTTPFieldName(KnownField.xForwardedFor)
    package static let xForwardedHost = HTTPFieldName(KnownField.xForwardedHost)
    package static let xForwardedProto = HTTPFieldName(KnownField.xForwardedProto)
    package static let xFrameOptions = HTTPFieldName(KnownField.xFrameOptions)
    package static let xRequestId = HTTPFieldName(KnownField.xRequestId)
    package static let accessControlAllowOrigin = HTTPFieldName(KnownField.accessControlAllowOrigin)
    package static let proxyAuthorization = HTTPFieldName(KnownField.proxyAuthorization)
}
