/// What a server allows and how long it waits. Durations that end a connection without an answer say so.
package struct HTTPServerConfiguration: Sendable {
    package var http1 = HTTP1Limits()
    package var http2 = HTTP2Limits()
    /// Whether HTTP/2 is offered to TLS clients (ALPN, RFC 9113 3.2).
    package var http2IsEnabled = true
    /// Whether a connection without TLS may begin with HTTP/2 (prior knowledge, RFC 9113 3.3).
    package var http2CleartextIsEnabled = false
    /// Connections at a time. For one more, an idle one has to leave; if there is none, it is reset.
    package var connectionsMax = 60_000
    /// Connections at a time of one address: an IPv4 address, or the /64 of an IPv6 address. More are reset. Trusted
    /// proxies have no such limit.
    package var connectionsPerAddressMax = 1024
    /// Who may say for whom it speaks: in a PROXY protocol header, and in `Forwarded` and `X-Forwarded-*` fields.
    package var trustedProxies: TrustedProxies = []
    /// The doors that only trusted proxies may use, and at which each connection begins with a PROXY protocol header.
    package var proxyProtocol: Set<HTTPListenerName> = []
    /// From the accept to the end of the PROXY protocol header; ends silently.
    package var proxyHeaderTimeout: Duration = .seconds(5)
    /// Between an answer and the first byte of the next request; ends silently.
    package var keepAliveTimeout: Duration = .seconds(65)
    /// From the accept or the first byte of a head to its end: 408, silently if not a byte came.
    package var headTimeout: Duration = .seconds(66)
    /// How long a head may take from its first byte, besides what `headBytesPerSecondMin` grants: then 408.
    package var headGrace: Duration = .seconds(20)
    /// The slowest head that is waited for.
    package var headBytesPerSecondMin = 512
    /// From the end of the head to the beginning of the answer. The request carries it as its deadline. When it
    /// passes the client gets 408 if the content was still being waited for, else 503; a later answer is dropped.
    package var requestTimeout: Duration = .seconds(30)
    /// How long after the end of a client's side of an HTTP/1.1 connection it is asked, by an interim answer, whether it
    /// is still there: one that has closed its socket answers with a reset, and the work for it is given up. As every
    /// timeout it may be noticed up to two `timeoutResolution` late.
    package var presenceGrace: Duration = .milliseconds(250)
    /// How long content may be waited for in all, besides what `bodyBytesPerSecondMin` grants: then 408.
    package var bodyGrace: Duration = .seconds(10)
    /// The slowest client that is served: time in which nobody asks for content does not count.
    package var bodyBytesPerSecondMin = 1024
    /// Without a byte of the answer taken by the client: the connection is cut.
    package var writeStallTimeout: Duration = .seconds(30)
    /// How far a client may fall behind `answerBytesPerSecondMin` while output waits for it: then the connection is cut.
    package var answerGrace: Duration = .seconds(60)
    /// The slowest reader that is served, over its waiting time.
    package var answerBytesPerSecondMin = 1024
    /// How long and how much input is thrown away after the last answer, so that it is not lost to a reset.
    package var lingerTimeout: Duration = .seconds(5)
    package var lingerBytesMax = 4 << 20
    /// Content that an answer left unread is read and thrown away up to this, to keep the connection.
    package var discardBytesMax = 64 << 10
    /// Content that waits for the handler to ask; then the socket is not read.
    package var bodyBufferBytesMax = 64 << 10
    /// Further requests that wait while one is answered; then the socket is not read.
    package var pipelineBytesMax = 16 << 10
    /// Answers that wait for the client to read; then no further request is begun, and a stream's writer waits.
    package var outputBytesMax = 64 << 10
    /// How fine timeouts are: they strike up to this much late.
    package var timeoutResolution: Duration = .seconds(1)
    /// Sent with every answer, also to what is no request: the security fields. An answer's own field of the same
    /// name goes first.
    package var commonHeaders = HTTPServerConfiguration.securityHeaders

    /// How long a client that came by TLS is to come by TLS only (Strict-Transport-Security); nil: not told.
    package var strictTransportSecurity: Duration?
    /// From the accept to the end of the TLS handshake; ends silently.
    package var tlsHandshakeTimeout: Duration = .seconds(10)
    /// Handshakes at a time of one listener; further connections wait in the kernel's queue.
    package var tlsHandshakesMax = 1024
    /// The time for a handshake while there are that many.
    package var tlsCrowdedTimeout: Duration = .seconds(2)

    package init() {}

    var secureHeaders: HTTPHeaders {
        guard let strictTransportSecurity else { return commonHeaders }
        var headers = commonHeaders
        headers.set(
            .strictTransportSecurity, "max-age=\(strictTransportSecurity.components.seconds)")
        return headers
    }

    /// For an API that is read by programs: nothing may be framed, sniffed, kept by caches, shared with other
    /// windows or referred from, and no answer may run, load or ask for anything. A document that a person looks at
    /// brings its own `Content-Security-Policy` (`AssetCatalog`).
    package static let securityHeaders = HTTPHeaders([
        (.xContentTypeOptions, "nosniff"),
        (.xFrameOptions, "DENY"),
        (.referrerPolicy, "no-referrer"),
        (
            .contentSecurityPolicy,
            "default-src 'none'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
        ),
        (.crossOriginOpenerPolicy, "same-origin"),
        (.crossOriginResourcePolicy, "same-origin"),
        (.permissionsPolicy, "camera=(), display-capture=(), geolocation=(), microphone=()"),
        (.cacheControl, "no-store"),
    ])

    /// Every problem of the values, in the form "name: what is wrong".
    package func problems() -> [String] {
        var found: [String] = []
        func check(_ holds: Bool, _ text: String) { if !holds { found.append(text) } }
        check(connectionsMax > 0, "connectionsMax: must be above 0")
        check(connectionsPerAddressMax > 0, "connectionsPerAddressMax: must be above 0")
        check(
            trustedProxies.blocks.count <= TrustedProxies.blocksMax,
            "trustedProxies: at most \(TrustedProxies.blocksMax) addresses")
        check(
            proxyProtocol.isEmpty || !trustedProxies.isEmpty,
            "proxyProtocol: needs trustedProxies, or nobody may connect")
        check(headBytesPerSecondMin > 0, "headBytesPerSecondMin: must be above 0")
        check(answerBytesPerSecondMin > 0, "answerBytesPerSecondMin: must be above 0")
        check(http1.requestLineBytesMax >= 64, "requestLineBytesMax: must be at least 64")
        check(http1.requestLineBytesMax <= 1 << 20, "requestLineBytesMax: must be at most 1 MiB")
        check(http1.headerBytesMax >= 256, "headerBytesMax: must be at least 256")
        check(http1.headerBytesMax <= 1 << 20, "headerBytesMax: must be at most 1 MiB")
        check(http1.headerCountMax > 0, "headerCountMax: must be above 0")
        check(http1.bodyBytesMax >= 0, "bodyBytesMax: must not be negative")
        check(tlsHandshakesMax > 0, "tlsHandshakesMax: must be above 0")
        check(bodyBytesPerSecondMin > 0, "bodyBytesPerSecondMin: must be above 0")
        check(timeoutResolution > .zero, "timeoutResolution: must be above 0")
        for (name, duration) in [
            ("keepAliveTimeout", keepAliveTimeout), ("headTimeout", headTimeout),
            ("headGrace", headGrace), ("answerGrace", answerGrace),
            ("proxyHeaderTimeout", proxyHeaderTimeout),
            ("requestTimeout", requestTimeout), ("bodyGrace", bodyGrace),
            ("presenceGrace", presenceGrace),
            ("tlsHandshakeTimeout", tlsHandshakeTimeout), ("tlsCrowdedTimeout", tlsCrowdedTimeout),
            ("writeStallTimeout", writeStallTimeout), ("lingerTimeout", lingerTimeout),
        ] {
            check(duration > .zero, "\(name): must be above 0")
        }
        found.append(contentsOf: http2.problems())
        return found
    }
}
