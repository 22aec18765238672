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
    package let requestID: String

    package init(
        account: AccountID, session: SessionID, roles: RoleSet, patientID: PatientID?,
        requestID: String
    ) {
        identity = .account(account, session: session)
        self.roles = roles
        self.patientID = patientID
        self.requestID = requestID
    }

    private init(systemRequestID: String) {
        identity = .system
        roles = []
        patientID = nil
        requestID = systemRequestID
    }

    package static func system(requestID: String) -> Actor {
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
