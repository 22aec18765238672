import HCClinic
import HCCore
import HCHTTP
import HCTenancy

extension Routes {
    /// Credentials and tokens are short.
    private static let authBytesMax = 8 << 10

    static func addAuth(to table: inout RouteTable, _ services: ClinicServices) {
        let auth = services.auth
        table.addOpen(
            .post, "/v1/auth/login", "login", class: .login, audit: "login",
            bodyBytesMax: authBytesMax, "Exchanges an email and a password for tokens."
        ) { request, tenant in
            let json = try await JSONContent.read(request, max: authBytesMax)
            return .value(
                try await auth.login(
                    LoginCredentials(json: json), in: tenant, requestID: request.id.description,
                    deadline: request.deadline))
        }
        table.addOpen(
            .post, "/v1/auth/refresh", "refresh", class: .login,
            // Who is in stays in.
            lane: .interactive, audit: "refresh",
            bodyBytesMax: authBytesMax, "Exchanges a refresh token for new tokens, once."
        ) { request, tenant in
            let json = try await JSONContent.read(request, max: authBytesMax)
            return .value(
                try await auth.refresh(
                    RefreshRequest(json: json).refreshToken, in: tenant,
                    requestID: request.id.description, deadline: request.deadline))
        }
        table.add(
            .post, "/v1/auth/logout", "logout", permission: .sessionsOwn, class: .write,
            audit: "logout", "Ends this session."
        ) { request in
            try await auth.logout(request.actor, in: request.tenant, deadline: request.deadline)
            return .nothing
        }
        table.add(
            .post, "/v1/auth/logout-all", "logoutAll", permission: .sessionsOwn, class: .write,
            audit: "logout", "Ends every session of this account."
        ) { request in
            try await auth.logoutAll(request.actor, in: request.tenant, deadline: request.deadline)
            return .nothing
        }
        table.add(
            .get, "/v1/auth/me", "me", permission: .sessionsOwn, class: .read,
            "This account and what it may do."
        ) { request in
            .value(try await auth.me(request.actor, in: request.tenant, deadline: request.deadline))
        }
        table.add(
            .get, "/v1/auth/sessions", "listSessions", permission: .sessionsOwn, class: .read,
            "The account's living sessions."
        ) { request in
            .value(
                try await auth.sessions(
                    request.actor, in: request.tenant, deadline: request.deadline))
        }
        table.add(
            .delete, "/v1/auth/sessions/{id}", "endSession", permission: .sessionsOwn,
            class: .write,
            audit: "logout", "Ends one session of this account."
        ) { request in
            try await auth.revokeSession(
                try request.id(), request.actor, in: request.tenant, deadline: request.deadline)
            return .nothing
        }
        table.add(
            .post, "/v1/auth/password/change", "changePassword", permission: .sessionsOwn,
            class: .login, audit: "password-change", bodyBytesMax: authBytesMax,
            "Changes the password and ends the account's other sessions."
        ) { request in
            try await auth.changePassword(
                PasswordChange(json: try await request.json()), request.actor, in: request.tenant,
                deadline: request.deadline)
            return .nothing
        }
    }
}
