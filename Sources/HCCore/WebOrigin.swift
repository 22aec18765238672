/// A web origin: scheme, host and port, in the one form in which browsers send it (RFC 6454 6.2, Fetch 3.2).
///
/// Two origins are the same if their texts are: lower case, without the scheme's own port, without a path. The
/// opaque origin `null` is none: every sandboxed page and every local file has it.
package struct WebOrigin: Sendable, Hashable, CustomStringConvertible {
    /// `https://portal.example`, `http://localhost:3000`.
    package let text: String
    package let isSecure: Bool
    /// Of this machine: `localhost`, a name under it, 127.0.0.0/8 or `[::1]`. Browsers trust these without TLS.
    package let isLoopback: Bool

    package var description: String { text }

    /// Longer is no origin: a host has 253 characters at most (RFC 1035 2.3.4).
    package static let bytesMax = 280

    /// What is wrong with a text that was meant to be an origin.
    package enum Problem: Error, Sendable, Hashable, CustomStringConvertible {
        case null
        case wildcard
        case scheme
        case userInformation
        case path
        case host
        case port

        package var description: String {
            switch self {
            case .null: "'null' is the origin of every sandboxed page: it cannot be allowed"
            case .wildcard: "there are no wildcards: name each origin"
            case .scheme: "it must begin with https:// (or http://)"
            case .userInformation: "it must not have a user"
            case .path: "an origin ends with its host or port: no path, no slash"
            case .host:
                "its host must be a name in letters, digits and hyphens (other scripts in their"
                    + " xn-- form), an IPv4 address or [::1]"
            case .port: "its port must be a number from 1 to 65535 without leading zeros"
            }
        }
    }

    /// Reads what a person wrote: upper case and the scheme's own port are put right.
    package init(written text: String) throws(Problem) {
        try self.init(parsing: text.lowercased(), isExact: false)
    }

    /// Reads the `Origin` field of a request: nil unless it is in the one form, to the letter.
    package init?(field: String) {
        guard let origin = try? WebOrigin(parsing: field, isExact: true) else { return nil }
        self = origin
    }

    private init(parsing text: String, isExact: Bool) throws(Problem) {
        guard text != "null" else { throw .null }
        guard !text.utf8.contains(UInt8(ascii: "*")) else { throw .wildcard }
        guard text.utf8.count <= WebOrigin.bytesMax else { throw .host }
        var rest: Substring
        if text.hasPrefix("https://") {
            isSecure = true
            rest = text.dropFirst(8)
        } else if text.hasPrefix("http://") {
            isSecure = false
            rest = text.dropFirst(7)
        } else {
            throw .scheme
        }
        guard !rest.utf8.contains(UInt8(ascii: "@")) else { throw .userInformation }
        guard !rest.utf8.contains(where: { [0x2F, 0x3F, 0x23, 0x5C].contains($0) }) else {
            throw .path
        }
        let host: Substring
        if rest.hasPrefix("[") {
            // Of the many forms of an IPv6 address only the one that developers use is worth it.
            guard rest.hasPrefix("[::1]") else { throw .host }
            host = rest.prefix(5)
            isLoopback = true
        } else {
            host = rest.prefix { $0 != ":" }
            switch WebOrigin.classify(host) {
            case .none: throw .host
            case .name: isLoopback = host == "localhost" || host.hasSuffix(".localhost")
            case .address(let first): isLoopback = first == 127
            }
        }
        rest = rest.dropFirst(host.count)
        let defaultPort = isSecure ? 443 : 80
        guard !rest.isEmpty else {
            self.text = (isSecure ? "https://" : "http://") + host
            return
        }
        let digits = rest.dropFirst()
        guard rest.first == ":", (1...5).contains(digits.utf8.count),
            digits.utf8.allSatisfy({ (0x30...0x39).contains($0) }),
            digits.first != "0", let port = Int(digits), port <= 65535
        else { throw .port }
        if port == defaultPort {
            guard !isExact else { throw .port }
            self.text = (isSecure ? "https://" : "http://") + host
        } else {
            self.text = (isSecure ? "https://" : "http://") + host + ":\(port)"
        }
    }

    private enum Host {
        case none
        case name
        case address(first: Int)
    }

    /// Labels of letters, digits and inner hyphens (RFC 1123 2.1). A host whose last label is a number is an IPv4
    /// address to a browser (WHATWG URL 3.5), and then in its full decimal form.
    private static func classify(_ host: Substring) -> Host {
        guard (1...253).contains(host.utf8.count) else { return .none }
        let labels = host.split(separator: ".", omittingEmptySubsequences: false)
        for label in labels {
            guard (1...63).contains(label.utf8.count), label.utf8.first != 0x2D,
                label.utf8.last != 0x2D,
                label.utf8.allSatisfy({
                    (0x61...0x7A).contains($0) || (0x30...0x39).contains($0) || $0 == 0x2D
                })
            else { return .none }
        }
        guard let last = labels.last, isNumber(last) else { return .name }
        let parts = labels.compactMap { label -> Int? in
            guard label.utf8.count <= 3, label == "0" || label.first != "0",
                let value = Int(label), (0...255).contains(value)
            else { return nil }
            return value
        }
        guard labels.count == 4, parts.count == 4 else { return .none }
        return .address(first: parts[0])
    }

    /// Digits, or "0x" and hex digits.
    private static func isNumber(_ label: Substring) -> Bool {
        if label.utf8.allSatisfy({ (0x30...0x39).contains($0) }) { return true }
        return label.hasPrefix("0x")
            && label.utf8.dropFirst(2).allSatisfy {
                (0x30...0x39).contains($0) || (0x61...0x66).contains($0)
            }
    }
}
