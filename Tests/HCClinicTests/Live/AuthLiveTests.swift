import HCCore
import HCIO
import HCTenancy
import HCTesting
import Testing

@testable import HCClinic

@Suite(.onLoop) @LoopActor
struct AuthLiveTests {
    @Test("an owner logs in, is admitted, and is told who it is and what it may do")
    func login() async throws {
        let clinic = try await LiveClinic.make()
        let tokens = try await clinic.login()
        #expect(tokens.expiresIn == 900)
        let actor = try await clinic.admit(tokens.accessToken)
        #expect(actor.accountID == clinic.owner)
        #expect(actor.roles == RoleSet(.owner))
        let me = try await clinic.services.auth.me(
            actor, in: clinic.context, deadline: clinic.deadline)
        let json = try JSONReader.parse(me.json())
        #expect(json["account"]?["email"] == .string(LiveClinic.ownerEmail))
        #expect(
            json["permissions"]?.asArray?.contains(["name": "staff.write", "scope": "all"]) == true)
        #expect(try await code { try await clinic.login("OWNER@clinic.Example") } == nil)
    }

    @Test("a wrong password and an unknown address are answered alike")
    func wrong() async throws {
        let clinic = try await LiveClinic.make()
        #expect(
            try await code { try await clinic.login(password: Sensitive("not the password")) }
                == .invalidCredentials)
        #expect(
            try await code { try await clinic.login("nobody@clinic.example") }
                == .invalidCredentials)
        let failures = try await clinic.psql(
            """
            SELECT count(*) FROM audit_event WHERE tenant_id = '\(clinic.context.id)'
                AND action = 'login' AND outcome = 'failure'
            """)
        #expect(failures == "2")
    }

    @Test("of any number of guesses at once ten are looked at; then the right password waits too")
    func lockout() async throws {
        let clinic = try await LiveClinic.make()
        let guesses = await concurrently(40) { number in
            try await clinic.login(password: Sensitive("a wrong password \(number)"))
        }
        let codes = guesses.compactMap(\.clinicError?.code)
        #expect(codes.count { $0 == .invalidCredentials } == 10)
        #expect(codes.count { $0 == .accountLocked } == 30)
        do {
            _ = try await clinic.login()
            Issue.record("a locked account logged in")
        } catch let error as ClinicError {
            #expect(error.code == .accountLocked)
            #expect(error.retryAfter == .seconds(1))
        }
        clinic.clock.advance(by: .seconds(1))
        _ = try await clinic.login()
        // A login forgets the count.
        #expect(
            try await code { try await clinic.login(password: Sensitive("not the password")) }
                == .invalidCredentials)
    }

    @Test("addresses without an account are locked alike")
    func phantomLockout() async throws {
        let clinic = try await LiveClinic.make()
        let guesses = await concurrently(40) { _ in try await clinic.login("nobody@clinic.example")
        }
        let codes = guesses.compactMap(\.clinicError?.code)
        #expect(codes.count { $0 == .invalidCredentials } == 10)
        #expect(codes.count { $0 == .accountLocked } == 30)
        #expect(guesses.compactMap(\.clinicError?.retryAfter).allSatisfy { $0 == .seconds(1) })
    }

    @Test("addresses without an account are locked for all processes together, as accounts are")
    func sharedLockout() async throws {
        let clinic = try await LiveClinic.make()
        let workers = [clinic.services, try clinic.anotherWorker()]
        for email in [LiveClinic.ownerEmail, "nobody@clinic.example"] {
            var codes: [ClinicError.Code?] = []
            for number in 0..<12 {
                codes.append(
                    try await code {
                        try await workers[number % 2].auth.login(
                            LoginCredentials(
                                email: email, password: Sensitive("not the password")),
                            in: clinic.context, requestID: "test", deadline: clinic.deadline)
                    })
            }
            #expect(codes.prefix(10).allSatisfy { $0 == .invalidCredentials }, "\(email)")
            #expect(codes.dropFirst(10).allSatisfy { $0 == .accountLocked }, "\(email)")
        }
    }

    @Test("six hours after the last attempt nothing of it is left, of accounts and of others")
    func forgotten() async throws {
        let clinic = try await LiveClinic.make()
        for email in [LiveClinic.ownerEmail, "nobody@clinic.example"] {
            func attempts(_ count: Int) async throws -> Set<ClinicError.Code?> {
                var codes: Set<ClinicError.Code?> = []
                for _ in 0..<count {
                    codes.insert(
                        try await code {
                            try await clinic.login(email, password: Sensitive("not the password"))
                        })
                }
                return codes
            }
            let sixHours = Duration.seconds(6 * 3600)
            #expect(try await attempts(9) == [.invalidCredentials], "\(email)")
            clinic.clock.advance(by: sixHours - .seconds(1))
            #expect(try await attempts(1) == [.invalidCredentials], "\(email)")
            #expect(try await attempts(1) == [.accountLocked], "\(email)")
            clinic.clock.advance(by: sixHours + .seconds(1))
            #expect(try await attempts(10) == [.invalidCredentials], "\(email)")
            #expect(try await attempts(1) == [.accountLocked], "\(email)")
        }
    }

    @Test("who goes on guessing waits a quarter of an hour each time, whoever it is")
    func longestLock() async throws {
        let clinic = try await LiveClinic.make()
        for email in [LiveClinic.ownerEmail, "nobody@clinic.example"] {
            for number in 1...25 {
                clinic.clock.advance(by: .seconds(900))
                #expect(
                    try await code {
                        try await clinic.login(email, password: Sensitive("not the password"))
                    } == .invalidCredentials, "\(email) \(number)")
            }
            do {
                _ = try await clinic.login(email)
                Issue.record("it is not locked: \(email)")
            } catch let error as ClinicError {
                #expect(error.code == .accountLocked && error.retryAfter == .seconds(900))
            }
        }
    }

    @Test("what locks and what is locked is recorded as such, and everything else as a login")
    func recordedLocks() async throws {
        let clinic = try await LiveClinic.make()
        for (email, locks) in [(LiveClinic.ownerEmail, 3), ("nobody@clinic.example", 2)] {
            for _ in 0..<12 {
                _ = try await code {
                    try await clinic.login(email, password: Sensitive("not the password"))
                }
            }
            let recorded = try await clinic.psql(
                """
                SELECT count(*) FILTER (WHERE action = 'login'),
                    count(*) FILTER (WHERE action = 'lockout')
                FROM audit_event
                WHERE tenant_id = '\(clinic.context.id)' AND outcome = 'failure'
                    AND (entity_id IS NULL) = (\(email != LiveClinic.ownerEmail))
                """)
            #expect(recorded == "\(12 - locks)|\(locks)", "\(email)")
        }
    }

    @Test("without Redis each process counts by itself who has no account")
    func lockoutWithoutRedis() async throws {
        let clinic = try await LiveClinic.make()
        let context = try clinic.ground.withoutRedis(clinic.context.id)
        var codes: [ClinicError.Code?] = []
        for _ in 0..<12 {
            codes.append(
                try await code {
                    try await clinic.services.auth.login(
                        LoginCredentials(
                            email: "nobody@clinic.example", password: LiveClinic.password),
                        in: context, requestID: "test", deadline: clinic.deadline)
                })
        }
        #expect(codes.prefix(10).allSatisfy { $0 == .invalidCredentials })
        #expect(codes.dropFirst(10).allSatisfy { $0 == .accountLocked })
    }

    @Test("a password is hashed whether there is an account or not")
    func hashed() async throws {
        let clinic = try await LiveClinic.make()
        func hashes(_ email: String) async throws -> Int {
            let before = fixtureThreads.statistics.completed
            _ = try await code {
                try await clinic.login(email, password: Sensitive("not the password"))
            }
            return fixtureThreads.statistics.completed - before
        }
        // The first one makes what is compared with.
        _ = try await hashes("nobody@clinic.example")
        #expect(try await hashes("nobody@clinic.example") >= 1)
        #expect(try await hashes(LiveClinic.ownerEmail) >= 1)
    }

    @Test("an attempt that finds no account writes to the disk as often as one that finds one")
    func traces() async throws {
        let clinic = try await LiveClinic.make()
        func transactions(_ email: String) async throws -> Int {
            let next = "SELECT pg_snapshot_xmax(pg_current_snapshot())"
            let before = try #require(Int(try await clinic.psql(next)))
            #expect(
                try await code {
                    try await clinic.login(email, password: Sensitive("not the password"))
                } == .invalidCredentials)
            return try #require(Int(try await clinic.psql(next))) - before
        }
        // The attempt, and the record of it. Others may be writing at the same time.
        #expect(try await transactions(LiveClinic.ownerEmail) >= 2)
        #expect(try await transactions("nobody@clinic.example") >= 2)
    }

    @Test("a refresh token is exchanged once; its second use ends all sessions of the family")
    func refreshReuse() async throws {
        let clinic = try await LiveClinic.make()
        let first = try await clinic.login()
        func refresh(_ token: String) async throws -> TokenPair {
            try await clinic.services.auth.refresh(
                token, in: clinic.context, requestID: "test", deadline: clinic.deadline)
        }
        let second = try await refresh(first.refreshToken)
        let third = try await refresh(second.refreshToken)
        _ = try await clinic.admit(third.accessToken)
        // Not the one before, but the one before that.
        #expect(try await code { try await refresh(first.refreshToken) } == .refreshTokenReused)
        #expect(try await code { try await clinic.admit(third.accessToken) } == .unauthenticated)
        #expect(try await code { try await refresh(third.refreshToken) } == .invalidRefreshToken)
        // Another login is another family.
        _ = try await clinic.admit(try await clinic.login().accessToken)
    }

    @Test("of two who exchange the same token at once one is taken for a thief, and both are out")
    func refreshRace() async throws {
        let clinic = try await LiveClinic.make()
        let tokens = try await clinic.login()
        let results = await concurrently(8) { _ in
            try await clinic.services.auth.refresh(
                tokens.refreshToken, in: clinic.context, requestID: "test",
                deadline: clinic.deadline)
        }
        let winners = results.compactMap(\.value)
        #expect(winners.count == 1)
        #expect(results.compactMap(\.clinicError?.code).allSatisfy { $0 == .refreshTokenReused })
        for winner in winners {
            #expect(
                try await code { try await clinic.admit(winner.accessToken) } == .unauthenticated)
        }
    }

    @Test("a session ends by idleness, and in any case after twelve hours")
    func timeouts() async throws {
        let clinic = try await LiveClinic.make()
        func refresh(_ token: String) async throws -> TokenPair {
            try await clinic.services.auth.refresh(
                token, in: clinic.context, requestID: "test", deadline: clinic.deadline)
        }
        let idle = try await clinic.login()
        clinic.clock.advance(by: .seconds(1800))
        #expect(try await code { try await refresh(idle.refreshToken) } == .invalidRefreshToken)
        #expect(try await code { try await clinic.admit(idle.accessToken) } == .unauthenticated)
        var busy = try await clinic.login()
        for _ in 0..<24 {
            clinic.clock.advance(by: .seconds(1795))
            busy = try await refresh(busy.refreshToken)
        }
        #expect(busy.expiresIn == 120)
        clinic.clock.advance(by: .seconds(121))
        #expect(try await code { try await refresh(busy.refreshToken) } == .invalidRefreshToken)
    }

    @Test("whoever logs out is out with the next request; the other sessions go on")
    func logout() async throws {
        let clinic = try await LiveClinic.make()
        let (first, second) = (try await clinic.login(), try await clinic.login())
        let actor = try await clinic.admit(first.accessToken)
        try await clinic.services.auth.logout(actor, in: clinic.context, deadline: clinic.deadline)
        #expect(try await code { try await clinic.admit(first.accessToken) } == .unauthenticated)
        let other = try await clinic.admit(second.accessToken)
        let sessions = try await clinic.services.auth.sessions(
            other, in: clinic.context, deadline: clinic.deadline)
        #expect(sessions.items.count == 1)
        #expect(sessions.items.first?.isCurrent == true)
        try await clinic.services.auth.logoutAll(
            other, in: clinic.context, deadline: clinic.deadline)
        #expect(try await code { try await clinic.admit(second.accessToken) } == .unauthenticated)
    }

    @Test("one ends one's own sessions only")
    func revokeOwnOnly() async throws {
        let clinic = try await LiveClinic.make()
        let owner = try await clinic.admit(try await clinic.login().accessToken)
        let nurse = try await clinic.staff(.nurse, email: "nurse@clinic.example")
        let id = try #require(owner.sessionID)
        #expect(
            try await code {
                try await clinic.services.auth.revokeSession(
                    id, nurse, in: clinic.context, deadline: clinic.deadline)
            } == .notFound)
        try await clinic.services.auth.revokeSession(
            id, owner, in: clinic.context, deadline: clinic.deadline)
        #expect(
            try await code {
                try await clinic.services.auth.revokeSession(
                    id, owner, in: clinic.context, deadline: clinic.deadline)
            } == .notFound)
    }

    @Test("a new password ends the other sessions and needs the old one")
    func passwordChange() async throws {
        let clinic = try await LiveClinic.make()
        let (kept, other) = (try await clinic.login(), try await clinic.login())
        let actor = try await clinic.admit(kept.accessToken)
        func change(_ current: String, _ new: String) async throws {
            try await clinic.services.auth.changePassword(
                PasswordChange(current: Sensitive(current), new: Sensitive(new)), actor,
                in: clinic.context, deadline: clinic.deadline)
        }
        let present = LiveClinic.password.reveal()
        #expect(
            try await code { try await change("not the password", "a new long password") }
                == .invalidCredentials)
        #expect(try await code { try await change(present, "password1234") } == .invalidInput)
        try await change(present, "a new long password")
        _ = try await clinic.admit(kept.accessToken)
        #expect(try await code { try await clinic.admit(other.accessToken) } == .unauthenticated)
        #expect(try await code { try await clinic.login() } == .invalidCredentials)
        _ = try await clinic.login(password: Sensitive("a new long password"))
    }

    @Test("a token of another clinic is no token here")
    func otherClinic() async throws {
        let (sunrise, lakeside) = (try await LiveClinic.make(), try await LiveClinic.make())
        let tokens = try await sunrise.login()
        #expect(throws: ClinicError(.tenantMismatch)) {
            try lakeside.services.auth.verify(tokens.accessToken, in: lakeside.context)
        }
        #expect(
            try await code {
                try await lakeside.services.auth.refresh(
                    tokens.refreshToken, in: lakeside.context, requestID: "test",
                    deadline: lakeside.deadline)
            } == .invalidRefreshToken)
    }

    @Test("whoever is disabled is out, whoever has other roles has them, with the next request")
    func changesAreImmediate() async throws {
        let clinic = try await LiveClinic.make()
        let nurse = try await clinic.staff(.nurse, email: "nurse@clinic.example")
        let tokens = try await clinic.login("nurse@clinic.example")
        let id = try #require(nurse.accountID)
        func update(_ version: Int64, _ change: (inout AccountPatch) -> Void) async throws {
            var patch = AccountPatch()
            change(&patch)
            _ = try await clinic.services.staff.update(
                id, patch, .versions([version]), clinic.system, in: clinic.context,
                deadline: clinic.deadline)
        }
        try await update(1) { $0.roles = [RoleSet(.doctor), RoleSet(.nurse)] }
        #expect(
            try await clinic.admit(tokens.accessToken).roles == [RoleSet(.doctor), RoleSet(.nurse)])
        #expect(try await code { try await update(1) { $0.name = "Late" } } == .preconditionFailed)
        try await update(2) { $0.status = .disabled }
        #expect(try await code { try await clinic.admit(tokens.accessToken) } == .unauthenticated)
        #expect(
            try await code { try await clinic.login("nurse@clinic.example") } == .invalidCredentials
        )
    }

    @Test("what the cache knows of a session changes with it: other roles, and its end")
    func cachedSessions() async throws {
        let clinic = try await LiveClinic.make()
        let nurse = try await clinic.staff(.nurse, email: "nurse@clinic.example")
        let id = try #require(nurse.accountID)
        let (first, second) = (
            try await clinic.login("nurse@clinic.example"),
            try await clinic.login("nurse@clinic.example")
        )
        func cachedRoles(_ tokens: TokenPair) async throws -> [String]? {
            switch try await clinic.lookup(tokens.accessToken) {
            case .active(let entry): entry.roles
            case .revoked: ["revoked"]
            case .unknown: nil
            }
        }
        for tokens in [first, second] {
            #expect(try await cachedRoles(tokens) == nil)
            _ = try await clinic.admitCached(tokens.accessToken)
            #expect(try await cachedRoles(tokens) == ["nurse"])
        }
        var patch = AccountPatch()
        patch.roles = RoleSet(.doctor)
        _ = try await clinic.services.staff.update(
            id, patch, .any, clinic.system, in: clinic.context, deadline: clinic.deadline)
        #expect(try await cachedRoles(first) == nil)
        #expect(try await clinic.admitCached(first.accessToken).roles == RoleSet(.doctor))
        #expect(try await cachedRoles(first) == ["doctor"])
        let actor = try await clinic.admitCached(first.accessToken)
        try await clinic.services.auth.logout(actor, in: clinic.context, deadline: clinic.deadline)
        #expect(try await cachedRoles(first) == ["revoked"])
        #expect(
            try await code { try await clinic.admitCached(first.accessToken) } == .unauthenticated)
        _ = try await clinic.admitCached(second.accessToken)
        patch.roles = nil
        patch.status = .disabled
        _ = try await clinic.services.staff.update(
            id, patch, .any, clinic.system, in: clinic.context, deadline: clinic.deadline)
        #expect(
            try await code { try await clinic.admitCached(second.accessToken) } == .unauthenticated)
    }

    @Test("the last owner stays, also when two owners depose each other at once")
    func lastOwner() async throws {
        let clinic = try await LiveClinic.make()
        let second = try await clinic.services.staff.create(
            AccountDraft(
                person: AccountPerson(email: "second@clinic.example", name: "Second"),
                roles: RoleSet(.owner), password: LiveClinic.password), clinic.system,
            in: clinic.context, deadline: clinic.deadline)
        let owners = [clinic.owner, second.id]
        let results = await concurrently(2) { number in
            var patch = AccountPatch()
            patch.status = .disabled
            return try await clinic.services.staff.update(
                owners[number], patch, .any, clinic.system, in: clinic.context,
                deadline: clinic.deadline)
        }
        #expect(results.compactMap(\.value).count == 1)
        #expect(results.compactMap(\.clinicError?.code) == [.lastOwner])
    }

    @Test("an admin makes no owners and changes none; it is recorded that it tried")
    func adminsAndOwners() async throws {
        let clinic = try await LiveClinic.make()
        let admin = try await clinic.staff(.admin, email: "admin@clinic.example")
        func create(_ role: Role) async throws -> Account {
            try await clinic.services.staff.create(
                AccountDraft(
                    person: AccountPerson(email: "\(role)2@clinic.example", name: "New"),
                    roles: RoleSet(role), password: LiveClinic.password), admin,
                in: clinic.context, deadline: clinic.deadline)
        }
        #expect(try await code { try await create(.owner) } == .forbidden)
        let nurse = try await create(.nurse)
        func update(_ id: AccountID, _ change: (inout AccountPatch) -> Void) async throws {
            var patch = AccountPatch()
            change(&patch)
            _ = try await clinic.services.staff.update(
                id, patch, .any, admin, in: clinic.context, deadline: clinic.deadline)
        }
        #expect(
            try await code { try await update(clinic.owner) { $0.name = "Taken over" } }
                == .forbidden)
        #expect(
            try await code { try await update(nurse.id) { $0.roles = RoleSet(.owner) } }
                == .forbidden)
        try await update(nurse.id) { $0.roles = RoleSet(.doctor) }
        let denials = try await clinic.psql(
            """
            SELECT count(*) FROM audit_event
            WHERE tenant_id = '\(clinic.context.id)' AND action = 'deny' AND outcome = 'denied'
            """)
        #expect(denials == "3")
    }

    @Test("making the owner twice, also at once, makes one")
    func ownerIsIdempotent() async throws {
        let ground = try await LiveGround.shared()
        let clinic = try await LiveClinic.make()
        let context = try ground.takeTenant()
        let results = await concurrently(6) { _ in
            try await OwnerAccount.create(
                in: context, email: "owner@new.example", password: LiveClinic.password,
                services: clinic.services, requestID: "test", deadline: clinic.deadline)
        }
        let outcomes = results.compactMap(\.value)
        #expect(outcomes.count == 6)
        #expect(outcomes.count { if case .created = $0 { true } else { false } } == 1)
        let accounts = try await clinic.psql(
            "SELECT count(*) FROM account WHERE tenant_id = '\(context.id)'")
        #expect(accounts == "1")
    }

    @Test("two accounts of one clinic have two addresses; two clinics may share one")
    func emailTaken() async throws {
        let (sunrise, lakeside) = (try await LiveClinic.make(), try await LiveClinic.make())
        _ = try await sunrise.staff(.nurse, email: "same@clinic.example")
        _ = try await lakeside.staff(.nurse, email: "same@clinic.example")
        #expect(
            try await code { try await sunrise.staff(.doctor, email: "SAME@clinic.example") }
                == .emailTaken)
    }
}
