package import HCCore
package import HCTenancy

/// On whose behalf a service works: an account that was authenticated, or the platform itself.
package struct Actor: Sendable {
    package enum Identity: Sendable, Equatable {
        case account(AccountID, session: SessionID)
        /// The platform: making a clinic, demo data. Allowed everything, recorded as `system`.
        case system
    }

    package let identity: Identity
    package let roles: RoleSet
    /// The patient who this account is, for the role patient.
    package let patientID: PatientID?
    /// Stands in the audit, the log and the answer.
    package let requestID: RequestID
    /// When the access token ends by which the account came in.
    let accessEndsAt: Timestamp?

    package init(
        account: AccountID, session: SessionID, roles: RoleSet, patientID: PatientID?,
        requestID: RequestID, accessEndsAt: Timestamp? = nil
    ) {
        self.init(
            identity: .account(account, session: session), roles: roles, patientID: patientID,
            requestID: requestID, accessEndsAt: accessEndsAt)
    }

    private init(
        identity: Identity, roles: RoleSet, patientID: PatientID?, requestID: RequestID,
        accessEndsAt: Timestamp?
    ) {
        self.identity = identity
        self.roles = roles
        self.patientID = patientID
        self.requestID = requestID
        self.accessEndsAt = accessEndsAt
    }

    /// The same actor with other roles.
    func with(_ roles: RoleSet) -> Actor {
        Actor(
            identity: identity, roles: roles, patientID: patientID, requestID: requestID,
            accessEndsAt: accessEndsAt)
    }

    private init(systemRequestID: RequestID) {
        identity = .system
        roles = []
        patientID = nil
        requestID = systemRequestID
        accessEndsAt = nil
    }

    package static func system(requestID: RequestID) -> Actor {
        Actor(systemRequestID: requestID)
    }

    package var accountID: AccountID? {
        if case .account(let id, _) = identity { id } else { nil }
    }

    package var sessionID: SessionID? {
        if case .account(_, let id) = identity { id } else { nil }
    }
}

extension Actor {
    /// How far this actor may go, or nil.
    package func scope(of permission: Permission) -> Scope? {
        switch identity {
        case .system: .all
        case .account: PermissionMatrix.embedded.scope(of: permission, for: roles)
        }
    }
}
