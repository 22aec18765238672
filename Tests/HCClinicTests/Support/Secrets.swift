import HCCrypto

@testable import HCClinic

extension ClinicSecrets {
    static func forTests() throws -> ClinicSecrets {
        let key = SecretBytes((0..<32).map { UInt8(truncatingIfNeeded: $0 * 37 + 11) })
        return try ClinicSecrets(tokens: TokenKeyRing(keys: [(id: "test", key: key)]))
    }
}
