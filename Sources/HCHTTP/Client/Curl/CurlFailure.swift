import CCurl

/// The one table from curl's codes to ours.
enum CurlFailure {
    /// - Parameter wasSent: a connection was there and the request was begun on it.
    static func error(_ code: CURLcode, wasSent: Bool) -> HTTPClientError {
        switch code {
        case CURLE_COULDNT_RESOLVE_HOST: .resolve
        case CURLE_COULDNT_CONNECT, CURLE_INTERFACE_FAILED: .connect
        case CURLE_PEER_FAILED_VERIFICATION, CURLE_SSL_CONNECT_ERROR, CURLE_SSL_CERTPROBLEM,
            CURLE_SSL_CIPHER, CURLE_SSL_CACERT_BADFILE, CURLE_SSL_ISSUER_ERROR,
            CURLE_SSL_INVALIDCERTSTATUS, CURLE_SSL_PINNEDPUBKEYNOTMATCH, CURLE_SSL_CLIENTCERT,
            CURLE_SSL_ENGINE_NOTFOUND, CURLE_SSL_ENGINE_SETFAILED, CURLE_SSL_ENGINE_INITFAILED:
            .tls(words(code))
        // Only the connect timeout is curl's: deadlines are ours.
        case CURLE_OPERATION_TIMEDOUT: wasSent ? .disconnected : .connect
        case CURLE_GOT_NOTHING, CURLE_SEND_ERROR, CURLE_RECV_ERROR, CURLE_PARTIAL_FILE,
            CURLE_HTTP2_STREAM, CURLE_SEND_FAIL_REWIND, CURLE_NO_CONNECTION_AVAILABLE,
            CURLE_SSL_SHUTDOWN_FAILED:
            wasSent ? .disconnected : .connect
        // curl's own bound for one header line is 100 KiB; it calls it so.
        case CURLE_OUT_OF_MEMORY where wasSent: .tooLarge(.head)
        default: .malformed(words(code))
        }
    }

    private static func words(_ code: CURLcode) -> String {
        String(cString: curl_easy_strerror(code))
    }
}
