import CCurl
import HCCore
import HCIO

extension TransferPlan {
    /// Every option that matters is set, so that neither a default nor the environment decides.
    func apply(to easy: inout CurlEasy, _ configuration: HTTPClientConfiguration) {
        easy.set(CURLOPT_URL, url.text)
        easy.set(CURLOPT_PATH_AS_IS, 1)
        easy.set(CURLOPT_PROTOCOLS_STR, url.scheme.rawValue)
        easy.set(CURLOPT_FOLLOWLOCATION, 0)
        easy.set(CURLOPT_DISALLOW_USERNAME_IN_URL, 1)
        // No proxy from the environment, none at all.
        easy.set(CURLOPT_PROXY, "")
        easy.set(CURLOPT_NOPROXY, "*")
        easy.set(CURLOPT_NETRC, 0)
        easy.set(CURLOPT_NOSIGNAL, 1)
        easy.set(CURLOPT_HTTP09_ALLOWED, 0)
        easy.set(CURLOPT_USERAGENT, configuration.userAgent)
        applyConnection(to: &easy, configuration)
        applyContent(to: &easy)
        easy.set(CURLOPT_HTTPHEADER, lines: headerLines)
    }

    private func applyConnection(
        to easy: inout CurlEasy, _ configuration: HTTPClientConfiguration
    ) {
        if case .name(let name) = url.host {
            let list = addresses.map { address in
                if case .ipv6 = address { "[\(address.host)]" } else { address.host }
            }
            // The "+" lets curl forget it as it forgets what it has looked up itself.
            let entry = "+\(name):\(url.port):\(list.joined(separator: ","))"
            easy.set(CURLOPT_RESOLVE, lines: [entry])
            easy.set(CURLOPT_DNS_CACHE_TIMEOUT, 60)
        }
        easy.set(CURLOPT_CONNECTTIMEOUT_MS, milliseconds(configuration.connectTimeout))
        easy.set(CURLOPT_MAXAGE_CONN, seconds(configuration.idleTimeout))
        easy.set(CURLOPT_MAXLIFETIME_CONN, seconds(configuration.connectionLifetimeMax))
        easy.set(CURLOPT_TCP_KEEPALIVE, 1)
        easy.set(CURLOPT_SSL_VERIFYPEER, 1)
        easy.set(CURLOPT_SSL_VERIFYHOST, 2)
        easy.set(CURLOPT_SSLVERSION, CURL_SSLVERSION_TLSv1_2)
        if let file = configuration.certificateAuthorities { easy.set(CURLOPT_CAINFO, file) }
        // What may have to wait gets a connection of its own: on one of HTTP/2 a reader who rests would, in this
        // libcurl, hold up everybody else's streams.
        if url.scheme == .https, !isStreamed, !isUpload {
            easy.set(CURLOPT_HTTP_VERSION, CURL_HTTP_VERSION_2TLS)
            easy.set(CURLOPT_PIPEWAIT, 1)
        } else {
            easy.set(CURLOPT_HTTP_VERSION, CURL_HTTP_VERSION_1_1)
        }
    }

    private var isUpload: Bool {
        if case .stream = content { true } else { false }
    }

    private func applyContent(to easy: inout CurlEasy) {
        switch content {
        case .none:
            switch method {
            case .get: break
            case .head: easy.set(CURLOPT_NOBODY, 1)
            case .post, .put, .patch:
                // Their servers want to be told that there is none (RFC 9110 8.6).
                easy.setContent([])
                easy.set(CURLOPT_CUSTOMREQUEST, method.name)
            case .delete, .options: easy.set(CURLOPT_CUSTOMREQUEST, method.name)
            }
        case .bytes(let bytes):
            easy.setContent(bytes)
            easy.set(CURLOPT_CUSTOMREQUEST, method.name)
        case .stream(let stream):
            easy.set(CURLOPT_UPLOAD, 1)
            easy.setOffset(CURLOPT_INFILESIZE_LARGE, stream.count ?? -1)
            easy.set(CURLOPT_CUSTOMREQUEST, method.name)
        }
    }

    /// curl takes "Name: value"; "Name;" is a field without a value, and "Name:" takes back one that it would add.
    private var headerLines: [String] {
        var lines = headers.pairs.map { name, value in
            value.utf8.allSatisfy(ByteClass.isBlank) ? "\(name);" : "\(name): \(value)"
        }
        if !headers.contains(.contentType) { lines.append("Content-Type:") }
        lines.append("Expect:")
        return lines
    }

    private func milliseconds(_ duration: Duration) -> Int {
        Int(clamping: max(1, duration.inMilliseconds))
    }

    private func seconds(_ duration: Duration) -> Int {
        Int(clamping: max(1, duration.inSecondsRoundedUp))
    }
}
