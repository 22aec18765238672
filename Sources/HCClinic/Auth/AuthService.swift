package import HCCore
import HCCrypto
package import HCIO
import HCPostgres
package import HCTenancy

/// Who somebody is: logins, tokens, sessions.
@LoopActor
package final class AuthService {
    private let dependencies: ClinicDependencies
    private let passwords: PasswordService
    private var phantoms: PhantomLockouts
    /// Tokens whose signature was found right, until they expire: a client shows the same one for minutes.
    private var verified = LRUCache<TokenEnd, VerifiedToken>(capacityMax: verifiedMax)
    /// Microseconds of lock after each attempt, as SQL takes them.
    private let lockWaits: [Int64]

    /// A class, for it is looked at by each request: a copy would count the references of all claims.
    private final class VerifiedToken: Sendable {
        let text: [UInt8]
        let claims: AccessClaims
        let window: TokenWindow

        init(text: [UInt8], claims: AccessClaims, window: TokenWindow) {
            self.text = text
            self.claims = claims
            self.window = window
        }

        func isText(_ bytes: UnsafeRawBufferPointer) -> Bool {
            text.withUnsafeBytes { TokenKeyRing.isSame($0, bytes) }
        }

        func isOfTime(_ now: Timestamp) -> Bool { (try? window.check(at: now)) != nil }
    }

    /// The last bytes of a token, where it is told from others with least work: they are of its signature. Whoever shows
    /// a token with the same end and another beginning finds nothing.
    private struct TokenEnd: Hashable {
        let high: UInt64
        let low: UInt64

        init?(_ token: UnsafeRawBufferPointer) {
            guard token.count >= 16 else { return nil }
            high = token.loadUnaligned(fromByteOffset: token.count - 16, as: UInt64.self)
            low = token.loadUnaligned(fromByteOffset: token.count - 8, as: UInt64.self)
        }
    }

    /// About half a kilobyte each.
    private nonisolated static let verifiedMax = 8192

    nonisolated init(_ dependencies: ClinicDependencies, passwords: PasswordService) {
        self.dependencies = dependencies
        self.passwords = passwords
        phantoms = PhantomLockouts(policy: dependencies.lockout)
        lockWaits = dependencies.lockout.waits.map { $0.inMicroseconds }
    }

    // MARK: Login

    /// Exchanges an email and a password for tokens.
    ///
    /// Nothing in the answer or its time tells whether there is an account: unknown addresses are hashed for,
    /// counted and locked as known ones are.
    ///
    /// - Throws: `invalid-credentials`, `account-locked`, `busy`.
    package func login(
        _ credentials: LoginCredentials, in context: TenantContext, requestID: String,
        deadline: Deadline
    ) async throws -> TokenPair {
        let keys = try context.keys
        let accounts = AccountStore(tenant: context.id, keys: keys)
        let token = try accounts.emailToken(credentials.email)
        let now = dependencies.clocks.now()
        let results = try await context.write(
            [
                accounts.countAttempt(emailToken: token, waits: lockWaits, at: now),
                accounts.lock(emailToken: token), accounts.leaveTrace(),
            ], audit: [], deadline: deadline)
        guard let row = results[0].first else {
            if let locked = results[1].first {
                let until = try locked.timestampIfPresent(1) ?? now
                try await refuse(
                    "lockout", AccountID(try locked.uuid(0)), in: context, requestID, deadline)
                throw ClinicError(.accountLocked, retryAfter: until - now)
            }
            try await refuseUnknown(
                credentials, PhantomLockouts.Key(tenant: context.id.uuid, token: token),
                in: context, requestID, deadline)
        }
        let account: AccountID = try row.id(0)
        let stored = try row.text(1)
        let verdict = try await passwords.verify(
            credentials.password, against: stored, deadline: deadline)
        guard case .right(let rehashed) = verdict, try row.text(3) == "active" else {
            let locks = try row.timestampIfPresent(6).map { $0 > now } ?? false
            try await refuse(
                locks ? "lockout" : "login", account, in: context, requestID, deadline)
            throw ClinicError(.invalidCredentials)
        }
        return try await open(
            account, patient: try row.idIfPresent(4), accounts: accounts, passwordHash: stored,
            rehashed: rehashed, in: context, requestID, deadline)
    }

    private func refuseUnknown(
        _ credentials: LoginCredentials, _ key: PhantomLockouts.Key, in context: TenantContext,
        _ requestID: String, _ deadline: Deadline
    ) async throws -> Never {
        if let wait = await countPhantom(key, in: context, deadline) {
            try await refuse("lockout", nil, in: context, requestID, deadline)
            throw ClinicError(.accountLocked, retryAfter: wait)
        }
        _ = try await passwords.verify(credentials.password, against: nil, deadline: deadline)
        try await refuse("login", nil, in: context, requestID, deadline)
        throw ClinicError(.invalidCredentials)
    }

    /// - Returns: nil if the attempt is looked at, else how long to wait.
    private func countPhantom(
        _ key: PhantomLockouts.Key, in context: TenantContext, _ deadline: Deadline
    ) async -> Duration? {
        let now = dependencies.clocks.now()
        do {
            if let redis = context.redis {
                return try await redis.countAttempt(
                    key.name, locks: lockWaits, at: now, memory: LockoutPolicy.memory,
                    deadline: deadline.earlier(
                        of: .after(PhantomLockouts.patience, from: Loop.now)))
            }
        } catch {
            // Each process counts by itself then.
        }
        return phantoms.attempt(key, at: now)
    }

    private func refuse(
        _ action: StaticString, _ account: AccountID?, in context: TenantContext,
        _ requestID: String, _ deadline: Deadline
    ) async throws {
        try await context.record(
            AuditEvent(
                actor: .anonymous, action: action, entity: "account", entityID: account?.uuid,
                outcome: .failure, requestID: requestID), deadline: deadline)
    }

    private func open(
        _ account: AccountID, patient: PatientID?, accounts: AccountStore, passwordHash: String,
        rehashed: String?, in context: TenantContext, _ requestID: String, _ deadline: Deadline
    ) async throws -> TokenPair {
        let now = dependencies.clocks.now()
        let session: SessionID = dependencies.makeID()
        let refresh = try RefreshToken(
            session: session, generation: 1, tenant: context.id,
            ring: dependencies.secrets.refreshTokens)
        let sessions = SessionStore(tenant: context.id)
        let expiresAt = now + dependencies.sessions.absolute
        let isOpen = try await context.transaction(.write, deadline: deadline) { transaction in
            let login = try await transaction.execute(
                accounts.recordLogin(account, passwordHash: passwordHash, at: now))
            guard login.affectedRows == 1 else { return false }
            var queries = [
                sessions.insert(
                    session, account: account, refreshHash: refresh.hash, at: now,
                    expiresAt: expiresAt),
                sessions.deleteOld(of: account, at: now),
            ]
            if let rehashed {
                queries.append(accounts.rehash(account, from: passwordHash, to: rehashed))
            }
            _ = try await transaction.execute(queries)
            transaction.audit(
                AuditEvent(
                    actor: .account(account.uuid), action: "login", entity: "session",
                    entityID: session.uuid, requestID: requestID))
            return true
        }
        // Disabled, or given another password, while the old one was looked at.
        guard isOpen else { throw ClinicError(.invalidCredentials) }
        return try tokens(
            account: account, session: session, patient: patient, refresh: refresh,
            in: context, sessionEnd: expiresAt)
    }

    /// - Parameter sessionEnd: an access token does not outlive its session.
    private func tokens(
        account: AccountID, session: SessionID, patient: PatientID?, refresh: RefreshToken,
        in context: TenantContext, sessionEnd: Timestamp
    ) throws -> TokenPair {
        let now = dependencies.clocks.now()
        let life = max(.seconds(1), min(dependencies.sessions.accessTokenLife, sessionEnd - now))
        let claims = AccessClaims(
            tenant: context.id, account: account, session: session, patient: patient)
        return TokenPair(
            accessToken: try dependencies.secrets.tokens.sign(
                claims.json, issuedAt: now, lifetime: .seconds(life.components.seconds)),
            expiresIn: life.components.seconds, refreshToken: refresh.text)
    }

    // MARK: Requests

    /// The time that a request is judged by: read once for all that is asked about it.
    package var now: Timestamp { dependencies.clocks.now() }

    /// Reads an access token: in memory, no await.
    ///
    /// - Parameter time: now, if it was read before.
    /// - Throws: `unauthenticated`; `tenant-mismatch` for a good token of another clinic, which the caller
    ///   records (`recordTenantMismatch`) and answers as `not-found`.
    package func verify(
        _ accessToken: UnsafeRawBufferPointer, in context: TenantContext, at time: Timestamp? = nil
    ) throws(ClinicError) -> AccessClaims {
        let claims = try claims(of: accessToken, at: time ?? now)
        guard claims.tenant == context.id else { throw ClinicError(.tenantMismatch) }
        return claims
    }

    private func claims(
        of accessToken: UnsafeRawBufferPointer, at now: Timestamp
    ) throws(ClinicError) -> AccessClaims {
        guard let end = TokenEnd(accessToken) else { throw ClinicError(.unauthenticated) }
        if let known = verified.find(end), known.isText(accessToken) {
            guard known.isOfTime(now) else {
                // It alone: a forgery that ends like it is another text.
                verified.remove(end)
                throw ClinicError(.unauthenticated)
            }
            return known.claims
        }
        do throws(TokenError) {
            let token = try dependencies.secrets.tokens.verify(accessToken, at: now)
            guard let claims = AccessClaims(json: token.claims, expiresAt: token.expiresAt)
            else {
                throw TokenError.invalidClaims
            }
            verified.insert(
                VerifiedToken(text: Array(accessToken), claims: claims, window: token.window),
                for: end)
            return claims
        } catch {
            throw ClinicError(.unauthenticated)
        }
    }

    /// Decides whether the session of a token is still one, and with which roles.
    ///
    /// - Parameter lookup: what `context.gate(session:…)` said about `claims.session`.
    /// - Throws: `unauthenticated`.
    package func admit(
        _ claims: AccessClaims, _ lookup: SessionLookup, in context: TenantContext,
        requestID: RequestID, deadline: Deadline
    ) async throws -> Actor {
        let entry: SessionEntry
        switch lookup {
        case .active(let cached): entry = cached
        case .revoked: throw ClinicError(.unauthenticated)
        case .unknown(let ticket):
            let rows = try await context.read(
                [
                    SessionStore(tenant: context.id).findActive(
                        claims.session, at: dependencies.clocks.now())
                ], deadline: deadline)
            guard let row = rows[0].first else { throw ClinicError(.unauthenticated) }
            entry = SessionEntry(
                accountID: try row.uuid(0), roles: try row.texts(2),
                expiresAt: try row.timestamp(1))
            if let ticket {
                await context.fillSession(
                    claims.session, entry, ticket: ticket, deadline: deadline)
            }
        }
        return try admit(claims, entry, requestID: requestID, at: now)
    }

    /// The same for a session that is known to be one, with what is known of it.
    package func admit(
        _ claims: AccessClaims, _ entry: SessionEntry, requestID: RequestID, at now: Timestamp
    ) throws(ClinicError) -> Actor {
        guard entry.accountID == claims.account.uuid, entry.expiresAt > now
        else { throw ClinicError(.unauthenticated) }
        return Actor(
            account: claims.account, session: claims.session, roles: RoleSet(names: entry.roles),
            patientID: claims.patient, requestID: requestID, accessEndsAt: claims.expiresAt)
    }

    /// A token of another clinic was shown to this one.
    package func recordTenantMismatch(
        in context: TenantContext, requestID: String, deadline: Deadline
    ) async throws {
        try await context.record(
            AuditEvent(
                actor: .anonymous, action: "tenant-mismatch", entity: "session", outcome: .denied,
                requestID: requestID), deadline: deadline)
    }

    // MARK: Refresh

    /// Exchanges a refresh token, once.
    ///
    /// - Throws: `invalid-refresh-token`; `refresh-token-reused`, after the family's sessions were ended.
    package func refresh(
        _ refreshToken: String, in context: TenantContext, requestID: String, deadline: Deadline
    ) async throws -> TokenPair {
        let ring = dependencies.secrets.refreshTokens
        guard let token = try RefreshToken(refreshToken, tenant: context.id, ring: ring) else {
            throw ClinicError(.invalidRefreshToken)
        }
        let next = try RefreshToken(
            session: token.session, generation: token.generation &+ 1, tenant: context.id,
            ring: ring)
        let store = SessionStore(tenant: context.id)
        let policy = dependencies.sessions
        let now = dependencies.clocks.now()
        enum Outcome {
            case rotated(RefreshRow)
            case reused([SessionID])
            case ended
        }
        let outcome: Outcome = try await context.transaction(.write, deadline: deadline) {
            transaction in
            guard
                let found = try await transaction.execute(store.findForRefresh(token.session)).first
            else { return .ended }
            let row = try SessionStore.refreshRow(found)
            switch RefreshDecision.decide(
                (token.hash, token.generation), row, policy: policy, now: now)
            {
            case .rotate:
                _ = try await transaction.execute(store.rotate(token.session, to: next, at: now))
                transaction.audit(
                    AuditEvent(
                        actor: .account(row.account.uuid), action: "refresh", entity: "session",
                        entityID: token.session.uuid, requestID: requestID))
                return .rotated(row)
            case .reused:
                let ended = try await transaction.execute(
                    store.revokeFamily(row.family, .reuse, at: now))
                transaction.audit(
                    AuditEvent(
                        actor: .anonymous, action: "refresh-reuse", entity: "session",
                        entityID: token.session.uuid, outcome: .denied, requestID: requestID))
                return .reused(try SessionStore.ids(ended))
            case .ended: return .ended
            }
        }
        switch outcome {
        case .rotated(let row):
            return try tokens(
                account: row.account, session: token.session, patient: row.patient, refresh: next,
                in: context, sessionEnd: row.expiresAt)
        case .reused(let sessions):
            // Also those that were ended before: their entries may still be waiting to be forgotten.
            await context.revoke(sessions.isEmpty ? [token.session] : sessions, deadline: deadline)
            throw ClinicError(.refreshTokenReused)
        case .ended: throw ClinicError(.invalidRefreshToken)
        }
    }

    // MARK: Own sessions

    /// The account's sessions that are not over.
    package func sessions(
        _ actor: Actor, in context: TenantContext, deadline: Deadline
    ) async throws -> Page<Session> {
        let account = try await own(actor, in: context, deadline)
        let rows = try await context.read(
            [SessionStore(tenant: context.id).list(of: account, at: dependencies.clocks.now())],
            deadline: deadline)
        return Page(
            items: try rows[0].rows.map {
                try SessionStore.session($0, current: actor.sessionID)
            }, nextCursor: nil)
    }

    /// Ends one of the account's sessions.
    ///
    /// - Throws: `not-found` if there is none of this id that is not over.
    package func revokeSession(
        _ id: SessionID, _ actor: Actor, in context: TenantContext, deadline: Deadline
    ) async throws {
        let account = try await own(actor, in: context, deadline)
        let ended = try await end(actor, in: context, deadline, entityID: id.uuid) { store, now in
            store.revoke(id, of: account, .logout, at: now)
        }
        guard !ended.isEmpty else { throw ClinicError.notFound }
    }

    /// Ends the session that asks. Twice is as well as once.
    package func logout(
        _ actor: Actor, in context: TenantContext, deadline: Deadline
    ) async throws {
        let account = try await own(actor, in: context, deadline)
        guard let session = actor.sessionID else { return }
        _ = try await end(actor, in: context, deadline, entityID: session.uuid) { store, now in
            store.revoke(session, of: account, .logout, at: now)
        }
    }

    /// Ends all sessions of the account, the one that asks too.
    package func logoutAll(
        _ actor: Actor, in context: TenantContext, deadline: Deadline
    ) async throws {
        let account = try await own(actor, in: context, deadline)
        _ = try await end(actor, in: context, deadline, entityID: account.uuid) { store, now in
            store.revokeAll(of: account, .logout, at: now)
        }
    }

    private func own(
        _ actor: Actor, in context: TenantContext, _ deadline: Deadline
    ) async throws -> AccountID {
        _ = try await context.require(.sessionsOwn, of: actor, on: "session", deadline: deadline)
        guard let account = actor.accountID else { throw ClinicError.forbidden }
        return account
    }

    private func end(
        _ actor: Actor, in context: TenantContext, _ deadline: Deadline, entityID: UUID,
        _ query: (SessionStore, Timestamp) -> Query
    ) async throws -> [SessionID] {
        let results = try await context.write(
            [query(SessionStore(tenant: context.id), dependencies.clocks.now())],
            audit: [actor.event("logout", "session", entityID)], deadline: deadline)
        let ended = try SessionStore.ids(results[0])
        await context.revoke(ended, deadline: deadline)
        return ended
    }

    // MARK: The account itself

    /// Who asks, and what it may do.
    package func me(
        _ actor: Actor, in context: TenantContext, deadline: Deadline
    ) async throws -> Me {
        let account = try await own(actor, in: context, deadline)
        let accounts = AccountStore(tenant: context.id, keys: try context.keys)
        let rows = try await context.read([accounts.find(account)], deadline: deadline)
        guard let row = rows[0].first else { throw ClinicError(.unauthenticated) }
        return Me(account: try accounts.account(row))
    }

    /// Replaces the own password and ends the other sessions.
    ///
    /// - Throws: `invalid-credentials` for a wrong present password, which counts as a failed login;
    ///   `invalid-input` for a new one that the policy refuses.
    package func changePassword(
        _ change: PasswordChange, _ actor: Actor, in context: TenantContext, deadline: Deadline
    ) async throws {
        let id = try await own(actor, in: context, deadline)
        let accounts = AccountStore(tenant: context.id, keys: try context.keys)
        let found = try await context.read([accounts.find(id)], deadline: deadline)
        guard let row = found[0].first else { throw ClinicError(.unauthenticated) }
        let email = try accounts.account(row).person.email
        if let problem = PasswordPolicy.problem(
            with: change.new.reveal(), email: email, field: "newPassword")
        {
            throw ClinicError(.invalidInput, fields: [problem])
        }
        let stored = try await present(
            change.current, email: email, accounts, actor, context, deadline)
        let hash = try await passwords.hash(change.new, deadline: deadline)
        let store = SessionStore(tenant: context.id)
        let now = dependencies.clocks.now()
        let ended: [SessionID]? = try await context.transaction(.write, deadline: deadline) {
            transaction in
            let results = try await transaction.execute([
                accounts.changePassword(id, from: stored, to: hash, at: now),
                store.revokeAll(of: id, except: actor.sessionID, .password, at: now),
            ])
            guard results[0].affectedRows == 1 else { throw ClinicError(.invalidCredentials) }
            transaction.audit(actor.event("change-password", "account", id.uuid))
            return try SessionStore.ids(results[1])
        }
        await context.revoke(ended ?? [], deadline: deadline)
    }

    /// Checks the present password, counted like a login.
    ///
    /// - Returns: its stored hash.
    private func present(
        _ password: Sensitive<String>, email: String, _ accounts: AccountStore, _ actor: Actor,
        _ context: TenantContext, _ deadline: Deadline
    ) async throws -> String {
        let token = try accounts.emailToken(email)
        let now = dependencies.clocks.now()
        let results = try await context.write(
            [
                accounts.countAttempt(emailToken: token, waits: lockWaits, at: now),
                accounts.lock(emailToken: token),
            ], audit: [], deadline: deadline)
        guard let row = results[0].first else {
            let until = try results[1].first?.timestampIfPresent(1) ?? now
            throw ClinicError(.accountLocked, retryAfter: until - now)
        }
        let stored = try row.text(1)
        guard
            case .right = try await passwords.verify(password, against: stored, deadline: deadline)
        else {
            try await context.record(
                actor.event("change-password", "account", actor.accountID?.uuid, outcome: .failure),
                deadline: deadline)
            throw ClinicError(.invalidCredentials)
        }
        return stored
    }
}

extension TenantContext {
    /// Tells the cache of sessions that were ended.
    @LoopActor
    func revoke(_ sessions: [SessionID], deadline: Deadline) async {
        for session in sessions { await revokeSession(session, deadline: deadline) }
    }
}
