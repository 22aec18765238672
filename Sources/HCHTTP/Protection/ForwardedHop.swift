import HCIO

/// One hop of a request on its way through proxies, as the proxy wrote it down that received it: who sent it, and
/// how. Nil where that proxy does not tell.
struct ForwardedHop: Sendable, Equatable {
    var address: SocketAddress?
    var isSecure: Bool?
    var host: String?

    /// A request that went through more is refused.
    static let hopsMax = 32

    /// A node of RFC 7239 6: "192.0.2.43", "192.0.2.43:4711", "[2001:db8::17]:4711", and "unknown" or "_name" (nil).
    ///
    /// - Parameter isBareAllowed: also an IPv6 address without brackets, as `X-Forwarded-For` has it.
    static func node(_ text: UnsafeRawBufferPointer, isBareAllowed: Bool) throws(ForwardedError)
        -> SocketAddress?
    {
        guard let first = text.first, text.count <= 64 else { throw .malformed }
        var end = 0
        if first == 0x5B {
            guard let bracket = text.firstIndex(of: 0x5D) else { throw .malformed }
            guard text[1..<bracket].contains(0x3A) else { throw .malformed }
            end = bracket + 1
        } else if isBareAllowed, text.count(where: { $0 == 0x3A }) > 1 {
            end = text.count
        } else {
            end = text.firstIndex(of: 0x3A) ?? text.count
        }
        var port: UInt16 = 0
        if end < text.count {
            guard text[end] == 0x3A else { throw .malformed }
            port = try ForwardedHop.port(text.slice(end + 1..<text.count))
        }
        var name = text.slice(0..<end)
        if name.isEqualIgnoringCase(to: "unknown") { return nil }
        if first == 0x5F {
            guard name.count > 1, name.allSatisfy(isObfuscated) else { throw .malformed }
            return nil
        }
        if first == 0x5B { name = name.slice(1..<name.count - 1) }
        // Nothing but an address is given to the library: no NUL, no zone.
        guard name.allSatisfy({ ByteClass.hexValue($0) != nil || $0 == 0x3A || $0 == 0x2E }),
            let address = SocketAddress(host: String(decoding: name, as: UTF8.self), port: port)
        else { throw .malformed }
        return address.unmapped
    }

    /// - Returns: 0 for a port that has a name only ("_b3").
    private static func port(_ text: UnsafeRawBufferPointer) throws(ForwardedError) -> UInt16 {
        if text.first == 0x5F {
            guard text.count > 1, text.allSatisfy(isObfuscated) else { throw .malformed }
            return 0
        }
        guard (1...5).contains(text.count), text.allSatisfy({ ByteClass.isDigit($0) }),
            let port = UInt16(String(decoding: text, as: UTF8.self))
        else { throw .malformed }
        return port
    }

    private static func isObfuscated(_ byte: UInt8) -> Bool {
        switch ByteClass.lower(byte) {
        case 0x61...0x7A, 0x30...0x39, 0x2D, 0x2E, 0x5F: true
        default: false
        }
    }

    static func isSecure(_ scheme: UnsafeRawBufferPointer) throws(ForwardedError) -> Bool {
        if scheme.isEqualIgnoringCase(to: "https") { return true }
        guard scheme.isEqualIgnoringCase(to: "http") else { throw .malformed }
        return false
    }

    static func host(_ text: UnsafeRawBufferPointer) throws(ForwardedError) -> String {
        do throws(HTTP1Error) { return try HTTP1Host.parse(text) } catch { throw .malformed }
    }
}

/// Reads one `Forwarded` field (RFC 7239 4): elements between commas, pairs between semicolons.
///
/// It is read as a whole, from the left: a quotation mark that a client opened would else swallow what our proxy
/// wrote behind it, and here the field is malformed.
struct ForwardedReader {
    private let input: UnsafeRawBufferPointer
    private var position = 0

    init(_ input: UnsafeRawBufferPointer) {
        self.input = input
    }

    /// The next element that has a pair; nil at the end.
    mutating func next() throws(ForwardedError) -> ForwardedHop? {
        while true {
            skipBlanks()
            guard position < input.count else { return nil }
            if input[position] == 0x2C {
                position += 1
                continue
            }
            return try readElement()
        }
    }

    private mutating func readElement() throws(ForwardedError) -> ForwardedHop {
        var hop = ForwardedHop()
        var seen: [[UInt8]] = []
        while true {
            skipBlanks()
            guard position < input.count, input[position] != 0x2C else { return hop }
            if input[position] == 0x3B {
                position += 1
                continue
            }
            let name = try readToken().map(ByteClass.lower)
            guard position < input.count, input[position] == 0x3D, !seen.contains(name),
                seen.count < 16
            else { throw .malformed }
            seen.append(name)
            position += 1
            let value = try readValue()
            try value.withBytes { value throws(ForwardedError) in
                try name.withBytes { name throws(ForwardedError) in
                    try ForwardedReader.note(name, value, in: &hop)
                }
            }
            skipBlanks()
            guard position == input.count || input[position] == 0x2C || input[position] == 0x3B
            else { throw .malformed }
        }
    }

    private static func note(
        _ name: UnsafeRawBufferPointer, _ value: UnsafeRawBufferPointer, in hop: inout ForwardedHop
    ) throws(ForwardedError) {
        if name.isEqual(to: "for") {
            hop.address = try ForwardedHop.node(value, isBareAllowed: false)
        } else if name.isEqual(to: "proto") {
            hop.isSecure = try ForwardedHop.isSecure(value)
        } else if name.isEqual(to: "host") {
            hop.host = try ForwardedHop.host(value)
        }
    }

    private mutating func readToken() throws(ForwardedError) -> [UInt8] {
        let start = position
        while position < input.count && ByteClass.isToken(input[position]) { position += 1 }
        guard position > start else { throw .malformed }
        return Array(input[start..<position])
    }

    /// A token, or a quoted string without its quotation marks and backslashes (RFC 9110 5.6.4).
    private mutating func readValue() throws(ForwardedError) -> [UInt8] {
        guard position < input.count, input[position] == 0x22 else { return try readToken() }
        position += 1
        var value: [UInt8] = []
        while position < input.count {
            var byte = input[position]
            position += 1
            if byte == 0x22 { return value }
            if byte == 0x5C {
                guard position < input.count else { throw .malformed }
                byte = input[position]
                position += 1
            }
            guard ByteClass.isFieldValue(byte) else { throw .malformed }
            value.append(byte)
        }
        throw .malformed
    }

    private mutating func skipBlanks() {
        while position < input.count && ByteClass.isBlank(input[position]) { position += 1 }
    }
}
