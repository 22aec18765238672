package import HCCore

/// What a server's side of TLS is made with.
package struct TLSServerConfiguration: Sendable {
    /// A name of the listener: sessions of one purpose are not resumed by another.
    package var purpose: String
    package var certificates: TLSCertificates
    /// ALPN names (RFC 7301), the one we like best first. A client that names none gets none; one that names only
    /// others gets the alert `no_application_protocol`.
    package var applicationProtocols: [String]
    /// Nil: sessions are not resumed.
    package var tickets: TLSTickets?
    /// Set: a client without a certificate of theirs is refused.
    package var clientAuthority: TLSClientAuthority?
    /// Sent, without TLS, to a client that speaks in letters: somebody typed http for https. Nil: nothing is.
    package var plaintextAnswer: (@Sendable (_ now: Timestamp) -> [UInt8])?
    package var timeouts = TLSEndTimeouts()

    package init(
        purpose: String = "public", certificates: TLSCertificates,
        applicationProtocols: [String] = [], tickets: TLSTickets? = nil,
        clientAuthority: TLSClientAuthority? = nil,
        plaintextAnswer: (@Sendable (_ now: Timestamp) -> [UInt8])? = nil
    ) {
        self.purpose = purpose
        self.certificates = certificates
        self.applicationProtocols = applicationProtocols
        self.tickets = tickets
        self.clientAuthority = clientAuthority
        self.plaintextAnswer = plaintextAnswer
    }
}

/// How long a stream that is over may take until it is gone.
package struct TLSEndTimeouts: Sendable {
    /// After a failure the peer's input is thrown away for so long, that our alert is not lost to a reset.
    package var lingering: Duration = .seconds(1)
    /// A closed stream hands its last bytes to the socket.
    package var closing: Duration = .seconds(30)

    package init() {}
}

/// What a client's side of TLS is made with: for tools and tests that speak to our own servers.
package struct TLSClientConfiguration: Sendable {
    /// The server's name, sent as SNI and checked against its certificate. Nil: neither.
    package var serverName: String?
    /// Whom to believe; nil: everybody.
    package var authority: TLSClientAuthority?
    /// What to show to a server that asks.
    package var certificate: TLSCertificate?
    package var applicationProtocols: [String] = []
    package var versionMax: TLSVersion = .tls13
    package var versionMin: TLSVersion = .tls12

    package init() {}
}

/// What a handshake has agreed upon.
package struct TLSHandshake: Sendable {
    package let version: TLSVersion
    /// OpenSSL's name of the suite: `TLS_AES_128_GCM_SHA256`.
    package let cipher: String
    package let isResumed: Bool
    package let applicationProtocol: String?
    /// What the client asked for, if it is a host name at all.
    package let serverName: String?
    /// The subject of the peer's certificate, if it showed one that was accepted.
    package let peerSubject: String?
}
