package import HCCore
package import HCTenancy

/// `POST /v1/auth/login`.
package struct LoginCredentials: Sendable {
    package var email: String
    package var password: Sensitive<String>

    package init(email: String, password: Sensitive<String>) {
        self.email = email
        self.password = password
    }

    package init(json: JSONValue) throws(ClinicError) {
        var fields = try FieldReader(json)
        email = fields.required("email", .email)
        password = Sensitive(fields.required("password", .secret(1...4096)))
        try fields.finish()
    }
}

/// `POST /v1/auth/refresh`.
package struct RefreshRequest: Sendable {
    package var refreshToken: String

    package init(json: JSONValue) throws(ClinicError) {
        var fields = try FieldReader(json)
        refreshToken = fields.required("refreshToken", .secret(1...512))
        try fields.finish()
    }
}

/// `POST /v1/auth/password/change`.
package struct PasswordChange: Sendable {
    package var current: Sensitive<String>
    package var new: Sensitive<String>

    package init(current: Sensitive<String>, new: Sensitive<String>) {
        self.current = current
        self.new = new
    }

    package init(json: JSONValue) throws(ClinicError) {
        var fields = try FieldReader(json)
        current = Sensitive(fields.required("currentPassword", .secret(1...4096)))
        new = Sensitive(fields.required("newPassword", .secret(1...4096)))
        try fields.finish()
    }
}

/// What an access token says. Roles are not in it: they are the session's, and change at once.
package struct AccessClaims: Sendable, Equatable {
    package let tenant: TenantID
    package let account: AccountID
    package let session: SessionID
    /// Fixed for the life of an account.
    package let patient: PatientID?
    /// When the token ends; nil before it is signed.
    let expiresAt: Timestamp?

    init(
        tenant: TenantID, account: AccountID, session: SessionID, patient: PatientID?,
        expiresAt: Timestamp? = nil
    ) {
        self.tenant = tenant
        self.account = account
        self.session = session
        self.patient = patient
        self.expiresAt = expiresAt
    }

    var json: JSONObject {
        var claims = JSONObject()
        claims.insert(.string(tenant.description), for: "tid")
        claims.insert(.string(account.description), for: "sub")
        claims.insert(.string(session.description), for: "sid")
        if let patient { claims.insert(.string(patient.description), for: "pid") }
        return claims
    }

    init?(json claims: JSONObject, expiresAt: Timestamp? = nil) {
        guard let tenant = claims["tid"]?.asString.flatMap(TenantID.init),
            let account = claims["sub"]?.asString.flatMap(AccountID.init),
            let session = claims["sid"]?.asString.flatMap(SessionID.init)
        else { return nil }
        self.tenant = tenant
        self.account = account
        self.session = session
        self.expiresAt = expiresAt
        if let patient = claims["pid"] {
            guard let id = patient.asString.flatMap(PatientID.init) else { return nil }
            self.patient = id
        } else {
            patient = nil
        }
    }
}

/// `GET /v1/auth/me`.
package struct Me: Sendable, JSONWritable {
    package let account: Account

    package func write(to writer: inout JSONWriter) {
        writer.beginObject()
        writer.key("account")
        account.write(to: &writer)
        writer.key("permissions")
        writer.beginArray()
        for granted in PermissionMatrix.embedded.granted(to: account.roles) {
            writer.beginObject()
            writer.member("name", granted.permission.rawValue)
            writer.member("scope", granted.scope.rawValue)
            writer.endObject()
        }
        writer.endArray()
        writer.endObject()
    }
}
