import HCCore
import HCCrypto
import HCTenancy

/// What is exchanged, once, for new tokens: base64url of session (16) · generation (4) · random (32) · code (16).
///
/// The code proves that we made it for this clinic: so an old generation is known for what it is, however
/// old, and nobody can end somebody's session with an invented one. The row has only its hash.
struct RefreshToken: Sendable {
    private static let randomCount = 32
    private static let payloadCount = 16 + 4 + randomCount
    private static let textBytesMax = 128

    let session: SessionID
    let generation: Int32
    let hash: [UInt8]
    let text: String

    /// Makes one.
    init(
        session: SessionID, generation: Int32, tenant: TenantID, ring: MACRing
    ) throws(CryptoError) {
        let payload =
            session.uuid.bytes
            + withUnsafeBytes(of: generation.bigEndian) { Array($0) }
            + SystemRandom.bytes(RefreshToken.randomCount)
        let bytes = payload + (try ring.code(for: RefreshToken.message(payload, tenant)))
        self.session = session
        self.generation = generation
        hash = try SHA256.hash(bytes).bytes
        text = Base64.url.encode(bytes)
    }

    /// Reads one; nil unless we made it for this clinic.
    init?(_ text: String, tenant: TenantID, ring: MACRing) throws(CryptoError) {
        guard text.utf8.count <= RefreshToken.textBytesMax, let bytes = Base64.url.decode(text),
            bytes.count == RefreshToken.payloadCount + MACRing.codeCount
        else { return nil }
        let payload = Array(bytes.prefix(RefreshToken.payloadCount))
        let code = Array(bytes.suffix(MACRing.codeCount))
        guard try ring.isValid(code, for: RefreshToken.message(payload, tenant)),
            let session = UUID(bytes: payload[..<16])
        else { return nil }
        self.session = SessionID(session)
        generation = Int32(
            bitPattern: payload[16..<20].reduce(0) { $0 << 8 | UInt32($1) })
        hash = try SHA256.hash(bytes).bytes
        self.text = text
    }

    private static func message(_ payload: [UInt8], _ tenant: TenantID) -> [UInt8] {
        var message = AssociatedData()
        message.append("refresh token")
        message.append(tenant.uuid)
        payload.withUnsafeBytes { message.append($0) }
        return message.bytes
    }
}

/// What becomes of a refresh token, by the session's row. Pure.
///
/// Strict: a token that was exchanged before is theft as far as we can know, also when the answer was only
/// lost on its way: whoever has the other copy loses it too.
enum RefreshDecision: Equatable {
    case rotate
    /// Used before: end all sessions of the family.
    case reused
    /// The session is over, or its account may not log in.
    case ended

    static func decide(
        _ token: (hash: [UInt8], generation: Int32), _ row: RefreshRow, policy: SessionPolicy,
        now: Timestamp
    ) -> RefreshDecision {
        guard row.hash == token.hash else {
            return token.generation < row.generation ? .reused : .ended
        }
        guard !row.isRevoked, row.isAccountActive, row.expiresAt > now,
            policy.idleEnd(lastUsedAt: row.lastUsedAt, roles: row.roles) > now
        else { return .ended }
        return .rotate
    }
}

/// What the database knows of a session whose token is exchanged.
struct RefreshRow: Equatable {
    var account: AccountID
    var family: UUID
    var hash: [UInt8]
    var generation: Int32
    var lastUsedAt: Timestamp
    var expiresAt: Timestamp
    var isRevoked: Bool
    var roles: RoleSet
    var isAccountActive: Bool
    var patient: PatientID?
}
