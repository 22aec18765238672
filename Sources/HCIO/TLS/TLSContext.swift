internal import COpenSSL
package import HCCore

/// What the connections of one listener have in common: certificates, ticket keys, protocol names, counters.
///
/// TLS 1.2 and 1.3 and nothing older (RFC 8996); ephemeral key exchange and AEAD only (RFC 9325 4.2); no compression, no
/// renegotiation, no early data. The suite is our choice, but a client that likes ChaCha20 best gets it, for it has
/// no AES in hardware. Certificates can be replaced at any time: new handshakes get the new ones, connections keep what
/// they have.
///
/// Callbacks of OpenSSL reach the stream of a connection through the SSL object (ex_data 0, unretained: a stream owns its
/// SSL object and frees it first) and through it this context, which each stream retains.
@LoopActor package final class TLSContext {
    private enum Role {
        case server(TLSServerConfiguration)
        case client(TLSClientConfiguration)
    }

    /// 112 bits: no SHA-1, no RSA below 2048 bits (SSL_CTX_set_security_level).
    nonisolated static let securityLevel: Int32 = 2
    private static let suites12 =
        "ECDHE-ECDSA-AES128-GCM-SHA256:ECDHE-RSA-AES128-GCM-SHA256:"
        + "ECDHE-ECDSA-AES256-GCM-SHA384:ECDHE-RSA-AES256-GCM-SHA384:"
        + "ECDHE-ECDSA-CHACHA20-POLY1305:ECDHE-RSA-CHACHA20-POLY1305"
    private static let suites13 =
        "TLS_AES_128_GCM_SHA256:TLS_AES_256_GCM_SHA384:TLS_CHACHA20_POLY1305_SHA256"
    private static let groups = "X25519:P-256:P-384"
    private static let signatures =
        "ECDSA+SHA256:ed25519:RSA-PSS+SHA256:RSA+SHA256:ECDSA+SHA384:RSA-PSS+SHA384:RSA+SHA384:"
        + "ECDSA+SHA512:RSA-PSS+SHA512:RSA+SHA512"
    private static let clientChainDepthMax: Int32 = 4

    private var role: Role
    private var library: TLSLibraryContext
    let clocks: Clocks
    package let metrics: TLSMetrics?
    private let tickets: TLSTicketRing?
    /// As in the wire format of ALPN: each name after its length.
    private let protocolNames: [[UInt8]]
    /// The session that a client's next connection tries to resume.
    private var savedSession: OpaquePointer?

    /// - Throws: if OpenSSL does not take the certificates.
    package init(
        server configuration: TLSServerConfiguration, clocks: Clocks, metrics: TLSMetrics? = nil
    ) throws(TLSFailure) {
        role = .server(configuration)
        self.clocks = clocks
        self.metrics = metrics
        protocolNames = configuration.applicationProtocols.map { Array($0.utf8) }
        let identity = TLSContext.identity(configuration)
        tickets = configuration.tickets.map {
            TLSTicketRing($0, purpose: identity, clocks: clocks)
        }
        library = try TLSContext.makeLibraryContext(configuration)
        updateExpiry()
    }

    package init(client configuration: TLSClientConfiguration) throws(TLSFailure) {
        role = .client(configuration)
        clocks = .system
        metrics = nil
        tickets = nil
        protocolNames = configuration.applicationProtocols.map { Array($0.utf8) }
        library = try TLSContext.makeLibraryContext(configuration)
    }

    isolated deinit {
        if let savedSession { SSL_SESSION_free(savedSession) }
    }

    var isServer: Bool {
        if case .server = role { return true }
        return false
    }

    func makePlaintextAnswer() -> [UInt8] {
        guard case .server(let configuration) = role else { return [] }
        return configuration.plaintextAnswer?(clocks.now()) ?? []
    }

    var timeouts: TLSEndTimeouts {
        if case .server(let configuration) = role { return configuration.timeouts }
        return TLSEndTimeouts()
    }

    package var certificates: TLSCertificates? {
        if case .server(let configuration) = role { return configuration.certificates }
        return nil
    }

    /// Uses other certificates for the handshakes that begin from now on.
    ///
    /// - Throws: if OpenSSL does not take them; then everything stays as it was.
    package func replaceCertificates(_ certificates: TLSCertificates) throws(TLSFailure) {
        guard case .server(var configuration) = role else {
            preconditionFailure("a client has no certificates to choose from")
        }
        configuration.certificates = certificates
        library = try TLSContext.makeLibraryContext(configuration)
        role = .server(configuration)
        updateExpiry()
    }

    func updateExpiry() {
        guard let metrics, let certificates else { return }
        metrics.expiry.set(Int((certificates.firstExpiry - clocks.now()).components.seconds))
    }

    /// A client's next connections try to resume what `other` has last heard of its server.
    package func resumeSession(of other: TLSContext) {
        guard let session = other.savedSession, SSL_SESSION_up_ref(session) == 1 else { return }
        keep(session)
    }

    func keep(_ session: OpaquePointer) {
        if let savedSession { SSL_SESSION_free(savedSession) }
        savedSession = session
    }

    // MARK: Making

    /// What sessions are bound to: purpose and client authorities.
    private static func identity(_ configuration: TLSServerConfiguration) -> [UInt8] {
        let text =
            Array(configuration.purpose.utf8) + [0] + (configuration.clientAuthority?.digest ?? [])
        var digest = [UInt8](repeating: 0, count: 32)
        _ = SHA256(text, text.count, &digest)
        return digest
    }

    private static func check(_ result: Int32) throws(TLSFailure) {
        guard result == 1 else { throw TLSFailure.take(isServer: true) }
    }

    private static func makeBase(_ method: OpaquePointer?) throws(TLSFailure) -> TLSLibraryContext {
        ERR_clear_error()
        guard let made = SSL_CTX_new(method) else { throw TLSFailure.take(isServer: true) }
        let context = TLSLibraryContext(made)
        let pointer = context.pointer
        SSL_CTX_set_security_level(pointer, securityLevel)
        try check(hc_ssl_ctx_set_min_proto_version(pointer, TLS1_2_VERSION))
        try check(hc_ssl_ctx_set_max_proto_version(pointer, TLS1_3_VERSION))
        try check(SSL_CTX_set_cipher_list(pointer, suites12))
        try check(SSL_CTX_set_ciphersuites(pointer, suites13))
        try check(hc_ssl_ctx_set_groups(pointer, groups))
        try check(hc_ssl_ctx_set_signature_algorithms(pointer, signatures))
        hc_ssl_ctx_set_mode(
            pointer, Int(SSL_MODE_RELEASE_BUFFERS) | Int(SSL_MODE_ACCEPT_MOVING_WRITE_BUFFER))
        // A read returns after each record that carries no content, so that these can be counted.
        hc_ssl_ctx_clear_mode(pointer, Int(SSL_MODE_AUTO_RETRY))
        return context
    }

    private static func makeLibraryContext(
        _ configuration: TLSServerConfiguration
    ) throws(TLSFailure) -> TLSLibraryContext {
        let context = try makeBase(TLS_server_method())
        let pointer = context.pointer
        hc_ssl_ctx_set_server_options(pointer)
        hc_ssl_ctx_set_session_cache_mode(pointer, Int(SSL_SESS_CACHE_OFF))
        try check(SSL_CTX_set_max_early_data(pointer, 0))
        let identity = identity(configuration)
        try check(SSL_CTX_set_session_id_context(pointer, identity, UInt32(identity.count)))
        let standard = configuration.certificates.standard
        try check(
            SSL_CTX_use_cert_and_key(pointer, standard.certificate, standard.key, standard.chain, 1)
        )
        SSL_CTX_set_client_hello_cb(pointer, readClientHello, nil)
        hc_ssl_ctx_set_servername_callback(pointer, acknowledgeServerName)
        SSL_CTX_set_cert_cb(pointer, chooseCertificate, nil)
        hc_ssl_ctx_set_status_callback(pointer, staple)
        if !configuration.applicationProtocols.isEmpty {
            SSL_CTX_set_alpn_select_cb(pointer, selectProtocol, nil)
        }
        if let tickets = configuration.tickets {
            SSL_CTX_set_timeout(pointer, Int(tickets.lifetime.components.seconds))
            try check(SSL_CTX_set_tlsext_ticket_key_evp_cb(pointer, handleTicket))
        } else {
            hc_ssl_ctx_refuse_tickets(pointer)
        }
        if let authority = configuration.clientAuthority {
            try trust(authority, pointer)
            for certificate in authority.certificates {
                try check(SSL_CTX_add_client_CA(pointer, certificate))
            }
            SSL_CTX_set_verify(
                pointer, SSL_VERIFY_PEER | SSL_VERIFY_FAIL_IF_NO_PEER_CERT, nil)
            SSL_CTX_set_verify_depth(pointer, clientChainDepthMax)
        }
        return context
    }

    private static func makeLibraryContext(
        _ configuration: TLSClientConfiguration
    ) throws(TLSFailure) -> TLSLibraryContext {
        let context = try makeBase(TLS_client_method())
        let pointer = context.pointer
        hc_ssl_ctx_set_client_options(pointer)
        try check(hc_ssl_ctx_set_min_proto_version(pointer, configuration.versionMin.code))
        try check(hc_ssl_ctx_set_max_proto_version(pointer, configuration.versionMax.code))
        if let authority = configuration.authority {
            try trust(authority, pointer)
            SSL_CTX_set_verify(pointer, SSL_VERIFY_PEER, nil)
        }
        if let certificate = configuration.certificate {
            try check(
                SSL_CTX_use_cert_and_key(
                    pointer, certificate.certificate, certificate.key, certificate.chain, 1))
        }
        let names = configuration.applicationProtocols.flatMap { [UInt8($0.utf8.count)] + $0.utf8 }
        // This one returns 0 for success (SSL_CTX_set_alpn_protos(3)).
        if !names.isEmpty, SSL_CTX_set_alpn_protos(pointer, names, UInt32(names.count)) != 0 {
            throw TLSFailure.take(isServer: false)
        }
        hc_ssl_ctx_set_session_cache_mode(
            pointer, Int(SSL_SESS_CACHE_CLIENT) | Int(SSL_SESS_CACHE_NO_INTERNAL))
        SSL_CTX_sess_set_new_cb(pointer) { ssl, session in
            guard let session, let stream = TLSContext.stream(of: ssl) else { return 0 }
            // A reference that is ours from now on, as 1 says.
            nonisolated(unsafe) let kept = session
            LoopActor.assumeIsolated { stream.context.keep(kept) }
            return 1
        }
        return context
    }

    private static func trust(_ authority: TLSClientAuthority, _ context: OpaquePointer)
        throws(TLSFailure)
    {
        let store = SSL_CTX_get_cert_store(context)
        for certificate in authority.certificates {
            try check(X509_STORE_add_cert(store, certificate))
        }
    }

    /// A new connection's SSL object, which knows its stream.
    func makeSession(for stream: TLSStream) -> TLSSession? {
        ERR_clear_error()
        guard let pointer = SSL_new(library.pointer) else { return nil }
        let session = TLSSession(pointer)
        guard let bio = TLSEngine.makeBIO() else { return nil }
        SSL_set_bio(pointer, bio, bio)
        SSL_set_ex_data(pointer, 0, Unmanaged.passUnretained(stream).toOpaque())
        guard case .client(let configuration) = role else {
            SSL_set_accept_state(pointer)
            return session
        }
        SSL_set_connect_state(pointer)
        hc_ssl_request_ocsp(pointer)
        if let name = configuration.serverName {
            guard hc_ssl_set_host_name(pointer, name) == 1,
                configuration.authority == nil || SSL_set1_host(pointer, name) == 1
            else { return nil }
        }
        if let savedSession { SSL_set_session(pointer, savedSession) }
        return session
    }

    // MARK: Callbacks

    /// The stream whose SSL object this is.
    private nonisolated static func stream(of ssl: OpaquePointer?) -> TLSStream? {
        guard let ssl, let data = SSL_get_ex_data(ssl, 0) else { return nil }
        return Unmanaged<TLSStream>.fromOpaque(data).takeUnretainedValue()
    }

    private typealias HelloCallback =
        @convention(c) (OpaquePointer?, UnsafeMutablePointer<Int32>?, UnsafeMutableRawPointer?) ->
        Int32
    private typealias Callback = @convention(c) (OpaquePointer?, UnsafeMutableRawPointer?) -> Int32

    /// Before anything else is looked at: tickets of TLS 1.2 are opened before OpenSSL has read the name itself. What is
    /// wrong in a hello OpenSSL refuses, but for two things that it lets pass and that are refused here.
    private static let readClientHello: HelloCallback = { ssl, alert, _ in
        guard let ssl, let stream = TLSContext.stream(of: ssl) else {
            return SSL_CLIENT_HELLO_ERROR
        }
        let list = TLSContext.find(TLSEXT_TYPE_server_name, in: ssl)
        // HostName<1..2^16-1> (RFC 6066 3): with less than six bytes it is empty, or there is none.
        if let list, list.count < 6 {
            alert?.pointee = SSL_AD_DECODE_ERROR
            return SSL_CLIENT_HELLO_ERROR
        }
        if let shares = TLSContext.find(TLSEXT_TYPE_key_share, in: ssl),
            TLSContext.hasTwoShares(shares)
        {
            alert?.pointee = SSL_AD_ILLEGAL_PARAMETER
            return SSL_CLIENT_HELLO_ERROR
        }
        let name = list.flatMap { TLSContext.hostName($0) }
        LoopActor.assumeIsolated { stream.serverName = name }
        return SSL_CLIENT_HELLO_SUCCESS
    }

    /// The content of an extension: good until the callback returns.
    private nonisolated static func find(
        _ type: Int32, in ssl: OpaquePointer
    ) -> UnsafeBufferPointer<UInt8>? {
        var bytes: UnsafePointer<UInt8>?
        var count = 0
        guard SSL_client_hello_get0_ext(ssl, UInt32(type), &bytes, &count) == 1 else { return nil }
        return UnsafeBufferPointer(start: bytes, count: count)
    }

    /// Whether an elliptic curve has two shares (RFC 8446 4.2.8): two bytes of length of the list, and for each share two
    /// of its group and two of its length. A list that is malformed is for OpenSSL to refuse.
    private nonisolated static func hasTwoShares(_ bytes: UnsafeBufferPointer<UInt8>) -> Bool {
        var seen: UInt64 = 0
        var index = 2
        while index + 4 <= bytes.count {
            let group = Int(bytes[index]) << 8 | Int(bytes[index + 1])
            // Every curve of RFC 8446 4.2.7 has a number below 64.
            let bit: UInt64 = group < 64 ? 1 << group : 0
            if seen & bit != 0 { return true }
            seen |= bit
            index += 4 + (Int(bytes[index + 2]) << 8 | Int(bytes[index + 3]))
        }
        return false
    }

    /// The one name of the extension (RFC 6066 3): two bytes of length of the list, a type 0, two bytes of length.
    private nonisolated static func hostName(_ bytes: UnsafeBufferPointer<UInt8>) -> String? {
        guard bytes.count > 5, bytes[2] == UInt8(TLSEXT_NAMETYPE_host_name) else { return nil }
        let list = Int(bytes[0]) << 8 | Int(bytes[1])
        let length = Int(bytes[3]) << 8 | Int(bytes[4])
        guard list + 2 == bytes.count, length + 5 == bytes.count else { return nil }
        return TLSHost.normalised(bytes[5...])
    }

    /// Says to the client that its name was used for the choice (RFC 6066 3), if it was.
    private static let acknowledgeServerName: HelloCallback = { ssl, _, _ in
        guard let stream = TLSContext.stream(of: ssl) else { return SSL_TLSEXT_ERR_NOACK }
        let isKnown = LoopActor.assumeIsolated { stream.context.findCertificate(stream) != nil }
        return isKnown ? SSL_TLSEXT_ERR_OK : SSL_TLSEXT_ERR_NOACK
    }

    private func findCertificate(_ stream: TLSStream) -> TLSCertificate? {
        guard let name = stream.serverName else { return nil }
        return certificates?.find(host: name)
    }

    private static let chooseCertificate: Callback = { ssl, _ in
        guard let ssl, let stream = TLSContext.stream(of: ssl) else { return 0 }
        // Used on the loop's thread only, where OpenSSL has called us from a stream's own call.
        nonisolated(unsafe) let connection = ssl
        return LoopActor.assumeIsolated {
            guard let certificates = stream.context.certificates else { return 0 }
            let found = stream.serverName.flatMap { certificates.choice(host: $0)?.all }
            stream.certificates = found ?? [certificates.standard]
            // The default is the context's own already. But the context may be older than `certificates`.
            SSL_certs_clear(connection)
            for one in stream.certificates {
                guard SSL_use_cert_and_key(connection, one.certificate, one.key, one.chain, 1) == 1
                else { return 0 }
            }
            return 1
        }
    }

    private static let staple: Callback = { ssl, _ in
        guard let ssl, let stream = TLSContext.stream(of: ssl) else { return SSL_TLSEXT_ERR_NOACK }
        // Used on the loop's thread only, where OpenSSL has called us from a stream's own call.
        nonisolated(unsafe) let connection = ssl
        return LoopActor.assumeIsolated {
            // Which of them is sent is decided by now (SSL_CTX_set_tlsext_status_cb(3)).
            let sent = SSL_get_certificate(connection)
            guard let certificate = stream.certificates.first(where: { $0.certificate == sent }),
                let expires = certificate.stapleExpires,
                stream.context.clocks.now() < expires,
                hc_ssl_set_ocsp_response(connection, certificate.staple, certificate.staple.count)
                    == 1
            else { return SSL_TLSEXT_ERR_NOACK }
            return SSL_TLSEXT_ERR_OK
        }
    }

    private static let selectProtocol:
        @convention(c) (
            OpaquePointer?, UnsafeMutablePointer<UnsafePointer<UInt8>?>?,
            UnsafeMutablePointer<UInt8>?,
            UnsafePointer<UInt8>?, UInt32, UnsafeMutableRawPointer?
        ) -> Int32 = { ssl, chosen, chosenCount, offered, count, _ in
            guard let stream = TLSContext.stream(of: ssl), let offered else {
                return SSL_TLSEXT_ERR_ALERT_FATAL
            }
            let names = UnsafeBufferPointer(start: offered, count: Int(count))
            let ours = LoopActor.assumeIsolated { stream.context.protocolNames }
            for name in ours {
                guard let position = TLSContext.position(of: name, in: names) else { continue }
                // Points into the client's list, which OpenSSL copies from when we return.
                chosen?.pointee = offered + position
                chosenCount?.pointee = UInt8(name.count)
                return SSL_TLSEXT_ERR_OK
            }
            return SSL_TLSEXT_ERR_ALERT_FATAL
        }

    /// Where a name begins in a list of names that each follow their length.
    private nonisolated static func position(
        of name: [UInt8], in list: UnsafeBufferPointer<UInt8>
    ) -> Int? {
        var index = 0
        while index < list.count {
            let length = Int(list[index])
            guard index + 1 + length <= list.count else { return nil }
            if length == name.count, list[(index + 1)..<(index + 1 + length)].elementsEqual(name) {
                return index + 1
            }
            index += 1 + length
        }
        return nil
    }

    private static let handleTicket:
        @convention(c) (
            OpaquePointer?, UnsafeMutablePointer<UInt8>?, UnsafeMutablePointer<UInt8>?,
            OpaquePointer?,
            OpaquePointer?, Int32
        ) -> Int32 = { ssl, name, iv, cipher, mac, isNew in
            guard let stream = TLSContext.stream(of: ssl), let name, let iv, let cipher, let mac
            else { return -1 }
            // Used before this returns, on the loop's thread.
            nonisolated(unsafe) let (keyName, vector, encryption, authentication) = (
                name, iv, cipher, mac
            )
            return LoopActor.assumeIsolated {
                guard let tickets = stream.context.tickets else { return 0 }
                let host = stream.serverName ?? ""
                if isNew == 1 {
                    let isSet = tickets.seal(
                        host: host, name: keyName, iv: vector, cipher: encryption,
                        mac: authentication)
                    return isSet ? 1 : -1
                }
                let opening = tickets.open(
                    host: host, name: keyName, iv: vector, cipher: encryption, mac: authentication)
                return switch opening {
                case .unknown: 0
                case .current: 1
                case .renew: 2
                }
            }
        }
}

extension TLSVersion {
    var code: Int32 {
        switch self {
        case .tls12: TLS1_2_VERSION
        case .tls13: TLS1_3_VERSION
        }
    }
}
