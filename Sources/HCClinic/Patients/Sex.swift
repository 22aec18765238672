/// FHIR AdministrativeGender.
package enum Sex: String, CaseIterable, Sendable {
    case male
    case female
    case other
    case unknown
}
