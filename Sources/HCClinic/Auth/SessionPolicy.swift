import HCCore

/// How long a login lasts.
///
/// A session is used by refreshing its tokens: it ends when it was not for the life of an access token and
/// the idle time after it, and in any case at its absolute end.
package struct SessionPolicy: Sendable {
    package var accessTokenLife: Duration
    package var idle: Duration
    /// Where a role has another idle time; of several roles the shortest counts.
    package var idleByRole: [Role: Duration]
    package var absolute: Duration

    package init(
        accessTokenLife: Duration = .seconds(15 * 60), idle: Duration = .seconds(15 * 60),
        idleByRole: [Role: Duration] = [:], absolute: Duration = .seconds(12 * 3600)
    ) {
        self.accessTokenLife = accessTokenLife
        self.idle = idle
        self.idleByRole = idleByRole
        self.absolute = absolute
    }

    func idle(for roles: RoleSet) -> Duration {
        roles.roles.map { idleByRole[$0] ?? idle }.min() ?? idle
    }

    /// After this instant a session that was last used then is over.
    func idleEnd(lastUsedAt: Timestamp, roles: RoleSet) -> Timestamp {
        lastUsedAt + accessTokenLife + idle(for: roles)
    }
}
