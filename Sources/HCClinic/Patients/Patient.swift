package import HCCore
import HCCrypto

/// Who a patient is: demographics, all of it patient data.
///
/// Optional members are left out of JSON where there is nothing.
package struct Patient: Sendable, Equatable {
    package var givenName: String
    package var familyName: String
    package var birthDate: CalendarDate
    package var sex: Sex
    package var phone: String?
    package var email: String?
    /// Medical record number: the clinic's own, unique among its living patients.
    package var mrn: String?
    package var address: Address?
    package var language: String?
    package var notes: String?

    package init(
        givenName: String, familyName: String, birthDate: CalendarDate, sex: Sex,
        phone: String? = nil, email: String? = nil, mrn: String? = nil, address: Address? = nil,
        language: String? = nil, notes: String? = nil
    ) {
        self.givenName = givenName
        self.familyName = familyName
        self.birthDate = birthDate
        self.sex = sex
        self.phone = phone
        self.email = email
        self.mrn = mrn
        self.address = address
        self.language = language
        self.notes = notes
    }

    /// A postal address: lines as they stand on a letter.
    package struct Address: Sendable, Equatable {
        package var lines: [String]
        package var city: String?
        package var region: String?
        package var postalCode: String?
        /// ISO 3166-1 alpha-2.
        package var country: String?

        package init(
            lines: [String], city: String? = nil, region: String? = nil, postalCode: String? = nil,
            country: String? = nil
        ) {
            self.lines = lines
            self.city = city
            self.region = region
            self.postalCode = postalCode
            self.country = country
        }
    }
}

extension Patient: CustomStringConvertible, CustomReflectable {
    package var description: String { "***" }
    package var customMirror: Mirror { Mirror(self, children: []) }
}

// MARK: - What clients send

extension Patient {
    /// Nobody alive was born before.
    private static let firstBirthDate = CalendarDate(year: 1850, month: 1, day: 1) ?? .first

    fileprivate static func birthDates(today: CalendarDate) -> ClosedRange<CalendarDate> {
        firstBirthDate...max(today, firstBirthDate)
    }

    /// Reads a new patient.
    ///
    /// - Parameter today: the latest birth date; the clinic's day, or a day on for zones ahead of us.
    package init(json: JSONValue, today: CalendarDate) throws(ClinicError) {
        var fields = try FieldReader(json)
        givenName = fields.required("givenName", .personName)
        familyName = fields.required("familyName", .personName)
        birthDate = fields.required("birthDate", .date(Patient.birthDates(today: today)))
        sex = fields.required("sex", .choice(of: Sex.allCases))
        phone = fields.optional("phone", .phone)
        email = fields.optional("email", .email)
        mrn = fields.optional("mrn", .recordNumber)
        address = fields.optional("address", .address)
        language = fields.optional("language", .languageTag)
        notes = fields.optional("notes", .lines(1...4000))
        try fields.finish()
    }
}

/// A merge patch of a patient (RFC 7396).
package struct PatientPatch: Sendable {
    package var givenName: String?
    package var familyName: String?
    package var birthDate: CalendarDate?
    package var sex: Sex?
    package var phone = Change<String>.keep
    package var email = Change<String>.keep
    package var mrn = Change<String>.keep
    package var address = Change<Patient.Address>.keep
    package var language = Change<String>.keep
    package var notes = Change<String>.keep

    package init() {}

    package init(json: JSONValue, today: CalendarDate) throws(ClinicError) {
        var fields = try FieldReader(json)
        givenName = fields.change("givenName", .personName)
        familyName = fields.change("familyName", .personName)
        birthDate = fields.change("birthDate", .date(Patient.birthDates(today: today)))
        sex = fields.change("sex", .choice(of: Sex.allCases))
        phone = fields.clearable("phone", .phone)
        email = fields.clearable("email", .email)
        mrn = fields.clearable("mrn", .recordNumber)
        address = fields.clearable("address", .address)
        language = fields.clearable("language", .languageTag)
        notes = fields.clearable("notes", .lines(1...4000))
        try fields.finish()
    }

    /// Whether only what says how to reach the patient is changed: all that patients may change themselves.
    var isContactOnly: Bool {
        givenName == nil && familyName == nil && birthDate == nil && sex == nil && mrn.isKeep
            && notes.isKeep
    }

    package func applied(to patient: Patient) -> Patient {
        Patient(
            givenName: givenName ?? patient.givenName,
            familyName: familyName ?? patient.familyName,
            birthDate: birthDate ?? patient.birthDate,
            sex: sex ?? patient.sex,
            phone: phone.applied(to: patient.phone),
            email: email.applied(to: patient.email),
            mrn: mrn.applied(to: patient.mrn),
            address: address.applied(to: patient.address),
            language: language.applied(to: patient.language),
            notes: notes.applied(to: patient.notes)
        )
    }

    /// The names of the members that differ, for the audit: names are no patient data.
    static func changedFields(from old: Patient, to new: Patient) -> [String] {
        var names: [String] = []
        if old.givenName != new.givenName { names.append("givenName") }
        if old.familyName != new.familyName { names.append("familyName") }
        if old.birthDate != new.birthDate { names.append("birthDate") }
        if old.sex != new.sex { names.append("sex") }
        if old.phone != new.phone { names.append("phone") }
        if old.email != new.email { names.append("email") }
        if old.mrn != new.mrn { names.append("mrn") }
        if old.address != new.address { names.append("address") }
        if old.language != new.language { names.append("language") }
        if old.notes != new.notes { names.append("notes") }
        return names
    }
}

extension FieldRule where Value == String {
    /// A record number has at least one letter or digit: the search looks at nothing else.
    static var recordNumber: FieldRule {
        FieldRule(placeholder: "") { (json) throws(Refusal) in
            let text = try line(1...64).read(json)
            guard !SearchText.identifier(text).isEmpty else {
                throw Refusal(.invalidFormat, "must have a letter or a digit")
            }
            return text
        }
    }

    /// ISO 3166-1 alpha-2, by its shape.
    static var country: FieldRule {
        FieldRule(placeholder: "") { (json) throws(Refusal) in
            let text = try line(2...2).read(json)
            guard text.utf8.allSatisfy({ (0x41...0x5A).contains($0) }) else {
                throw Refusal(.invalidFormat, "must be a country code such as NZ")
            }
            return text
        }
    }
}

extension FieldRule where Value == Patient.Address {
    static var address: FieldRule {
        FieldRule(placeholder: Patient.Address(lines: [])) { (json) throws(Refusal) in
            do throws(ClinicError) {
                var fields = try FieldReader(json)
                let address = Patient.Address(
                    lines: fields.optional("lines", .list(of: .line(1...200), count: 0...5)) ?? [],
                    city: fields.optional("city", .line(1...100)),
                    region: fields.optional("region", .line(1...100)),
                    postalCode: fields.optional("postalCode", .line(1...20)),
                    country: fields.optional("country", .country)
                )
                try fields.finish()
                return address
            } catch {
                guard let first = error.fields.first else {
                    throw Refusal(.invalidFormat, "must be an address")
                }
                let place = first.field.isEmpty ? "" : "\(first.field): "
                throw Refusal(first.code, place + first.message)
            }
        }
    }
}
