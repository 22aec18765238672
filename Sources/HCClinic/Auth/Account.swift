package import HCCore

/// Someone who logs in: a member of the staff, or a patient.
package struct Account: Sendable, Equatable, JSONWritable {
    package enum Status: String, CaseIterable, Sendable {
        /// Has no password yet.
        case invited
        case active
        case disabled
    }

    package let id: AccountID
    package var person: AccountPerson
    package var roles: RoleSet
    package var status: Status
    /// The patient who this account is, for the role patient.
    package var patientID: PatientID?
    package var lastLoginAt: Timestamp?
    package var version: Int64
    package var createdAt: Timestamp
    package var updatedAt: Timestamp

    package var entityTag: String { EntityTag.text(version: version) }

    package func write(to writer: inout JSONWriter) {
        writer.beginObject()
        writer.member("id", id)
        writer.member("email", person.email)
        writer.member("name", person.name)
        if let phone = person.phone { writer.member("phone", phone) }
        writer.member("roles", roles.names)
        writer.member("status", status.rawValue)
        if let patientID { writer.member("patientId", patientID) }
        if let lastLoginAt { writer.member("lastLoginAt", lastLoginAt) }
        writer.member("version", version)
        writer.member("createdAt", createdAt)
        writer.member("updatedAt", updatedAt)
        writer.endObject()
    }
}

/// What an account says about a person; sealed in the row.
package struct AccountPerson: Sendable, Equatable {
    package var email: String
    package var name: String
    package var phone: String?

    package init(email: String, name: String, phone: String? = nil) {
        self.email = email
        self.name = name
        self.phone = phone
    }

    var document: [UInt8] {
        var writer = JSONWriter()
        writer.beginObject()
        writer.member("email", email)
        writer.member("name", name)
        if let phone { writer.member("phone", phone) }
        writer.endObject()
        return writer.finish().bytes
    }

    init(document: [UInt8]) throws {
        let json = try JSONReader.parse(document)
        guard let email = json["email"]?.asString, let name = json["name"]?.asString else {
            throw PatientDocument.Malformed()
        }
        self.init(email: email, name: name, phone: json["phone"]?.asString)
    }
}

extension AccountPerson: CustomStringConvertible, CustomReflectable {
    package var description: String { "***" }
    package var customMirror: Mirror { Mirror(self, children: []) }
}

/// What a new account is made of.
package struct AccountDraft: Sendable {
    package var person: AccountPerson
    package var roles: RoleSet
    package var password: Sensitive<String>
    package var patientID: PatientID?

    package init(
        person: AccountPerson, roles: RoleSet, password: Sensitive<String>,
        patientID: PatientID? = nil
    ) {
        self.person = person
        self.roles = roles
        self.password = password
        self.patientID = patientID
    }

    /// Staff: `email`, `name`, `phone`, `roles`, `password`.
    package init(staff json: JSONValue) throws(ClinicError) {
        var fields = try FieldReader(json)
        let person = AccountPerson(fields: &fields)
        let names = fields.required(
            "roles", .list(of: .choice(of: Role.allCases.filter(\.isStaff)), count: 1...5))
        let password = fields.newPassword(email: person.email)
        try fields.finish()
        self.init(person: person, roles: RoleSet(names), password: password)
    }

    /// A patient's: `email`, `name`, `phone`, `patientId`, `password`.
    package init(patient json: JSONValue) throws(ClinicError) {
        var fields = try FieldReader(json)
        let person = AccountPerson(fields: &fields)
        let patientID: PatientID = fields.required("patientId", .id())
        let password = fields.newPassword(email: person.email)
        try fields.finish()
        self.init(
            person: person, roles: RoleSet(.patient), password: password, patientID: patientID)
    }
}

extension AccountPerson {
    fileprivate init(fields: inout FieldReader) {
        self.init(
            email: fields.required("email", .email), name: fields.required("name", .line(1...200)),
            phone: fields.optional("phone", .phone))
    }
}

extension FieldReader {
    /// A password that somebody chooses, looked at with the policy.
    mutating func newPassword(_ name: String = "password", email: String) -> Sensitive<String> {
        let password = required(name, .secret(1...4096))
        if !password.isEmpty,
            let problem = PasswordPolicy.problem(with: password, email: email, field: name)
        {
            refuse(problem.field, problem.code, problem.message)
        }
        return Sensitive(password)
    }
}

/// A merge patch of a staff account.
package struct AccountPatch: Sendable {
    package var name: String?
    package var phone = Change<String>.keep
    package var roles: RoleSet?
    /// `active` or `disabled`.
    package var status: Account.Status?

    package init() {}

    package init(json: JSONValue) throws(ClinicError) {
        var fields = try FieldReader(json)
        name = fields.change("name", .line(1...200))
        phone = fields.clearable("phone", .phone)
        roles = fields.change(
            "roles", .list(of: .choice(of: Role.allCases.filter(\.isStaff)), count: 1...5)
        ).map { RoleSet($0) }
        status = fields.change("status", .choice(of: [.active, .disabled]))
        try fields.finish()
    }

    /// The account as it was, version and all, if nothing changes.
    func applied(to account: Account, at now: Timestamp) -> Account {
        var changed = account
        changed.person.name = name ?? account.person.name
        changed.person.phone = phone.applied(to: account.person.phone)
        changed.roles = roles ?? account.roles
        changed.status = status ?? account.status
        guard changed != account else { return account }
        changed.version += 1
        changed.updatedAt = now
        return changed
    }
}
