import HCCore

/// What a password must be (NIST SP 800-63B 5.1.1.2: length and a list of common ones, no rules of
/// composition).
package enum PasswordPolicy {
    package static let charactersMin = 12
    /// Also bounds the work of hashing.
    package static let bytesMax = 256

    /// - Returns: what is wrong with the password, or nil.
    package static func problem(
        with password: String, email: String, field: String = "password"
    ) -> InvalidField? {
        if password.utf8.count > bytesMax {
            return InvalidField(field, .tooLong, "must have at most \(bytesMax) bytes")
        }
        if password.unicodeScalars.count < charactersMin {
            return InvalidField(
                field, .tooShort, "must have at least \(charactersMin) characters")
        }
        if password.unicodeScalars.contains("\0") {
            return InvalidField(field, .invalidCharacters, "must not have a NUL character")
        }
        let folded = password.lowercased()
        let address = email.lowercased()
        let local = address.split(separator: "@").first.map(String.init) ?? ""
        if folded == address || folded == local {
            return InvalidField(field, .notAllowed, "must not be the email address")
        }
        if isCommon(folded) {
            return InvalidField(field, .tooCommon, "is among the first that anybody would guess")
        }
        return nil
    }

    /// - Parameter folded: in lower case.
    static func isCommon(_ folded: String) -> Bool {
        if common.contains(folded) { return true }
        let bytes = Array(folded.utf8)
        return isRepetition(bytes) || isRun(bytes)
    }

    /// One to six bytes over and over: `aaaaaaaaaaaa`, `abcabcabcabc`, `passpasspass`.
    private static func isRepetition(_ bytes: [UInt8]) -> Bool {
        (1...6).contains { period in
            bytes.count >= period * 2
                && bytes.indices.dropFirst(period).allSatisfy { bytes[$0] == bytes[$0 - period] }
        }
    }

    /// Each byte one above or one below the last: `abcdefghijklm`; digits may wrap: `123456789012`.
    private static func isRun(_ bytes: [UInt8]) -> Bool {
        func follows(_ step: Int) -> Bool {
            bytes.indices.dropFirst().allSatisfy { index in
                let difference = Int(bytes[index]) - Int(bytes[index - 1])
                let wraps =
                    TextRules.isDigit(bytes[index]) && TextRules.isDigit(bytes[index - 1])
                    && difference == -9 * step
                return difference == step || wraps
            }
        }
        return follows(1) || follows(-1)
    }

    /// The commonest passwords of twelve characters and more, in lower case.
    private static let common: Set<String> = [
        "123456789101", "1234567891011", "123456789abc", "1234567890qwerty", "1q2w3e4r5t6y",
        "1q2w3e4r5t6y7u8i", "1qaz2wsx3edc", "1qaz2wsx3edc4rfv", "abc123456789", "abcd12345678",
        "abcdefgh1234", "administrator", "administrator1", "adminadmin123", "asdfghjkl123",
        "asdfghjkl;'", "changeme1234", "changemenow1", "correcthorse", "correcthorsebatterystaple",
        "doctordoctor", "football1234", "hospital1234", "hospitalhospital", "iloveyou1234",
        "iloveyouforever", "letmein12345", "letmeinplease", "medicine1234", "password!123",
        "password1234", "password12345", "password123456", "password@123", "passwordpassword",
        "princess1234", "q1w2e3r4t5y6", "qazwsxedcrfv", "qwerty123456", "qwerty1234567",
        "qwertyqwerty", "qwertyuiop12", "qwertyuiop123", "qwertyuiop[]", "qwertyuiopasdf",
        "qwertyuiopasdfghjkl", "sunshine1234", "superman1234", "thisisapassword",
        "trustno1trustno1",
        "welcome12345", "welcome123456", "welcomewelcome", "zxcvbnm12345", "zaq12wsxcde3",
        "p@ssw0rd1234", "p@ssword1234", "passw0rd1234", "clinic123456", "healthcare123",
    ]
}
