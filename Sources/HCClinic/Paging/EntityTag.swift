/// Entity tags: the version of a row in quotes (RFC 9110 8.8.3). Strong, since a version is written as
/// the same bytes each time.
package enum EntityTag {
    package static func text(version: Int64) -> String {
        "\"v\(version)\""
    }

    /// The version that a strong tag of ours names.
    static func version(of tag: Substring) -> Int64? {
        guard tag.hasPrefix("\"v"), tag.hasSuffix("\""), tag.utf8.count > 3 else { return nil }
        let digits = tag.dropFirst(2).dropLast()
        guard digits.utf8.allSatisfy({ TextRules.isDigit($0) }) else { return nil }
        return Int64(digits)
    }
}

/// What a client says in If-Match about the version it has seen (RFC 9110 13.1.1).
package enum IfMatch: Sendable, Equatable {
    /// The field is missing.
    case missing
    /// `*`: any version.
    case any
    /// Versions of strong tags. Weak tags never match, nor do tags that are not ours.
    case versions([Int64])

    private static let tagsMax = 32

    /// - Parameter field: the field's value, lines already joined by commas.
    /// - Throws: `invalid-precondition` if it is no list of entity tags.
    package init(field: String?) throws(ClinicError) {
        guard let field else {
            self = .missing
            return
        }
        let trimmed = TextRules.trim(field)
        if trimmed == "*" {
            self = .any
            return
        }
        let tags = trimmed.split(separator: ",", maxSplits: IfMatch.tagsMax)
        guard !tags.isEmpty, tags.count <= IfMatch.tagsMax else {
            throw ClinicError(.invalidPrecondition)
        }
        var versions: [Int64] = []
        for tag in tags {
            let tag = TextRules.trim(String(tag))
            let isWeak = tag.hasPrefix("W/")
            let opaque = isWeak ? tag.dropFirst(2) : tag[...]
            guard opaque.utf8.count >= 2, opaque.hasPrefix("\""), opaque.hasSuffix("\"") else {
                throw ClinicError(.invalidPrecondition)
            }
            if !isWeak, let version = EntityTag.version(of: opaque) { versions.append(version) }
        }
        self = .versions(versions)
    }

    /// - Throws: `precondition-required` if the client said nothing, `precondition-failed` if it has seen
    ///   another version.
    package func require(version: Int64) throws(ClinicError) {
        switch self {
        case .missing: throw ClinicError(.preconditionRequired)
        case .any: return
        case .versions(let versions):
            if !versions.contains(version) { throw ClinicError(.preconditionFailed) }
        }
    }

    /// For actions, where a client may say what it has seen but need not.
    package func requireIfPresent(version: Int64) throws(ClinicError) {
        if self != .missing { try require(version: version) }
    }

    /// Before anything is read: a request without If-Match is refused whatever it names.
    package func requirePresent() throws(ClinicError) {
        if self == .missing { throw ClinicError(.preconditionRequired) }
    }
}
