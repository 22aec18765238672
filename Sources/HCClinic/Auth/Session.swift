package import HCCore
package import HCTenancy

/// A login that can be ended.
package struct Session: Sendable, Equatable, JSONWritable {
    package let id: SessionID
    package let createdAt: Timestamp
    /// When its tokens were last refreshed.
    package let lastUsedAt: Timestamp
    package let expiresAt: Timestamp
    /// The one that asks.
    package let isCurrent: Bool

    package func write(to writer: inout JSONWriter) {
        writer.beginObject()
        writer.member("id", id)
        writer.member("createdAt", createdAt)
        writer.member("lastUsedAt", lastUsedAt)
        writer.member("expiresAt", expiresAt)
        writer.member("current", isCurrent)
        writer.endObject()
    }
}

/// What a login or a refresh gives.
package struct TokenPair: Sendable, JSONWritable {
    package let accessToken: String
    /// Whole seconds.
    package let expiresIn: Int64
    package let refreshToken: String

    package func write(to writer: inout JSONWriter) {
        writer.beginObject()
        writer.member("accessToken", accessToken)
        writer.member("tokenType", "Bearer")
        writer.member("expiresIn", expiresIn)
        writer.member("refreshToken", refreshToken)
        writer.endObject()
    }
}

extension TokenPair: CustomStringConvertible, CustomReflectable {
    package var description: String { "***" }
    package var customMirror: Mirror { Mirror(self, children: []) }
}

/// Why a session was ended: `session.revoked_reason`.
enum RevocationReason: String {
    case logout
    case reuse
    case password
    case disabled
}
