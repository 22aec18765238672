internal import COpenSSL

/// Why a handshake or an established TLS connection broke: a reason of our own for counters, and OpenSSL's
/// code for logs.
package struct TLSFailure: Error, Equatable, Sendable, CustomStringConvertible {
    package enum Reason: String, CaseIterable, Sendable {
        /// HTTP, or something else in letters, without TLS.
        case plaintext
        /// The first bytes are no TLS record.
        case notTLS = "not-tls"
        case protocolVersion = "protocol-version"
        /// No cipher suite, group or signature algorithm in common.
        case noCommonParameters = "no-common-parameters"
        case noApplicationProtocol = "no-application-protocol"
        case clientCertificateMissing = "client-certificate-missing"
        case clientCertificateRefused = "client-certificate-refused"
        /// The certificate of a server that we connect to.
        case serverCertificateRefused = "server-certificate-refused"
        /// A record that does not decrypt.
        case badRecord = "bad-record"
        case unexpectedMessage = "unexpected-message"
        case malformed
        /// Records without content, one after the other.
        case uselessRecords = "useless-records"
        case alertReceived = "alert-received"
        case disconnected
        /// The connection ended without close_notify (RFC 8446 6.1).
        case truncated
        case timeout
        /// Given up in favour of newer handshakes.
        case overload
        /// The server ends, or its owner closed the stream.
        case cancelled
        /// OpenSSL could not do its work: memory, a key.
        case library
    }

    package let reason: Reason
    /// `ERR_get_error()`, or 0.
    package let code: UInt

    package init(_ reason: Reason, code: UInt = 0) {
        self.reason = reason
        self.code = code
    }

    package var description: String {
        guard code != 0 else { return reason.rawValue }
        return "\(reason.rawValue) (\(TLSLibrary.text(of: code)))"
    }

    /// What streams say to their delegates.
    var systemError: SystemError { SystemError(errno: EPROTO, call: "TLS") }

    /// Takes what OpenSSL has left in this thread's queue of errors: the first that is TLS's own tells most.
    static func take(isServer: Bool) -> TLSFailure {
        var chosen: UInt = 0
        while true {
            let code = UInt(ERR_get_error())
            if code == 0 { break }
            if chosen == 0
                || (library(of: chosen) != ERR_LIB_SSL && library(of: code) == ERR_LIB_SSL)
            {
                chosen = code
            }
        }
        return TLSFailure(reason(of: chosen, isServer: isServer), code: chosen)
    }

    private static func library(of code: UInt) -> Int32 { ERR_GET_LIB(code) }

    private static func reason(of code: UInt, isServer: Bool) -> Reason {
        guard library(of: code) == ERR_LIB_SSL else { return .library }
        let number = ERR_GET_REASON(code)
        // SSL_AD_REASON_OFFSET: an alert that the peer has sent.
        if number >= 1000 { return .alertReceived }
        switch number {
        case SSL_R_HTTP_REQUEST, SSL_R_HTTPS_PROXY_REQUEST: return .plaintext
        case SSL_R_WRONG_VERSION_NUMBER, SSL_R_UNKNOWN_PROTOCOL, SSL_R_UNSUPPORTED_SSL_VERSION,
            SSL_R_PACKET_LENGTH_TOO_LONG:
            return .notTLS
        case SSL_R_UNSUPPORTED_PROTOCOL, SSL_R_VERSION_TOO_LOW, SSL_R_VERSION_TOO_HIGH,
            SSL_R_NO_PROTOCOLS_AVAILABLE, SSL_R_INAPPROPRIATE_FALLBACK:
            return .protocolVersion
        case SSL_R_NO_SHARED_CIPHER, SSL_R_NO_CIPHERS_SPECIFIED, SSL_R_NO_SUITABLE_KEY_SHARE,
            SSL_R_NO_SUITABLE_GROUPS, SSL_R_NO_SUITABLE_SIGNATURE_ALGORITHM,
            SSL_R_NO_SHARED_SIGNATURE_ALGORITHMS, SSL_R_NO_SHARED_GROUPS,
            SSL_R_WRONG_CIPHER_RETURNED, SSL_R_WRONG_CURVE:
            return .noCommonParameters
        case SSL_R_NO_APPLICATION_PROTOCOL: return .noApplicationProtocol
        case SSL_R_PEER_DID_NOT_RETURN_A_CERTIFICATE: return .clientCertificateMissing
        case SSL_R_CERTIFICATE_VERIFY_FAILED:
            return isServer ? .clientCertificateRefused : .serverCertificateRefused
        case SSL_R_DECRYPTION_FAILED_OR_BAD_RECORD_MAC, SSL_R_BLOCK_CIPHER_PAD_IS_WRONG,
            SSL_R_BAD_DECOMPRESSION, SSL_R_DATA_LENGTH_TOO_LONG, SSL_R_ENCRYPTED_LENGTH_TOO_LONG:
            return .badRecord
        case SSL_R_UNEXPECTED_MESSAGE, SSL_R_UNEXPECTED_RECORD,
            SSL_R_APP_DATA_IN_HANDSHAKE, SSL_R_NO_RENEGOTIATION:
            return .unexpectedMessage
        // A record that is "too small" is one of more than 32 empty ones.
        case SSL_R_TOO_MANY_WARN_ALERTS, SSL_R_TOO_MANY_KEY_UPDATES, SSL_R_RECORD_TOO_SMALL:
            return .uselessRecords
        case SSL_R_UNEXPECTED_EOF_WHILE_READING: return .truncated
        default: return .malformed
        }
    }
}

enum TLSLibrary {
    /// OpenSSL's words: `unsupported protocol`.
    static func text(of code: UInt) -> String {
        if let reason = ERR_reason_error_string(code) { return String(cString: reason) }
        return "OpenSSL error \(String(code, radix: 16))"
    }

    /// Empties this thread's queue of errors and says the first in words.
    static func takeError() -> String {
        let code = UInt(ERR_get_error())
        ERR_clear_error()
        return code == 0 ? "no reason given" : text(of: code)
    }
}
