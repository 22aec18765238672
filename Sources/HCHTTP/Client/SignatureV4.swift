package import HCCore
package import HCCrypto

/// Signs requests as AWS and those who speak its protocols want it (Signature Version 4): object storage, mail
/// gateways, key services.
///
/// libcurl has CURLOPT_AWS_SIGV4, but the one of Debian 12 (7.88) does not sort or encode the query (curl issue
/// 9717), takes an empty payload for a streamed one, reads the clock itself and cannot presign. So that there is one
/// truth for both forms, it is made here: a pure function of the request, the credentials and the time.
package struct SignatureV4: Sendable {
    package struct Credentials: Sendable {
        package let accessKeyID: String
        package let secretAccessKey: Sensitive<String>
        /// Of temporary credentials.
        package let sessionToken: Sensitive<String>?

        package init(
            accessKeyID: String, secretAccessKey: Sensitive<String>,
            sessionToken: Sensitive<String>? = nil
        ) {
            self.accessKeyID = accessKeyID
            self.secretAccessKey = secretAccessKey
            self.sessionToken = sessionToken
        }
    }

    package enum Payload: Sendable, Equatable {
        case empty
        /// SHA-256 of the content.
        case digest(Digest256)
        /// Only TLS protects the content then: for what is streamed, and in presigned URLs.
        case unsigned

        var text: String {
            switch self {
            case .empty: "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"
            case .digest(let digest): digest.hex
            case .unsigned: "UNSIGNED-PAYLOAD"
            }
        }
    }

    package let credentials: Credentials
    package let region: String
    package let service: String

    /// Object storage encodes paths and announces payloads by rules of its own.
    private var isStorage: Bool { service == "s3" }

    package init(_ credentials: Credentials, region: String, service: String) {
        self.credentials = credentials
        self.region = region
        self.service = service
    }

    // MARK: Header form

    /// The headers with x-amz-date, x-amz-security-token, x-amz-content-sha256 (storage) and Authorization. Signed
    /// is every one of them but those that change on the way.
    package func sign(
        _ method: HTTPMethod, _ url: OutboundURL, headers: HTTPHeaders, payload: Payload,
        at time: Timestamp
    ) throws(CryptoError) -> HTTPHeaders {
        var signed = headers
        let stamp = Stamp(time)
        signed.set("x-amz-date", stamp.instant)
        if isStorage { signed.set("x-amz-content-sha256", payload.text) }
        if let token = credentials.sessionToken {
            signed.set("x-amz-security-token", token.reveal())
        }
        let fields = SignatureV4.canonicalFields(signed, host: url.authority)
        let names = fields.map(\.name).joined(separator: ";")
        let canonical = canonicalRequest(
            method, url, query: SignatureV4.parameters(of: url), fields, names, payload)
        let signature = try signature(of: canonical, stamp)
        signed.set(
            .authorization,
            "AWS4-HMAC-SHA256 Credential=\(credentials.accessKeyID)/\(scope(stamp)),"
                + " SignedHeaders=\(names), Signature=\(signature)")
        return signed
    }

    // MARK: Query form

    /// The longest that the protocol allows: seven days.
    package static let presignedSecondsMax = 604_800

    /// A URL that is its own permission for `validity`. To be treated as the secret that it is.
    package func presign(
        _ method: HTTPMethod, _ url: OutboundURL, headers: HTTPHeaders = HTTPHeaders(),
        payload: Payload = .unsigned, validity: Duration, at time: Timestamp
    ) throws(CryptoError) -> Sensitive<String> {
        let seconds = validity.inSecondsRoundedUp
        precondition(
            (1...Int64(Self.presignedSecondsMax)).contains(seconds), "valid for seven days at most")
        let stamp = Stamp(time)
        let fields = SignatureV4.canonicalFields(headers, host: url.authority)
        let names = fields.map(\.name).joined(separator: ";")
        var query = SignatureV4.parameters(of: url)
        func add(_ name: String, _ value: String) {
            query.append((Array(name.utf8), Array(value.utf8)))
        }
        add("X-Amz-Algorithm", "AWS4-HMAC-SHA256")
        add("X-Amz-Credential", "\(credentials.accessKeyID)/\(scope(stamp))")
        add("X-Amz-Date", stamp.instant)
        add("X-Amz-Expires", String(seconds))
        add("X-Amz-SignedHeaders", names)
        if let token = credentials.sessionToken { add("X-Amz-Security-Token", token.reveal()) }
        let canonical = canonicalRequest(method, url, query: query, fields, names, payload)
        let signature = try signature(of: canonical, stamp)
        return Sensitive(
            "\(url.origin)\(url.path)?\(SignatureV4.canonicalQuery(query))"
                + "&X-Amz-Signature=\(signature)")
    }

    // MARK: The algorithm

    private struct Stamp {
        let instant: String
        let date: String

        init(_ time: Timestamp) {
            let text = time.rfc3339
            // "2013-05-24T00:00:00Z", perhaps with a fraction, as "20130524T000000Z".
            instant = text.prefix(19).filter { $0 != "-" && $0 != ":" } + "Z"
            date = String(instant.prefix(8))
        }
    }

    private func scope(_ stamp: Stamp) -> String {
        "\(stamp.date)/\(region)/\(service)/aws4_request"
    }

    private func canonicalRequest(
        _ method: HTTPMethod, _ url: OutboundURL, query: [([UInt8], [UInt8])],
        _ fields: [(name: String, value: String)], _ names: String, _ payload: Payload
    ) -> String {
        let lines = fields.map { "\($0.name):\($0.value)\n" }.joined()
        return [
            method.name, canonicalPath(url.path), SignatureV4.canonicalQuery(query), lines, names,
            payload.text,
        ].joined(separator: "\n")
    }

    private func signature(of request: String, _ stamp: Stamp) throws(CryptoError) -> String {
        let text = [
            "AWS4-HMAC-SHA256", stamp.instant, scope(stamp), try SHA256.hash(request).hex,
        ].joined(separator: "\n")
        var key = SecretBytes(Array("AWS4\(credentials.secretAccessKey.reveal())".utf8))
        for part in [stamp.date, region, service, "aws4_request"] {
            let code = try HMACKey(key).authenticationCode(for: Array(part.utf8))
            key = SecretBytes(code.bytes)
        }
        return try HMACKey(key).authenticationCode(for: Array(text.utf8)).hex
    }

    /// Each segment encoded once for storage, whose keys may hold anything; encoded again for all others, as their
    /// rules have it.
    private func canonicalPath(_ path: String) -> String {
        let segments = path.utf8.split(separator: 0x2F, omittingEmptySubsequences: false)
        return segments.map { segment in
            let bytes = isStorage ? PercentEncoding.decode(segment) : Array(segment)
            return PercentEncoding.encode(bytes)
        }.joined(separator: "/")
    }

    private static func parameters(of url: OutboundURL) -> [([UInt8], [UInt8])] {
        guard let query = url.query, !query.isEmpty else { return [] }
        return query.utf8.split(separator: 0x26).map { pair -> ([UInt8], [UInt8]) in
            let mark = pair.firstIndex(of: 0x3D) ?? pair.endIndex
            let name = PercentEncoding.decode(pair[..<mark])
            return (name, PercentEncoding.decode(pair[mark...].dropFirst()))
        }
    }

    /// Sorted by what is encoded, by name and then by value.
    private static func canonicalQuery(_ parameters: [([UInt8], [UInt8])]) -> String {
        let encoded: [(name: String, value: String)] = parameters.map { name, value in
            (PercentEncoding.encode(name), PercentEncoding.encode(value))
        }
        let sorted = encoded.sorted { left, right in
            left.name == right.name ? left.value < right.value : left.name < right.name
        }
        return sorted.map { "\($0.name)=\($0.value)" }.joined(separator: "&")
    }

    /// What a proxy may change, and what is no part of the request itself.
    private static func isUnsigned(_ name: String) -> Bool {
        switch name {
        case "authorization", "connection", "content-length", "expect", "te", "trailer",
            "traceparent", "tracestate", "transfer-encoding", "upgrade", "user-agent", "host":
            true
        default: false
        }
    }

    private static func canonicalFields(
        _ headers: HTTPHeaders, host: String
    ) -> [(name: String, value: String)] {
        var values = ["host": [host]]
        for (name, value) in headers.pairs {
            let name = name.lowercased()
            guard !isUnsigned(name) else { continue }
            // Blanks around it go, those within become one.
            let words = value.split { $0 == " " || $0 == "\t" }
            values[name, default: []].append(words.joined(separator: " "))
        }
        return values.sorted { $0.key < $1.key }.map { ($0.key, $0.value.joined(separator: ",")) }
    }
}

/// Percent-encoding as object storage wants it: everything but the unreserved characters of RFC 3986.
package enum PercentEncoding {
    private static let digits = Array("0123456789ABCDEF".utf8)

    package static func encode(_ bytes: some Sequence<UInt8>) -> String {
        var text: [UInt8] = []
        for byte in bytes {
            switch byte {
            case 0x30...0x39, 0x41...0x5A, 0x61...0x7A, 0x2D, 0x2E, 0x5F, 0x7E: text.append(byte)
            default: text += [0x25, digits[Int(byte >> 4)], digits[Int(byte & 15)]]
            }
        }
        return String(decoding: text, as: UTF8.self)
    }

    /// The path of an object: its key may hold anything, and "/" stays what it is.
    package static func path(of key: String) -> String {
        "/"
            + key.utf8.split(separator: 0x2F, omittingEmptySubsequences: false)
            .map { encode($0) }.joined(separator: "/")
    }

    /// - Precondition: every "%" stands before two hexadecimal digits, as in any `OutboundURL`.
    static func decode(_ text: Substring.UTF8View) -> [UInt8] {
        var bytes: [UInt8] = []
        var rest = text
        while let byte = rest.popFirst() {
            guard byte == 0x25 else {
                bytes.append(byte)
                continue
            }
            guard let high = rest.popFirst().flatMap(ByteClass.hexValue),
                let low = rest.popFirst().flatMap(ByteClass.hexValue)
            else { preconditionFailure("an encoding that is cut short") }
            bytes.append(high << 4 | low)
        }
        return bytes
    }
}
