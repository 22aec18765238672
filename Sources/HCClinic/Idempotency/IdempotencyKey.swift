import HCCore

/// What a client calls one intended change, so that it may ask for it twice
/// (draft-ietf-httpapi-idempotency-key-header-07).
package struct IdempotencyKey: Sendable, Hashable {
    let text: String

    /// - Throws: `invalid-idempotency-key` unless it is 1 to 255 visible ASCII characters. A quoted string
    ///   (the draft's form) and the bare word mean the same.
    package init(_ field: String) throws(ClinicError) {
        var text = Substring(TextRules.trim(field))
        if text.utf8.count >= 2, text.hasPrefix("\""), text.hasSuffix("\"") {
            text = text.dropFirst().dropLast()
        }
        guard (1...255).contains(text.utf8.count),
            text.utf8.allSatisfy({ $0 > 0x20 && $0 < 0x7F })
        else { throw ClinicError(.invalidIdempotencyKey) }
        self.text = String(text)
    }
}

/// The answer of a request that made something: what is sent now, and again when it is asked for again.
package struct CreationReply: Sendable, Equatable {
    package var status: Int
    /// Path of what was made.
    package var location: String
    package var entityTag: String
    /// JSON.
    package var body: [UInt8]
    /// Given before; `Idempotency-Replayed: true` says so.
    package var isReplay: Bool

    package init(
        status: Int = 201, location: String, entityTag: String, body: [UInt8],
        isReplay: Bool = false
    ) {
        self.status = status
        self.location = location
        self.entityTag = entityTag
        self.body = body
        self.isReplay = isReplay
    }
}

extension CreationReply {
    /// `location`, `entityTag` and `body`, each after its length: what is sealed into `idempotency.sealed`.
    var stored: [UInt8] {
        var bytes: [UInt8] = []
        for part in [Array(location.utf8), Array(entityTag.utf8), body] {
            withUnsafeBytes(of: UInt32(part.count).bigEndian) { bytes.append(contentsOf: $0) }
            bytes.append(contentsOf: part)
        }
        return bytes
    }

    /// - Returns: nil for bytes that `stored` did not make.
    init?(stored bytes: [UInt8], status: Int) {
        var rest = bytes[...]
        func part() -> ArraySlice<UInt8>? {
            guard rest.count >= 4 else { return nil }
            let count = rest.prefix(4).reduce(0) { $0 << 8 | Int($1) }
            rest = rest.dropFirst(4)
            guard rest.count >= count else { return nil }
            defer { rest = rest.dropFirst(count) }
            return rest.prefix(count)
        }
        guard let location = part(), let entityTag = part(), let body = part(), rest.isEmpty
        else { return nil }
        self.init(
            status: status, location: String(decoding: location, as: UTF8.self),
            entityTag: String(decoding: entityTag, as: UTF8.self), body: Array(body),
            isReplay: true)
    }
}
