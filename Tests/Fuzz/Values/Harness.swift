import Glibc
import HCCore
import HCCrypto

/// What must hold for any bytes whatsoever.
enum ValuesFuzzHarness {
    // MARK: JSON

    /// Small limits, so that a small input reaches them.
    private static let limits = JSONLimits(bytesMax: 2048, depthMax: 8, elementsMax: 64)

    /// What is read keeps the limits, has each name once, is the same in the middle of another text, and is written as
    /// what it is; no beginning of an array or an object is taken for the whole.
    static func checkJSON(_ bytes: [UInt8]) {
        let read = parse(bytes[...])
        let framed = [0x5B] + bytes + [0x5D]
        precondition(parse(framed[1..<framed.count - 1]) == read, "elsewhere it is another")
        switch read {
        case .failure(let error):
            precondition((0...bytes.count).contains(error.offset), "wrong beyond the text")
        case .success(let value):
            precondition(bytes.count <= limits.bytesMax, "longer than the limit")
            precondition(String(validating: bytes, as: UTF8.self) != nil, "not UTF-8")
            precondition(depth(of: bytes) <= limits.depthMax, "deeper than the limit")
            precondition(count(value) <= limits.elementsMax, "more values than the limit")
            let written = Array(value.text.utf8)
            // Escapes may be longer than what they stand for.
            let again = parse(written[...], JSONLimits(bytesMax: 8 * bytes.count + 16))
            precondition(again == .success(value), "written as something else")
            precondition(
                (try? again.get())?.text.utf8.elementsEqual(written) == true, "two texts of one")
            checkBeginnings(bytes)
        }
    }

    private static func parse(
        _ bytes: ArraySlice<UInt8>, _ limits: JSONLimits = limits
    ) -> Result<JSONValue, JSONError> {
        do throws(JSONError) {
            return .success(try JSONReader.parse(bytes, limits: limits))
        } catch {
            return .failure(error)
        }
    }

    private static func checkBeginnings(_ bytes: [UInt8]) {
        let space: Set<UInt8> = [0x20, 0x09, 0x0A, 0x0D]
        guard let first = bytes.first(where: { !space.contains($0) }),
            let end = bytes.lastIndex(where: { !space.contains($0) }),
            first == UInt8(ascii: "{") || first == UInt8(ascii: "[")
        else { return }
        for cut in stride(from: 0, through: end, by: 1 + end / 64) {
            if case .success = parse(bytes[..<cut]) { preconditionFailure("a part is the whole") }
        }
    }

    /// Of a text that was read: brackets outside strings.
    private static func depth(of bytes: [UInt8]) -> Int {
        var (depth, deepest) = (0, 0)
        var (isInString, isEscaped) = (false, false)
        for byte in bytes {
            if isEscaped {
                isEscaped = false
            } else if byte == UInt8(ascii: "\"") {
                isInString.toggle()
            } else if isInString {
                isEscaped = byte == UInt8(ascii: "\\")
            } else if byte == UInt8(ascii: "{") || byte == UInt8(ascii: "[") {
                depth += 1
                deepest = max(deepest, depth)
            } else if byte == UInt8(ascii: "}") || byte == UInt8(ascii: "]") {
                depth -= 1
            }
        }
        precondition(depth == 0 && !isInString, "not closed")
        return deepest
    }

    private static func count(_ value: JSONValue) -> Int {
        switch value {
        case .array(let values): return values.reduce(1) { $0 + count($1) }
        case .object(let object):
            precondition(
                Set(object.names.map { Array($0.utf8) }).count == object.count, "a name twice")
            return object.members.reduce(1) { $0 + count($1.value) }
        default: return 1
        }
    }

    // MARK: Access tokens

    private static let now = Timestamp(seconds: 1_900_000_000)

    private static let signer: (ring: TokenKeyRing, key: HMACKey, header: [UInt8]) = {
        do throws(CryptoError) {
            let secret = SecretBytes([UInt8](repeating: 3, count: 32))
            let ring = try TokenKeyRing(keys: [(id: "k1", key: secret)])
            let token = try ring.sign([:], issuedAt: now, lifetime: .seconds(60))
            return (ring, try HMACKey(secret), Array(token.utf8.prefix { $0 != 0x2E }))
        } catch {
            preconditionFailure("\(error)")
        }
    }()

    /// Nobody without the key makes a token, whatever he writes.
    static func checkToken(_ bytes: [UInt8]) {
        precondition(verify(bytes) == nil, "a token that nobody has signed")
        let header = signer.header + [0x2E]
        precondition(verify(header + bytes) == nil, "a payload that nobody has signed")
    }

    /// A token whose payload is anything at all is good only for as long as a token may be.
    static func checkClaims(_ bytes: [UInt8]) {
        let signed = signer.header + [0x2E] + Array(Base64.url.encode(bytes).utf8)
        do {
            let code = try signer.key.authenticationCode(for: signed).bytes
            guard let token = verify(signed + [0x2E] + Array(Base64.url.encode(code).utf8)) else {
                return
            }
            precondition(token.expiresAt > token.issuedAt, "over before it was made")
            precondition(
                token.expiresAt - token.issuedAt <= TokenKeyRing.lifetimeMax, "good for too long")
            let skew = TokenKeyRing.clockSkewMax
            precondition(token.notBefore >= token.issuedAt, "good before it was made")
            precondition(token.notBefore <= now + skew && now < token.expiresAt + skew, "not now")
        } catch {
            preconditionFailure("\(error)")
        }
    }

    private static func verify(_ token: [UInt8]) -> SignedToken? {
        token.withUnsafeBytes { bytes in
            do throws(TokenError) {
                return try signer.ring.verify(bytes, at: now)
            } catch {
                return nil
            }
        }
    }

    // MARK: Texts

    static func checkTexts(_ bytes: [UInt8]) {
        let text = String(decoding: bytes, as: UTF8.self)
        checkInstant(text)
        if let date = CalendarDate(iso8601: text) {
            precondition(date.iso8601 == text, "a day in another form")
            precondition(CalendarDate(daysSinceEpoch: date.daysSinceEpoch) == date, "another day")
        }
        if let id = UUID(text) {
            precondition(id.description == text.lowercased(), "another id")
            precondition(UUID(utf8: text.utf8) == id, "bytes are read in another way")
        }
        if let value = Hex.decode(text) {
            precondition(Hex.encode(value) == text.lowercased(), "other bytes")
        }
        for alphabet in [Base64.standard, .url] {
            if let value = alphabet.decode(text) {
                precondition(alphabet.encode(value) == text, "two texts of the same bytes")
            }
            precondition(alphabet.decode(alphabet.encode(bytes)) == bytes, "bytes are lost")
        }
    }

    /// An instant is the one that the C library finds, and is written as one that reads the same.
    private static func checkInstant(_ text: String) {
        guard let instant = Timestamp(rfc3339: text) else { return }
        precondition(instant >= .first && instant <= .last, "an instant that cannot be named")
        precondition(Timestamp(rfc3339: instant.rfc3339) == instant, "another instant")
        let bytes = Array(text.utf8)
        func number(_ range: Range<Int>) -> Int32 {
            guard let value = Int32(String(decoding: bytes[range], as: UTF8.self)) else {
                preconditionFailure("no digits")
            }
            return value
        }
        var fields = tm()
        fields.tm_year = number(0..<4) - 1900
        fields.tm_mon = number(5..<7) - 1
        fields.tm_mday = number(8..<10)
        fields.tm_hour = number(11..<13)
        fields.tm_min = number(14..<16)
        fields.tm_sec = number(17..<19)
        var seconds = timegm(&fields)
        let end = bytes.count
        if let sign = bytes.dropFirst(19).first(where: { $0 == 0x2B || $0 == 0x2D }) {
            let offset = Int(number(end - 5..<end - 3)) * 3600 + Int(number(end - 2..<end)) * 60
            seconds -= sign == 0x2B ? offset : -offset
        }
        let rest = instant - Timestamp(seconds: Int64(seconds))
        precondition(rest >= .zero && rest < .seconds(1), "an instant that nobody else finds")
    }
}
