/// The name of a clinic in its hostname: `sunrise` in `sunrise.api.example.org`.
///
/// One label of a hostname (RFC 1123 2.1, RFC 5891 4.2.3.1 for the double hyphen), 3 to 40 characters, lower
/// case, starting with a letter, and none of the names that belong to the platform.
package struct Slug: Sendable, Hashable, CustomStringConvertible {
    package let text: String

    package static let lengthRange = 3...40

    /// Hostnames that HC or its operators serve themselves.
    package static let reserved: Set<String> = [
        "admin", "api", "app", "assets", "auth", "cdn", "console", "docs", "health", "localhost",
        "login",
        "mail", "metrics", "ops", "status", "support", "system", "www",
    ]

    /// - Throws: `ControlError` (`bad-slug`) that names the rule that is broken.
    package init(_ text: String) throws(ControlError) {
        func refuse(_ reason: String) -> ControlError {
            ControlError(
                .invalid, code: "bad-slug", "'\(text)' cannot be a clinic's slug: \(reason)",
                remedy:
                    "Use 3 to 40 lower-case letters, digits and single hyphens, such as 'hillview'."
            )
        }
        let bytes = Array(text.utf8)
        guard Slug.lengthRange.contains(bytes.count) else {
            throw refuse("it has \(text.count) characters")
        }
        for byte in bytes {
            switch byte {
            case UInt8(ascii: "a")...UInt8(ascii: "z"), UInt8(ascii: "0")...UInt8(ascii: "9"),
                UInt8(ascii: "-"):
                continue
            default:
                throw refuse("only a-z, 0-9 and '-' may stand in it")
            }
        }
        guard let first = bytes.first, (UInt8(ascii: "a")...UInt8(ascii: "z")).contains(first)
        else {
            throw refuse("it must start with a letter")
        }
        guard bytes.last != UInt8(ascii: "-") else { throw refuse("it must not end with a hyphen") }
        guard !text.contains("--") else { throw refuse("it must not contain two hyphens in a row") }
        guard !Slug.reserved.contains(text) else {
            throw refuse("the name is reserved for the platform")
        }
        self.text = text
    }

    package var description: String { text }
}
