/// One extension that a client offers (RFC 6455 9.1).
package struct WebSocketExtensionOffer: Equatable, Sendable {
    struct Parameter: Equatable, Sendable {
        let name: String
        /// Without the quotes, if it had any; nil for a parameter that is a name only.
        let value: String?
    }

    let name: String
    let parameters: [Parameter]

    /// More than anybody means to offer.
    static let countMax = 16
    static let parametersMax = 16

    /// Reads a list of extensions, all `Sec-WebSocket-Extensions` fields together.
    ///
    /// - Returns: nil for what is no such list: the connection is to be refused (RFC 6455 9.1).
    package static func list(_ values: [String]) -> [WebSocketExtensionOffer]? {
        var offers: [WebSocketExtensionOffer] = []
        for value in values {
            var reader = FieldReader(Array(value.utf8))
            reader.skipBlanks()
            while !reader.isAtEnd {
                if reader.take(0x2C) {
                    reader.skipBlanks()
                    continue
                }
                guard offers.count < countMax, let offer = read(&reader) else { return nil }
                offers.append(offer)
                reader.skipBlanks()
                guard reader.isAtEnd || reader.take(0x2C) else { return nil }
                reader.skipBlanks()
            }
        }
        return offers
    }

    private static func read(_ reader: inout FieldReader) -> WebSocketExtensionOffer? {
        guard let name = reader.token() else { return nil }
        var parameters: [Parameter] = []
        reader.skipBlanks()
        while reader.take(0x3B) {
            reader.skipBlanks()
            guard parameters.count < parametersMax, let name = reader.token() else { return nil }
            reader.skipBlanks()
            var value: String?
            if reader.take(0x3D) {
                reader.skipBlanks()
                guard let text = reader.tokenOrQuoted() else { return nil }
                value = text
                reader.skipBlanks()
            }
            parameters.append(Parameter(name: name, value: value))
        }
        return WebSocketExtensionOffer(name: name, parameters: parameters)
    }
}

/// Reads the pieces of a field value.
private struct FieldReader {
    private let bytes: [UInt8]
    private var index = 0

    init(_ bytes: [UInt8]) {
        self.bytes = bytes
    }

    var isAtEnd: Bool { index == bytes.count }

    mutating func skipBlanks() {
        while index < bytes.count, ByteClass.isBlank(bytes[index]) { index += 1 }
    }

    mutating func take(_ byte: UInt8) -> Bool {
        guard index < bytes.count, bytes[index] == byte else { return false }
        index += 1
        return true
    }

    mutating func token() -> String? {
        let start = index
        while index < bytes.count, ByteClass.isToken(bytes[index]) { index += 1 }
        guard index > start else { return nil }
        return String(decoding: bytes[start..<index], as: UTF8.self)
    }

    /// What is quoted must be a token too (RFC 6455 9.1).
    mutating func tokenOrQuoted() -> String? {
        guard take(0x22) else { return token() }
        var text: [UInt8] = []
        while index < bytes.count, bytes[index] != 0x22 {
            if bytes[index] == 0x5C { index += 1 }
            guard index < bytes.count, ByteClass.isToken(bytes[index]) else { return nil }
            text.append(bytes[index])
            index += 1
        }
        guard take(0x22), !text.isEmpty else { return nil }
        return String(decoding: text, as: UTF8.self)
    }
}
