import HCCore
import HCCrypto
import HCTenancy

/// What of a clinic changes as one. Whoever changes it names it in its write, and every cached answer names what it is
/// made of.
extension CacheTag {
    static let practitioners = CacheTag("practitioners", isCounted: true)
    static let services = CacheTag("services", isCounted: true)
    /// The clinic's own settings.
    static let clinic = CacheTag("clinic", isCounted: true)

    /// What keeps a practitioner busy.
    static func slots(_ practitioner: PractitionerID) -> CacheTag {
        CacheTag("slots:\(practitioner)")
    }
}

extension EntityTag {
    /// A strong tag of exactly these bytes, for answers that have no version of their own.
    static func text(of bytes: [UInt8]) throws(CryptoError) -> String {
        "\"c\(try SHA256.hash(bytes))\""
    }
}
