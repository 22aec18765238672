import HCCore

/// The JSON text that stands, sealed, in `patient.sealed`: the members of a patient in our own writing.
///
/// It is written once, when the patient changes, and copied as it is into answers: reading a patient costs
/// one decryption and no parsing.
struct PatientDocument: Sendable {
    /// `{"givenName":…}`, as `init(_:)` wrote it. What was sealed is authentic, so it is trusted to be that.
    let bytes: [UInt8]

    init(bytes: [UInt8]) {
        self.bytes = bytes
    }

    init(_ patient: Patient) {
        var writer = JSONWriter()
        writer.beginObject()
        writer.member("givenName", patient.givenName)
        writer.member("familyName", patient.familyName)
        writer.member("birthDate", patient.birthDate)
        writer.member("sex", patient.sex.rawValue)
        if let phone = patient.phone { writer.member("phone", phone) }
        if let email = patient.email { writer.member("email", email) }
        if let mrn = patient.mrn { writer.member("mrn", mrn) }
        if let address = patient.address {
            writer.key("address")
            address.write(to: &writer)
        }
        if let language = patient.language { writer.member("language", language) }
        if let notes = patient.notes { writer.member("notes", notes) }
        writer.endObject()
        bytes = writer.finish().bytes
    }

    /// - Throws: `JSONError` or `Malformed` for bytes that no version of this program wrote.
    func patient() throws -> Patient {
        let json = try JSONReader.parse(bytes)
        guard let givenName = json["givenName"]?.asString,
            let familyName = json["familyName"]?.asString,
            let birthDate = json["birthDate"]?.asString.flatMap({ CalendarDate(iso8601: $0) }),
            let sex = json["sex"]?.asString.flatMap({ Sex(rawValue: $0) })
        else { throw Malformed() }
        return Patient(
            givenName: givenName, familyName: familyName, birthDate: birthDate, sex: sex,
            phone: json["phone"]?.asString, email: json["email"]?.asString,
            mrn: json["mrn"]?.asString, address: json["address"].map(Patient.Address.init(stored:)),
            language: json["language"]?.asString, notes: json["notes"]?.asString)
    }

    struct Malformed: Error {}
}

extension Patient.Address {
    func write(to writer: inout JSONWriter) {
        writer.beginObject()
        writer.member("lines", lines)
        if let city { writer.member("city", city) }
        if let region { writer.member("region", region) }
        if let postalCode { writer.member("postalCode", postalCode) }
        if let country { writer.member("country", country) }
        writer.endObject()
    }

    init(stored json: JSONValue) {
        self.init(
            lines: (json["lines"]?.asArray ?? []).compactMap(\.asString),
            city: json["city"]?.asString, region: json["region"]?.asString,
            postalCode: json["postalCode"]?.asString, country: json["country"]?.asString)
    }
}
