package import HCCore
import HCCrypto
import HCTenancy

/// What patients are searched by. All that is given must match.
package struct PatientSearch: Sendable, Equatable {
    /// Names match by their beginning, without regard to case and accents; the rest exactly, as normalised.
    package var familyName: String?
    package var givenName: String?
    package var birthDate: CalendarDate?
    package var phone: String?
    package var email: String?
    package var mrn: String?

    package init() {}

    /// The query parameters that are search terms.
    package static let parameters = [
        "familyName", "givenName", "birthDate", "phone", "email", "mrn",
    ]

    /// - Parameter value: gives a query parameter, nil when it is missing.
    package init(query value: (String) -> String?) throws(ClinicError) {
        var object = JSONObject()
        for name in PatientSearch.parameters {
            if let text = value(name) { object.insert(.string(text), for: name) }
        }
        var fields = try FieldReader(.object(object))
        familyName = fields.optional("familyName", .personName)
        givenName = fields.optional("givenName", .personName)
        birthDate = fields.optional("birthDate", .date(.first ... .last))
        phone = fields.optional("phone", .phone)
        email = fields.optional("email", .email)
        mrn = fields.optional("mrn", .recordNumber)
        try fields.finish()
    }

    package var isEmpty: Bool { self == PatientSearch() }

    /// The names of what was searched for, for the audit.
    var fieldNames: [String] {
        var names: [String] = []
        if familyName != nil { names.append("familyName") }
        if givenName != nil { names.append("givenName") }
        if birthDate != nil { names.append("birthDate") }
        if phone != nil { names.append("phone") }
        if email != nil { names.append("email") }
        if mrn != nil { names.append("mrn") }
        return names
    }
}

extension PatientSearch {
    /// The search as blind tokens, the rarest first; nil if a term can match nobody (a name of dots).
    func tokens(_ keys: TenantKeys) throws -> [Int64]? {
        var tokens: [Int64] = []
        if let mrn {
            tokens.append(
                try keys.token(kind: PatientTerms.mrn, value: SearchText.identifier(mrn)))
        }
        if let email {
            tokens.append(try keys.token(kind: PatientTerms.email, value: SearchText.email(email)))
        }
        if let phone {
            guard let phone = PatientTerms.digits(phone) else { return nil }
            tokens.append(try keys.token(kind: PatientTerms.phone, value: phone))
        }
        if let birthDate {
            tokens.append(
                try keys.token(kind: PatientTerms.birthDate, value: birthDate.iso8601))
        }
        if let familyName {
            guard
                let token = try keys.prefixToken(
                    kind: PatientTerms.familyName, prefix: SearchText.name(familyName))
            else { return nil }
            tokens.append(token)
        }
        if let givenName {
            guard
                let token = try keys.prefixToken(
                    kind: PatientTerms.givenName, prefix: SearchText.name(givenName))
            else { return nil }
            tokens.append(token)
        }
        return tokens
    }

    /// Tokens are cut: names to 12 characters, hashes to 64 bits. So what was found is compared.
    func matches(_ patient: Patient) -> Bool {
        if let familyName,
            !PatientSearch.begins(patient.familyName, with: familyName)
        {
            return false
        }
        if let givenName, !PatientSearch.begins(patient.givenName, with: givenName) { return false }
        if let birthDate, patient.birthDate != birthDate { return false }
        if let phone, patient.phone.flatMap(PatientTerms.digits) != PatientTerms.digits(phone) {
            return false
        }
        if let email, patient.email.map(SearchText.email) != SearchText.email(email) {
            return false
        }
        if let mrn, patient.mrn.map(SearchText.identifier) != SearchText.identifier(mrn) {
            return false
        }
        return true
    }

    private static func begins(_ name: String, with prefix: String) -> Bool {
        SearchText.name(name).utf8.starts(with: SearchText.name(prefix).utf8)
    }

    /// What ties a cursor to this search.
    var identity: QueryIdentity {
        var identity = QueryIdentity("patients by id")
        identity.add("familyName", familyName)
        identity.add("givenName", givenName)
        identity.add("birthDate", birthDate?.iso8601)
        identity.add("phone", phone)
        identity.add("email", email)
        identity.add("mrn", mrn)
        return identity
    }
}

/// The tokens under which a patient is found: `patient_token` and `patient.mrn_token`.
struct PatientTerms: Sendable {
    static let familyName: StaticString = "patient.familyName"
    static let givenName: StaticString = "patient.givenName"
    static let birthDate: StaticString = "patient.birthDate"
    static let phone: StaticString = "patient.phone"
    static let email: StaticString = "patient.email"
    static let mrn: StaticString = "patient.mrn"

    /// A phone number as it is searched: without the `+`, which people leave out and query strings lose.
    static func digits(_ phone: String) -> String? {
        SearchText.phone(phone).map { String($0.drop { $0 == "+" }) }
    }

    let tokens: [Int64]
    /// Also unique by an index of its own.
    let mrnToken: Int64?

    init(_ patient: Patient, keys: TenantKeys) throws {
        var tokens = Set<Int64>()
        tokens.formUnion(
            try keys.prefixTokens(
                kind: PatientTerms.familyName, value: SearchText.name(patient.familyName)))
        tokens.formUnion(
            try keys.prefixTokens(
                kind: PatientTerms.givenName, value: SearchText.name(patient.givenName)))
        tokens.insert(
            try keys.token(kind: PatientTerms.birthDate, value: patient.birthDate.iso8601))
        if let phone = patient.phone.flatMap(PatientTerms.digits) {
            tokens.insert(try keys.token(kind: PatientTerms.phone, value: phone))
        }
        if let email = patient.email {
            tokens.insert(
                try keys.token(kind: PatientTerms.email, value: SearchText.email(email)))
        }
        mrnToken = try patient.mrn.map { mrn in
            try keys.token(kind: PatientTerms.mrn, value: SearchText.identifier(mrn))
        }
        if let mrnToken { tokens.insert(mrnToken) }
        // In order, so that two writers touch the index in the same order.
        self.tokens = tokens.sorted()
    }
}
