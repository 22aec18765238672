/// One key of a clinic as the control database keeps it: encrypted.
package struct WrappedKey: Hashable, Sendable {
    package enum Purpose: String, CaseIterable, Sendable {
        /// Wraps the clinic's other keys; wrapped by the master key.
        case kek
        /// Seals columns.
        case data
        /// Makes blind indexes.
        case index
    }

    package enum State: String, Sendable {
        /// Used to seal; one per purpose.
        case active
        /// Opens what it sealed.
        case retired
    }

    package let purpose: Purpose
    package let version: UInt32
    package let state: State
    /// Which master key wraps it: a kek has one, the others do not.
    package let masterKeyID: String?
    /// Version of the kek that wraps it: the others have one, a kek does not.
    package let wrappingVersion: UInt32?
    package let wrapped: [UInt8]

    package init(
        purpose: Purpose, version: UInt32, state: State, masterKeyID: String?,
        wrappingVersion: UInt32?, wrapped: [UInt8]
    ) {
        self.purpose = purpose
        self.version = version
        self.state = state
        self.masterKeyID = masterKeyID
        self.wrappingVersion = wrappingVersion
        self.wrapped = wrapped
    }
}
