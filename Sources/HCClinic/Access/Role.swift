/// What somebody is in a clinic. The names are those of `permissions.json` and of `account.roles`.
package enum Role: String, CaseIterable, Sendable {
    case owner
    case admin
    case doctor
    case nurse
    case receptionist
    case patient

    /// Staff log in for the clinic, patients for themselves: no account is both.
    package var isStaff: Bool { self != .patient }
}

/// The roles of one account.
package struct RoleSet: OptionSet, Hashable, Sendable {
    package let rawValue: UInt8

    /// How many sets there are.
    static let count = 1 << Role.allCases.count

    /// Bits that stand for no role are dropped.
    package init(rawValue: UInt8) {
        self.rawValue = rawValue & UInt8(RoleSet.count - 1)
    }

    package init(_ role: Role) {
        self.init(rawValue: 1 << RoleSet.position(of: role))
    }

    package init(_ roles: some Sequence<Role>) {
        self.init(roles.map { RoleSet($0) })
    }

    /// Names that are no role are dropped: what is not known grants nothing.
    package init(names: some Sequence<String>) {
        self = names.reduce(into: []) { roles, name in
            if let role = RoleSet.byName.first(where: { $0.name == name }) {
                roles.formUnion(role.set)
            }
        }
    }

    /// Searched for every request: by their texts, which is less than to hash one or to make each anew.
    private static let byName = Role.allCases.map { (name: $0.rawValue, set: RoleSet($0)) }

    package func contains(_ role: Role) -> Bool {
        contains(RoleSet(role))
    }

    /// In the order of `permissions.json`.
    package var roles: [Role] { Role.allCases.filter { contains($0) } }
    package var names: [String] { roles.map(\.rawValue) }

    private static func position(of role: Role) -> UInt8 {
        switch role {
        case .owner: 0
        case .admin: 1
        case .doctor: 2
        case .nurse: 3
        case .receptionist: 4
        case .patient: 5
        }
    }
}
