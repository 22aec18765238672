/// Which fields may come behind the content. Whoever frames, routes, authenticates, chooses or keeps a message has
/// done so before they arrive (RFC 9110 6.5.1): such fields are refused in requests and not sent in answers.
enum TrailerFields {
    /// Framing, routing, controls and conditions, authentication, the format of the content; and what our own edge
    /// decides by.
    private static let forbidden = bits([
        .contentLength, .transferEncoding, .host, .connection, .te, .trailer, .upgrade, .expect,
        .keepAlive, .authorization, .proxyAuthorization, .cookie, .contentType, .contentEncoding,
        .contentRange, .cacheControl, .maxForwards, .range, .ifMatch, .ifNoneMatch,
        .ifModifiedSince, .idempotencyKey, .origin, .forwarded, .xForwardedFor, .xForwardedHost,
        .xForwardedProto, .xRequestId,
    ])

    /// Besides those: what a client or a cache acts on when the head is there, and every policy of a browser.
    private static let forbiddenInAnswers =
        forbidden
        | bits([
            .setCookie, .wwwAuthenticate, .retryAfter, .location, .date, .vary, .pragma, .allow,
            .contentDisposition, .contentLanguage, .accessControlAllowOrigin,
            .contentSecurityPolicy, .crossOriginOpenerPolicy, .crossOriginResourcePolicy,
            .permissionsPolicy, .referrerPolicy, .strictTransportSecurity, .xContentTypeOptions,
            .xFrameOptions,
        ])

    private static let otherNamesInAnswers: [StaticString] = [
        "age", "expires", "content-location", "proxy-authenticate", "if-range",
        "if-unmodified-since", "clear-site-data", "alt-svc",
    ]

    static func isForbidden(_ field: KnownField) -> Bool { forbidden & field.bit != 0 }

    static func isForbiddenInAnswer(_ name: HTTPFieldName) -> Bool {
        guard name.known == .other else { return forbiddenInAnswers & name.known.bit != 0 }
        return name.withBytes { name in
            let policies: StaticString = "access-control-"
            let count = policies.utf8CodeUnitCount
            if name.count > count, name.slice(0..<count).isEqualIgnoringCase(to: policies) {
                return true
            }
            return otherNamesInAnswers.contains { name.isEqualIgnoringCase(to: $0) }
        }
    }

    private static func bits(_ fields: [KnownField]) -> UInt64 {
        fields.reduce(0) { $0 | $1.bit }
    }
}
