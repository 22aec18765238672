import HCCore

/// The permission matrix of `permissions.json`. Deny by default: what it does not grant is refused.
package struct PermissionMatrix: Sendable {
    package struct Row: Sendable {
        package let permission: Permission
        package let about: String
        package let grants: [Role: Scope]
    }

    /// The matrix embedded in the program. A file that does not fit the code stops the program at its
    /// start, before anything could be granted by mistake.
    package static let embedded: PermissionMatrix = {
        do {
            return try PermissionMatrix(json: PackageResources.permissions_json)
        } catch {
            preconditionFailure("permissions.json: \(error)")
        }
    }()

    package let rows: [Row]
    /// Scope by permission and by set of roles: every request asks, so the widest is found once.
    private let scopes: [Scope?]

    package struct MatrixError: Error, CustomStringConvertible, Equatable {
        package let description: String
    }

    /// Reads the file strictly: every role, scope and permission of the code is in it, and no other.
    package init(json: [UInt8]) throws {
        let document = try JSONReader.parse(json)
        try PermissionMatrix.require(
            document["roles"], lists: Role.allCases.map(\.rawValue), as: "roles")
        try PermissionMatrix.require(
            document["scopes"], lists: Scope.allCases.map(\.rawValue), as: "scopes")
        let rows = try (document["permissions"]?.asArray ?? []).map(Row.init(json:))
        self.rows = rows
        for permission in Permission.allCases {
            let count = rows.count { $0.permission == permission }
            guard count == 1 else {
                throw MatrixError(description: "\(permission.rawValue) has \(count) rows, not one")
            }
        }
        scopes = Permission.allCases.flatMap { permission in
            let grants = rows.first { $0.permission == permission }?.grants ?? [:]
            return (0..<RoleSet.count).map { bits in
                RoleSet(rawValue: UInt8(bits)).roles.compactMap { grants[$0] }.max()
            }
        }
    }

    private static func require(
        _ value: JSONValue?, lists names: [String], as what: String
    ) throws {
        guard let listed = value?.asArray?.compactMap(\.asString), Set(listed) == Set(names),
            listed.count == names.count
        else { throw MatrixError(description: "\(what) must be \(names)") }
    }

    /// How far an account with these roles may go, nil for not at all. Several roles: the widest.
    package func scope(of permission: Permission, for roles: RoleSet) -> Scope? {
        scopes[permission.position * RoleSet.count + Int(roles.rawValue)]
    }

    /// What an account with these roles may do, for `GET /v1/auth/me`.
    package func granted(to roles: RoleSet) -> [(permission: Permission, scope: Scope)] {
        Permission.allCases.compactMap { permission in
            scope(of: permission, for: roles).map { (permission, $0) }
        }
    }
}

extension PermissionMatrix.Row {
    init(json: JSONValue) throws {
        guard let name = json["name"]?.asString, let permission = Permission(rawValue: name),
            let about = json["about"]?.asString, !about.isEmpty,
            let members = json["grants"]?.asObject?.members
        else {
            throw PermissionMatrix.MatrixError(
                description: "a row without a known name, a text and grants")
        }
        var grants: [Role: Scope] = [:]
        for member in members {
            guard let role = Role(rawValue: member.name),
                let scope = member.value.asString.flatMap({ Scope(rawValue: $0) })
            else {
                throw PermissionMatrix.MatrixError(
                    description: "\(name) grants to an unknown role or with an unknown scope")
            }
            grants[role] = scope
        }
        self.init(permission: permission, about: about, grants: grants)
    }
}
