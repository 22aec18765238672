/// A frame as a test writes and reads it: its own code, so that it does not share the server's mistakes.
struct RawFrame: Equatable, CustomStringConvertible {
    var first: UInt8
    var content: [UInt8]

    init(_ first: UInt8, _ content: [UInt8] = []) {
        self.first = first
        self.content = content
    }

    static func text(_ text: String) -> RawFrame { RawFrame(0x81, Array(text.utf8)) }
    static func binary(_ content: [UInt8]) -> RawFrame { RawFrame(0x82, content) }
    static func ping(_ text: String = "") -> RawFrame { RawFrame(0x89, Array(text.utf8)) }
    static func pong(_ text: String = "") -> RawFrame { RawFrame(0x8A, Array(text.utf8)) }
    static func close(_ code: UInt16? = nil, _ reason: String = "") -> RawFrame {
        let head = code.map { [UInt8($0 >> 8), UInt8($0 & 0xFF)] } ?? []
        return RawFrame(0x88, head + Array(reason.utf8))
    }

    /// The code of a Close frame.
    var closeCode: Int? {
        guard first == 0x88, content.count >= 2 else { return nil }
        return Int(content[0]) << 8 | Int(content[1])
    }

    var closeReason: String { String(decoding: content.dropFirst(2), as: UTF8.self) }

    var description: String {
        let shown = content.count > 40 ? "\(content.count) bytes" : "\(content)"
        return "\(String(first, radix: 16)) \(shown)"
    }

    /// As a client sends it.
    func masked(_ key: [UInt8] = [0x37, 0xFA, 0x21, 0x3D]) -> [UInt8] {
        head(maskBit: 0x80) + key + content.enumerated().map { $1 ^ key[$0 % 4] }
    }

    /// As a server does.
    var unmasked: [UInt8] { head(maskBit: 0) + content }

    private func head(maskBit: UInt8) -> [UInt8] {
        var bytes = [first]
        switch content.count {
        case ..<126: bytes.append(maskBit | UInt8(content.count))
        case ..<65536:
            bytes += [maskBit | 126, UInt8(content.count >> 8), UInt8(content.count & 0xFF)]
        default:
            bytes.append(maskBit | 127)
            for shift in stride(from: 56, through: 0, by: -8) {
                bytes.append(UInt8(content.count >> shift & 0xFF))
            }
        }
        return bytes
    }

    /// Every complete frame that a server sent.
    static func parse(_ bytes: ArraySlice<UInt8>) -> [RawFrame] {
        var found: [RawFrame] = []
        var rest = bytes
        while rest.count >= 2 {
            let start = rest.startIndex
            var count = Int(rest[start + 1])
            var head = 2
            if count == 126 {
                guard rest.count >= 4 else { break }
                count = Int(rest[start + 2]) << 8 | Int(rest[start + 3])
                head = 4
            } else if count == 127 {
                guard rest.count >= 10 else { break }
                count = rest[(start + 2)..<(start + 10)].reduce(0) { $0 << 8 | Int($1) }
                head = 10
            }
            guard rest.count >= head + count else { break }
            found.append(
                RawFrame(rest[start], Array(rest[(start + head)..<(start + head + count)])))
            rest = rest[(start + head + count)...]
        }
        return found
    }
}
