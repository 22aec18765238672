import HCCrypto

/// The server's half of the opening handshake (RFC 6455 4.2, RFC 8441 5).
package enum WebSocketHandshake {
    package enum Refusal: String, Sendable, CaseIterable {
        /// Not a request for a WebSocket at all.
        case noUpgrade = "no-upgrade"
        case version
        case key
        case extensions
        case subprotocols
        case tooMany = "too-many"
    }

    /// What a valid handshake says.
    struct Request {
        /// What the client's key becomes (RFC 6455 4.2.2); nil over HTTP/2, which has no keys.
        let accept: String?
        let offers: [WebSocketExtensionOffer]
        /// In the client's order of preference.
        let subprotocols: [String]
    }

    static let version: HTTPFieldName = "Sec-WebSocket-Version"
    static let key: HTTPFieldName = "Sec-WebSocket-Key"
    static let accept: HTTPFieldName = "Sec-WebSocket-Accept"
    static let extensions: HTTPFieldName = "Sec-WebSocket-Extensions"
    static let subprotocol: HTTPFieldName = "Sec-WebSocket-Protocol"

    static let subprotocolsMax = 32

    static func read(_ request: HTTPRequest) -> Result<Request, Refused> {
        guard case .webSocket(let form) = request.upgrade else {
            return .failure(Refused(.noUpgrade, upgradeRequired))
        }
        let headers = request.headers
        let versions = headers.values(version)
        guard versions == ["13"] else {
            return .failure(Refused(.version, versions.count > 1 ? malformed : upgradeRequired))
        }
        var acceptValue: String?
        if form == .upgradeField {
            guard let key = headers[key], headers.count(of: self.key) == 1, isKey(key) else {
                return .failure(Refused(.key, malformed))
            }
            acceptValue = acceptance(of: key)
        }
        guard let offers = WebSocketExtensionOffer.list(headers.values(extensions)) else {
            return .failure(Refused(.extensions, malformed))
        }
        guard let subprotocols = tokens(headers.values(subprotocol)) else {
            return .failure(Refused(.subprotocols, malformed))
        }
        return .success(
            Request(accept: acceptValue, offers: offers, subprotocols: subprotocols))
    }

    struct Refused: Error {
        let refusal: Refusal
        let problem: Problem

        init(_ refusal: Refusal, _ problem: Problem) {
            self.refusal = refusal
            self.problem = problem
        }
    }

    /// RFC 6455 4.4: tells the version that we speak.
    private static var upgradeRequired: Problem {
        Problem(
            .upgradeRequired, code: "upgrade-required", title: "Upgrade Required",
            detail: "This is a WebSocket endpoint (RFC 6455, version 13).",
            headers: HTTPHeaders([(version, "13")]))
    }

    private static var malformed: Problem {
        Problem(
            .badRequest, code: "invalid-handshake", title: "Bad Request",
            detail: "The WebSocket handshake is not as RFC 6455 4.1 asks.")
    }

    /// 16 bytes in base64.
    private static func isKey(_ text: String) -> Bool {
        guard text.utf8.count == 24, text.hasSuffix("==") else { return false }
        return Base64.standard.decode(text.dropLast(2))?.count == 16
    }

    static func acceptance(of key: String) -> String {
        let digest = SHA1.hash(Array((key + "258EAFA5-E914-47DA-95CA-C5AB0DC85B11").utf8))
        return Base64.standard.encode(digest) + "="
    }

    /// A list of distinct tokens; empty without a field.
    private static func tokens(_ values: [String]) -> [String]? {
        var found: [String] = []
        for value in values {
            for part in value.split(separator: ",", omittingEmptySubsequences: true) {
                let name = part.trimmingBlanks()
                if name.isEmpty { continue }
                guard name.utf8.allSatisfy(ByteClass.isToken), found.count < subprotocolsMax,
                    !found.contains(name)
                else { return nil }
                found.append(name)
            }
        }
        return found
    }
}

extension Substring {
    fileprivate func trimmingBlanks() -> String {
        var text = self
        while let first = text.utf8.first, ByteClass.isBlank(first) { text.removeFirst() }
        while let last = text.utf8.last, ByteClass.isBlank(last) { text.removeLast() }
        return String(text)
    }
}
