import HCCore
import HCCrypto
import HCTenancy
import Testing

@testable import HCClinic

struct PasswordPolicyTests {
    @Test(
        "what anybody would guess is refused",
        arguments: [
            ("short", .tooShort), ("elevenchars", .tooShort),
            ("password1234", .tooCommon), ("PassWord1234", .tooCommon),
            ("aaaaaaaaaaaaaa", .tooCommon), ("abcabcabcabc", .tooCommon),
            ("123456789012", .tooCommon), ("987654321098", .tooCommon),
            ("abcdefghijkl", .tooCommon), ("owner@sunrise.example", .notAllowed),
            ("with\u{0}a nul inside", .invalidCharacters),
        ] as [(String, InvalidField.Code)])
    func refused(_ password: String, _ code: InvalidField.Code) {
        let problem = PasswordPolicy.problem(with: password, email: "Owner@Sunrise.example")
        #expect(problem?.code == code)
    }

    @Test(
        "what is long and not guessed is taken, whatever it is made of",
        arguments: [
            "twelve chars", "correct horse battery staple", "пароль-из-слов", "Tr0ub4dor&3xyz",
        ])
    func taken(_ password: String) {
        #expect(PasswordPolicy.problem(with: password, email: "owner@sunrise.example") == nil)
    }

    @Test("256 bytes are taken, 257 are not")
    func lengths() {
        let long = String((0..<256).map { "abcdefghijklmnopqrstuvwxyz0123456789"[$0 * 7 % 36] })
        #expect(PasswordPolicy.problem(with: long, email: "a@b.co") == nil)
        #expect(PasswordPolicy.problem(with: long + "x", email: "a@b.co")?.code == .tooLong)
    }
}

extension String {
    fileprivate subscript(offset: Int) -> Character { self[index(startIndex, offsetBy: offset)] }
}

struct LockoutPolicyTests {
    @Test("ten attempts are free, then the waits double up to a quarter of an hour")
    func waits() {
        let policy = LockoutPolicy.default
        #expect((1...9).allSatisfy { policy.wait(after: $0) == .zero })
        #expect(policy.wait(after: 10) == .seconds(1))
        #expect(policy.wait(after: 11) == .seconds(2))
        #expect(policy.wait(after: 19) == .seconds(512))
        #expect(policy.wait(after: 20) == .seconds(900))
        #expect(policy.wait(after: Int.max) == .seconds(900))
        #expect(policy.waits.count == 20)
        #expect(policy.waits.last == .seconds(900))
    }

    @Test("addresses without an account are locked as accounts are")
    func phantoms() {
        var phantoms = PhantomLockouts(policy: .default)
        let key = PhantomLockouts.Key(tenant: .zero, token: 42)
        var now = Timestamp(seconds: 1000)
        for _ in 1...10 { #expect(phantoms.attempt(key, at: now) == nil) }
        #expect(phantoms.attempt(key, at: now) == .seconds(1))
        now = now + .seconds(1)
        #expect(phantoms.attempt(key, at: now) == nil)
        #expect(phantoms.attempt(key, at: now) == .seconds(2))
        now = now + .seconds(2) + LockoutPolicy.memory
        for _ in 1...10 { #expect(phantoms.attempt(key, at: now) == nil) }
        #expect(phantoms.attempt(key, at: now) == .seconds(1))
        let other = PhantomLockouts.Key(tenant: .zero, token: 43)
        #expect(phantoms.attempt(other, at: now) == nil)
    }

    @Test("of addresses without an account so many are remembered, and the oldest go")
    func phantomsBounded() {
        var phantoms = PhantomLockouts(policy: .default)
        let now = Timestamp(seconds: 1000)
        func attempt(_ token: Int64) -> Duration? {
            phantoms.attempt(PhantomLockouts.Key(tenant: .zero, token: token), at: now)
        }
        for _ in 1...10 { #expect(attempt(0) == nil) }
        for token in 1..<4096 { #expect(attempt(Int64(token)) == nil) }
        #expect(attempt(0) == .seconds(1))
        for token in 4096..<8192 { #expect(attempt(Int64(token)) == nil) }
        #expect(attempt(0) == nil)
    }
}

struct RefreshTokenTests {
    private let ring: MACRing
    private let sunrise = TenantID(UUID(high: 1, low: 1))
    private let session = SessionID(UUID(high: 7, low: 8))

    init() throws {
        ring = try ClinicSecrets.forTests().refreshTokens
    }

    @Test("a token is read by the clinic that made it, and by no other")
    func bound() throws {
        let made = try RefreshToken(session: session, generation: 5, tenant: sunrise, ring: ring)
        let read = try #require(try RefreshToken(made.text, tenant: sunrise, ring: ring))
        #expect(read.session == session)
        #expect(read.generation == 5)
        #expect(read.hash == made.hash)
        let lakeside = TenantID(UUID(high: 1, low: 2))
        #expect(try RefreshToken(made.text, tenant: lakeside, ring: ring) == nil)
    }

    @Test("a token with any byte changed is none")
    func tampered() throws {
        let made = try RefreshToken(session: session, generation: 1, tenant: sunrise, ring: ring)
        let bytes = try #require(Base64.url.decode(made.text))
        for index in bytes.indices {
            var changed = bytes
            changed[index] ^= 0x40
            #expect(
                try RefreshToken(Base64.url.encode(changed), tenant: sunrise, ring: ring) == nil)
        }
        #expect(try RefreshToken("", tenant: sunrise, ring: ring) == nil)
    }

    private func row(_ change: (inout RefreshRow) -> Void = { _ in }) -> RefreshRow {
        var row = RefreshRow(
            account: AccountID(.zero), family: .zero, hash: [1], generation: 3,
            lastUsedAt: Timestamp(seconds: 0), expiresAt: Timestamp(seconds: 43_200),
            isRevoked: false, roles: RoleSet(.doctor), isAccountActive: true, patient: nil)
        change(&row)
        return row
    }

    private func decide(_ row: RefreshRow, generation: Int32 = 3, at seconds: Int64 = 60)
        -> RefreshDecision
    {
        RefreshDecision.decide(
            ([1], generation), row, policy: SessionPolicy(), now: Timestamp(seconds: seconds))
    }

    @Test("the present token of a living session is exchanged")
    func rotates() {
        #expect(decide(row()) == .rotate)
    }

    @Test("a token of an earlier generation is a reuse, whatever became of the session")
    func reuse() {
        #expect(decide(row { $0.hash = [2] }, generation: 2) == .reused)
        #expect(
            decide(
                row {
                    $0.hash = [2]
                    $0.isRevoked = true
                }, generation: 1) == .reused)
    }

    @Test("a session ends by revocation, by its account, by its age and by idleness")
    func ends() {
        #expect(decide(row { $0.isRevoked = true }) == .ended)
        #expect(decide(row { $0.isAccountActive = false }) == .ended)
        #expect(decide(row { $0.expiresAt = Timestamp(seconds: 60) }) == .ended)
        #expect(decide(row(), at: 1799) == .rotate)
        #expect(decide(row(), at: 1800) == .ended)
    }

    @Test("of several roles the shortest idle time counts")
    func idleByRole() {
        let policy = SessionPolicy(idleByRole: [.admin: .seconds(60)])
        #expect(policy.idle(for: [RoleSet(.admin), RoleSet(.doctor)]) == .seconds(60))
        #expect(policy.idle(for: RoleSet(.doctor)) == .seconds(900))
    }
}

struct AccessClaimsTests {
    @Test("claims are the same after they were written")
    func roundTrip() {
        let claims = AccessClaims(
            tenant: TenantID(UUID(high: 1, low: 2)), account: AccountID(UUID(high: 3, low: 4)),
            session: SessionID(UUID(high: 5, low: 6)), patient: PatientID(UUID(high: 7, low: 8)))
        #expect(AccessClaims(json: claims.json) == claims)
    }

    @Test("claims of another shape are none")
    func malformed() {
        #expect(AccessClaims(json: JSONObject()) == nil)
        var claims = AccessClaims(
            tenant: TenantID(.zero), account: AccountID(.zero), session: SessionID(.zero),
            patient: nil
        ).json
        claims.insert(.integer(5), for: "pid")
        #expect(AccessClaims(json: claims) == nil)
    }
}
