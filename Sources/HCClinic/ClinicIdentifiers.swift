package import HCCore

package enum AccountKind {}
package enum PractitionerKind {}
package enum PatientKind {}
package enum AppointmentKind {}
package enum ServiceKind {}

package typealias AccountID = Identifier<AccountKind>
package typealias PractitionerID = Identifier<PractitionerKind>
package typealias PatientID = Identifier<PatientKind>
package typealias AppointmentID = Identifier<AppointmentKind>
package typealias ServiceID = Identifier<ServiceKind>
