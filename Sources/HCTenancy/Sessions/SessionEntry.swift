package import HCCore

/// Marks the ids of sessions.
package enum SessionKind {}

/// A login of an account.
package typealias SessionID = Identifier<SessionKind>

/// What the cache keeps of a session: enough to admit a request without asking PostgreSQL.
///
/// A class, for each request has one out of the cache: one reference, whatever it says.
package final class SessionEntry: Equatable, Sendable {
    package let accountID: UUID
    package let roles: [String]
    /// The session ends at this time, whatever is cached.
    package let expiresAt: Timestamp

    package init(accountID: UUID, roles: [String], expiresAt: Timestamp) {
        self.accountID = accountID
        self.roles = roles
        self.expiresAt = expiresAt
    }

    package static func == (left: SessionEntry, right: SessionEntry) -> Bool {
        left.accountID == right.accountID && left.roles == right.roles
            && left.expiresAt == right.expiresAt
    }
}

/// What the cache says of a session.
package enum SessionLookup: Equatable, Sendable {
    /// PostgreSQL said so a short while ago, and no revocation has come since.
    case active(SessionEntry)
    /// Revoked: no need to ask PostgreSQL.
    case revoked
    /// The cache does not know: ask PostgreSQL, then `fill` with the ticket. Without one (Redis is away)
    /// nothing can be filled.
    case unknown(FillTicket?)

    /// The moment of the lookup in Redis' time. What is then read from PostgreSQL is at least as new, which is
    /// what makes a later fill harmless.
    package struct FillTicket: Hashable, Sendable {
        let asOf: Int64
    }
}

/// The text of a cache entry: `1|<as of>|<expires>|<account>|<roles>`, times in microseconds, or `revoked`. In place of an
/// entry whose roles are others since then stands `1|<as of>|changed`: no entry, and none from before is written over it.
enum SessionText {
    static let tombstone = "revoked"

    enum Content: Equatable {
        case revoked
        case entry(SessionEntry, asOf: Int64)
        case malformed
    }

    static func encode(_ entry: SessionEntry, asOf: Int64) -> String {
        "1|\(asOf)|\(entry.expiresAt.microseconds)|\(entry.accountID)|"
            + entry.roles.joined(separator: ",")
    }

    static func decode(_ text: [UInt8]) -> Content {
        if text.elementsEqual(tombstone.utf8) { return .revoked }
        // Read for every request: the bytes as they stand, without a string for each field.
        var rest = text[...]
        func field() -> ArraySlice<UInt8>? {
            guard let bar = rest.firstIndex(of: UInt8(ascii: "|")) else { return nil }
            defer { rest = rest[(bar + 1)...] }
            return rest[..<bar]
        }
        guard let version = field(), version.elementsEqual("1".utf8),
            let asOf = field().flatMap(decimal), let expires = field().flatMap(decimal),
            let account = field().flatMap({ UUID(utf8: $0) }),
            !rest.contains(UInt8(ascii: "|"))
        else { return .malformed }
        let roles = rest.split(separator: UInt8(ascii: ",")).map {
            String(decoding: $0, as: UTF8.self)
        }
        return .entry(
            SessionEntry(
                accountID: account, roles: roles, expiresAt: Timestamp(microseconds: expires)),
            asOf: asOf)
    }

    private static func decimal(_ digits: ArraySlice<UInt8>) -> Int64? {
        guard (1...18).contains(digits.count) else { return nil }
        var value: Int64 = 0
        for digit in digits {
            guard (0x30...0x39).contains(digit) else { return nil }
            value = value * 10 + Int64(digit - 0x30)
        }
        return value
    }
}

/// Which entries this process believes: those that were written while its connection to Redis has stood.
///
/// A revocation that could not be delivered while Redis was away would otherwise be outlived by an entry from
/// before. Redis' own clock is compared with itself, so the clocks of processes do not matter. Pure.
struct SessionTrust {
    /// Redis' time at the first answer of the present connection: entries from before are not believed.
    private var floor: Int64?
    private var connection: MonotonicTime?

    /// - Parameters:
    ///   - connection: since when the connection stands that gave the answer.
    ///   - now: Redis' time in the answer.
    mutating func answered(on connection: MonotonicTime, now: Int64) {
        guard self.connection != connection else { return }
        self.connection = connection
        floor = now
    }

    func believes(_ asOf: Int64) -> Bool {
        guard let floor else { return false }
        return asOf >= floor
    }
}
