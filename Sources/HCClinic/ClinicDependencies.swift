package import HCCore
package import HCCrypto
package import HCIO

/// What the services of HCClinic stand on, made once per process.
package struct ClinicDependencies: Sendable {
    package var clocks: Clocks
    /// Passwords are hashed here.
    package var blockingPool: BlockingPool
    package var secrets: ClinicSecrets
    package var zones: ZoneCatalog
    package var sessions: SessionPolicy
    package var lockout: LockoutPolicy
    package var passwordHashing: PasswordHash.Parameters
    package var logger: Logger

    package init(
        clocks: Clocks, blockingPool: BlockingPool, secrets: ClinicSecrets,
        zones: ZoneCatalog = .system, sessions: SessionPolicy = SessionPolicy(),
        lockout: LockoutPolicy = .default, passwordHashing: PasswordHash.Parameters = .current,
        logger: Logger = .silent
    ) {
        self.clocks = clocks
        self.blockingPool = blockingPool
        self.secrets = secrets
        self.zones = zones
        self.sessions = sessions
        self.lockout = lockout
        self.passwordHashing = passwordHashing
        self.logger = logger
    }

    func makeID<Kind>() -> Identifier<Kind> {
        var random = SystemRandom()
        return .make(at: clocks.now(), using: &random)
    }

    func makeUUID() -> UUID {
        var random = SystemRandom()
        return .v7(at: clocks.now(), using: &random)
    }
}

/// Keys of the platform, not of a clinic: access tokens, and the codes in refresh tokens and cursors.
package struct ClinicSecrets: Sendable {
    package let tokens: TokenKeyRing
    let cursors: MACRing
    let refreshTokens: MACRing

    package init(tokens: TokenKeyRing) throws(CryptoError) {
        self.tokens = tokens
        cursors = MACRing(try tokens.deriveKeys(for: "hc cursor"))
        refreshTokens = MACRing(try tokens.deriveKeys(for: "hc refresh token"))
    }
}

/// Short authentication codes under the first of some keys, accepted under all of them, so that keys can be
/// rotated without a refused cursor.
struct MACRing: Sendable {
    static let codeCount = 16
    private let keys: [HMACKey]

    init(_ keys: [HMACKey]) {
        precondition(!keys.isEmpty, "a ring has a key")
        self.keys = keys
    }

    func code(for message: [UInt8]) throws(CryptoError) -> [UInt8] {
        try MACRing.code(for: message, under: keys[0])
    }

    func isValid(_ code: [UInt8], for message: [UInt8]) throws(CryptoError) -> Bool {
        for key in keys where constantTimeEquals(try MACRing.code(for: message, under: key), code) {
            return true
        }
        return false
    }

    private static func code(for message: [UInt8], under key: HMACKey) throws(CryptoError)
        -> [UInt8]
    {
        Array(try key.authenticationCode(for: message).bytes.prefix(codeCount))
    }
}
