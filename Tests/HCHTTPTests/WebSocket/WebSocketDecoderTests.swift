import Testing

@testable import HCHTTP

@Suite("WebSocket frames")
struct WebSocketDecoderTests {
    struct Case: Sendable, CustomTestStringConvertible {
        let name: String
        let bytes: [UInt8]
        let expected: WebSocketTranscript

        init(
            _ name: String, _ frames: [RawFrame], _ events: [String], _ error: WebSocketError? = nil
        ) {
            self.init(name, bytes: frames.flatMap { $0.masked() }, events, error)
        }

        init(_ name: String, bytes: [UInt8], _ events: [String], _ error: WebSocketError? = nil) {
            self.name = name
            self.bytes = bytes
            expected = WebSocketTranscript(events, error)
        }

        var testDescription: String { name }
    }

    static let key: [UInt8] = [0x37, 0xFA, 0x21, 0x3D]
    static let limits: WebSocketLimits = {
        var limits = WebSocketLimits(messageBytesMax: 100_000)
        limits.frameBytesMax = 70_000
        limits.emptyFragmentsMax = 3
        return limits
    }()

    static func bytes(_ count: Int) -> [UInt8] { Array(repeating: 0x2A, count: count) }

    static let framing: [Case] = [
        // One frame, by the three forms of a length.
        Case("empty text", [.text("")], ["text "]),
        Case("text", [.text("Hello")], ["text Hello"]),
        Case("125 bytes", [.binary(bytes(125))], ["binary " + String(repeating: "*", count: 125)]),
        Case("126 bytes", [.binary(bytes(126))], ["binary " + String(repeating: "*", count: 126)]),
        Case("65535 bytes", [.binary(bytes(65535))], ["binary 65535 bytes"]),
        Case("65536 bytes", [.binary(bytes(65536))], ["binary 65536 bytes"]),
        Case(
            "RFC 6455 5.7, masked Hello",
            bytes: [
                0x81, 0x85, 0x37, 0xFA, 0x21, 0x3D, 0x7F, 0x9F, 0x4D, 0x51, 0x58,
            ], ["text Hello"]),
        Case("a mask of zeros", bytes: [0x81, 0x81, 0, 0, 0, 0, 0x41], ["text A"]),
        // Lengths in more bytes than they need, or in more bits than there are.
        Case(
            "5 in two bytes", bytes: [0x81, 0xFE, 0, 5] + key, [], .lengthNotMinimal),
        Case(
            "125 in two bytes", bytes: [0x81, 0xFE, 0, 125] + key, [], .lengthNotMinimal),
        Case(
            "65535 in eight bytes", bytes: [0x82, 0xFF, 0, 0, 0, 0, 0, 0, 0xFF, 0xFF] + key, [],
            .lengthNotMinimal),
        Case(
            "the highest bit", bytes: [0x82, 0xFF, 0x80, 0, 0, 0, 0, 0, 0, 0] + key, [],
            .lengthOutOfRange),
        Case(
            "63 bits", bytes: [0x82, 0xFF, 0x7F, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF] + key,
            [], .frameTooLarge),
        // Masks.
        Case("without a mask", bytes: [0x81, 0x01, 0x41], [], .unmasked),
        Case("a ping without a mask", bytes: [0x89, 0x00], [], .unmasked),
        // Reserved bits and opcodes.
        Case("RSV1", [RawFrame(0xC1, [0x41])], [], .reservedBits),
        Case("RSV1 on an empty message", [RawFrame(0xC1)], [], .reservedBits),
        Case("RSV2", [RawFrame(0xA1, [0x41])], [], .reservedBits),
        Case("RSV3", [RawFrame(0x91, [0x41])], [], .reservedBits),
        Case("RSV on a ping", [RawFrame(0xF9)], [], .reservedBits),
        Case("RSV on a close", [RawFrame(0xF8)], [], .reservedBits),
        Case("RSV3 after a message", [.text("a"), RawFrame(0x91)], ["text a"], .reservedBits),
        Case("opcode 3", [RawFrame(0x83)], [], .reservedOpcode),
        Case("opcode 7", [RawFrame(0x87, [0x41])], [], .reservedOpcode),
        Case("opcode 11", [RawFrame(0x8B)], [], .reservedOpcode),
        Case("opcode 15", [RawFrame(0x8F)], [], .reservedOpcode),
        Case(
            "opcode 12 after a message", [.text("a"), RawFrame(0x8C)], ["text a"], .reservedOpcode),
        // Control frames.
        Case("an empty ping", [.ping()], ["ping "]),
        Case(
            "a ping of 125", [.ping(String(repeating: "p", count: 125))],
            [
                "ping " + String(repeating: "p", count: 125)
            ]),
        Case(
            "a ping of 126", [.ping(String(repeating: "p", count: 126))], [], .controlTooLong),
        Case("a close of 126", [RawFrame(0x88, bytes(126))], [], .controlTooLong),
        Case("a long ping by its length alone", bytes: [0x89, 0xFF], [], .controlTooLong),
        Case("a pong that nobody asked for", [.pong("x"), .text("a")], ["pong x", "text a"]),
        Case("a ping that is no text", [RawFrame(0x89, [0xFF])], ["ping [255]"]),
        Case("a ping in two", [RawFrame(0x09, [0x41])], [], .fragmentedControl),
        Case("a close in two", [RawFrame(0x08)], [], .fragmentedControl),
        // Fragments.
        Case("two fragments", [RawFrame(0x01, [0x41]), RawFrame(0x80, [0x42])], ["text AB"]),
        Case(
            "three, one empty",
            [RawFrame(0x02, [0x41]), RawFrame(0x00), RawFrame(0x80, [0x42])], ["binary AB"]),
        Case(
            "control frames between",
            [
                RawFrame(0x01, [0x41]), .ping("1"), RawFrame(0x00, [0x42]), .pong("2"),
                RawFrame(0x80, [0x43]), .text("D"),
            ], ["ping 1", "pong 2", "text ABC", "text D"]),
        Case("a continuation of nothing", [RawFrame(0x80, [0x41])], [], .nothingToContinue),
        Case("one that is not the last", [RawFrame(0x00, [0x41])], [], .nothingToContinue),
        Case(
            "a continuation of a whole message", [.text("a"), RawFrame(0x80)], ["text a"],
            .nothingToContinue),
        Case(
            "a message in a message", [RawFrame(0x01, [0x41]), .text("b")], [],
            .messageNotFinished),
        Case(
            "another's beginning in it", [RawFrame(0x01, [0x41]), RawFrame(0x02)], [],
            .messageNotFinished),
        Case("not finished", [RawFrame(0x01, [0x41]), .ping()], ["ping ", "unfinished"]),
        Case(
            "as many empty fragments as are forgiven",
            [RawFrame(0x01), RawFrame(0x00), RawFrame(0x00), RawFrame(0x80, [0x41])], ["text A"]),
        Case(
            "one more", [RawFrame(0x01), RawFrame(0x00), RawFrame(0x00), RawFrame(0x00)], [],
            .emptyFragments),
        // Sizes.
        Case("a frame above the limit", [.binary(bytes(70_001))], [], .frameTooLarge),
        Case(
            "a message at the limit",
            [RawFrame(0x02, bytes(50_000)), RawFrame(0x80, bytes(50_000))], ["binary 100000 bytes"]
        ),
        Case(
            "a message above it", [RawFrame(0x02, bytes(50_000)), RawFrame(0x80, bytes(50_001))],
            [], .messageTooLarge),
    ]

    static let closing: [Case] = [
        Case("no code", [.close()], ["close 0 "]),
        Case("one byte", [RawFrame(0x88, [3])], [], .closeTooShort),
        Case("with a reason", [.close(1000, "bye")], ["close 1000 bye"]),
        Case(
            "with the longest reason", [.close(1001, String(repeating: "r", count: 123))],
            [
                "close 1001 " + String(repeating: "r", count: 123)
            ]),
        Case("a reason that is not UTF-8", [RawFrame(0x88, [3, 0xE8, 0xFF])], [], .invalidUTF8),
        Case(
            "a reason that is cut off", [RawFrame(0x88, [3, 0xE8, 0xCE, 0xBA, 0xE1])], [],
            .invalidUTF8),
    ]

    @Test("frames come out whole, or are refused for what is wrong", arguments: framing + closing)
    func frames(_ one: Case) {
        #expect(WebSocketTranscript(one.bytes, limits: Self.limits) == one.expected)
    }

    @Test("the result does not depend on how the bytes are cut", arguments: framing + closing)
    func cuts(_ one: Case) {
        let sizes = one.bytes.count > 2000 ? [997, 65_537] : [1, 2, 3, 7]
        for size in sizes {
            let cut = WebSocketTranscript(one.bytes, pieceBytes: size, limits: Self.limits)
            #expect(cut == one.expected, "in pieces of \(size)")
            #expect(cut.keptBytesMax <= WebSocketDecoder.pendingBytesMax)
        }
    }

    @Test(
        "close codes that may be sent",
        arguments: [
            1000, 1001, 1002, 1003, 1007, 1008, 1009, 1010, 1011, 1012, 1013, 1014, 3000, 3999,
            4000, 4999,
        ] as [UInt16])
    func goodCodes(_ code: UInt16) {
        #expect(
            WebSocketTranscript(RawFrame.close(code).masked())
                == WebSocketTranscript(["close \(code) "]))
    }

    @Test(
        "close codes that may not",
        arguments: [
            0, 1, 999, 1004, 1005, 1006, 1015, 1016, 1100, 2000, 2999, 5000, 65535,
        ] as [UInt16])
    func badCodes(_ code: UInt16) {
        #expect(
            WebSocketTranscript(RawFrame.close(code).masked())
                == WebSocketTranscript([], .closeCode))
    }

    @Test("each offence has the code that its RFC names")
    func codes() {
        #expect(WebSocketError.invalidUTF8.closeCode == .invalidData)
        #expect(WebSocketError.invalidDeflate.closeCode == .invalidData)
        #expect(WebSocketError.messageTooLarge.closeCode == .messageTooBig)
        #expect(WebSocketError.frameTooLarge.closeCode == .messageTooBig)
        #expect(WebSocketError.emptyFragments.closeCode == .policyViolation)
        let others = WebSocketError.allCases.filter { $0.closeCode == .protocolError }
        #expect(others.count == WebSocketError.allCases.count - 5)
    }

    // MARK: UTF-8

    static let text: [(name: String, bytes: [UInt8], isValid: Bool)] = [
        ("kosme", [0xCE, 0xBA, 0xE1, 0xBD, 0xB9, 0xCF, 0x83, 0xCE, 0xBC, 0xCE, 0xB5], true),
        ("the first of two bytes", [0xC2, 0x80], true),
        ("the first of three", [0xE0, 0xA0, 0x80], true),
        ("the first of four", [0xF0, 0x90, 0x80, 0x80], true),
        ("the last of one", [0x7F], true),
        ("the last of two", [0xDF, 0xBF], true),
        ("the last of three", [0xEF, 0xBF, 0xBF], true),
        ("the last of four", [0xF4, 0x8F, 0xBF, 0xBF], true),
        ("before the surrogates", [0xED, 0x9F, 0xBF], true),
        ("after them", [0xEE, 0x80, 0x80], true),
        ("a byte order mark", [0xEF, 0xBB, 0xBF], true),
        ("NUL", [0x00], true),
        ("the first surrogate", [0xED, 0xA0, 0x80], false),
        ("the last surrogate", [0xED, 0xBF, 0xBF], false),
        ("beyond the last", [0xF4, 0x90, 0x80, 0x80], false),
        ("far beyond", [0xF8, 0x88, 0x80, 0x80, 0x80], false),
        ("six bytes", [0xFC, 0x84, 0x80, 0x80, 0x80, 0x80], false),
        ("a lone continuation", [0x80], false),
        ("two of them", [0xBF, 0x80], false),
        ("a lead byte and a letter", [0xC2, 0x41], false),
        ("cut after one of two", [0xC2], false),
        ("cut after two of three", [0xE1, 0xBD], false),
        ("cut after three of four", [0xF0, 0x90, 0x80], false),
        ("overlong slash", [0xC0, 0xAF], false),
        ("overlong in three", [0xE0, 0x80, 0xAF], false),
        ("overlong in four", [0xF0, 0x80, 0x80, 0xAF], false),
        ("C1", [0xC1, 0xBF], false),
        ("FE", [0xFE], false),
        ("FF", [0xFF], false),
        ("long, with a fault at its end", Array(repeating: 0x41, count: 1000) + [0xFF], false),
        (
            "long, with a letter at its end", Array(repeating: 0x41, count: 1001) + [0xC3, 0xA4],
            true
        ),
    ]

    @Test("text is UTF-8", arguments: text.indices)
    func utf8(_ index: Int) {
        let (name, bytes, isValid) = Self.text[index]
        let swift = String(validating: bytes, as: UTF8.self) != nil
        #expect(swift == isValid, "\(name)")
        for size in [Int.max, 1, 3] {
            let whole = WebSocketTranscript(RawFrame(0x81, bytes).masked(), pieceBytes: size)
            #expect(whole.error == (isValid ? nil : .invalidUTF8), "\(name)")
            // Cut into fragments inside of characters.
            let fragments = bytes.enumerated().map { index, byte in
                RawFrame(
                    (index == 0 ? 1 : 0) | (index == bytes.count - 1 ? 0x80 : 0), [byte])
            }
            let cut = WebSocketTranscript(fragments.flatMap { $0.masked() }, pieceBytes: size)
            #expect(cut.error == (isValid ? nil : .invalidUTF8), "\(name) in fragments")
        }
        #expect(WebSocketTranscript(RawFrame(0x82, bytes).masked()).error == nil)
    }

    @Test("a fault in a text is told at its first byte, not at the end of the message")
    func failFast() {
        let start = RawFrame(0x01, [0x41, 0xED, 0xA0]).masked()
        #expect(WebSocketTranscript(start) == WebSocketTranscript([], .invalidUTF8))
        // Of a frame whose end has not come.
        let long: [UInt8] = [0x81, 0xFE, 0x10, 0x00, 0, 0, 0, 0, 0x41, 0xF4, 0x90]
        #expect(WebSocketTranscript(long) == WebSocketTranscript([], .invalidUTF8))
    }

    // MARK: Masks

    @Test("masking by words is masking by bytes, from every phase and alignment")
    func masks() {
        let key: [UInt8] = [0x12, 0x34, 0x56, 0x78]
        let mask: UInt32 = 0x7856_3412
        for count in [0, 1, 2, 3, 4, 7, 8, 9, 15, 16, 17, 31, 64, 100] {
            for phase in 0..<6 {
                let plain = (0..<count).map { UInt8(truncatingIfNeeded: $0 &* 37) }
                var masked = [0, 0, 0] + plain
                masked.withUnsafeMutableBytes { bytes in
                    WebSocketMask.apply(
                        mask, phase: phase, to: UnsafeMutableRawBufferPointer(rebasing: bytes[3...])
                    )
                }
                #expect(
                    Array(masked[3...])
                        == plain.enumerated().map { $1 ^ key[($0 + phase) % 4] })
            }
        }
    }

    @Test("what is written is what the RFC shows")
    func writing() {
        #expect(
            WebSocketEncoder.frame(.text, Array("Hello".utf8)) == RawFrame.text("Hello").unmasked)
        #expect(
            WebSocketEncoder.frame(.text, Array("Hello".utf8), mask: 0x3D21_FA37)
                == RawFrame.text("Hello").masked())
        for count in [0, 125, 126, 65535, 65536] {
            let content = Self.bytes(count)
            #expect(
                WebSocketEncoder.frame(.binary, content) == RawFrame.binary(content).unmasked)
        }
        #expect(WebSocketEncoder.close(nil, reason: "x") == RawFrame.close().unmasked)
        // A reason that is too long ends before the character that does not fit.
        let long = String(repeating: "ä", count: 100)
        let expected = RawFrame.close(1000, String(repeating: "ä", count: 61)).unmasked
        #expect(WebSocketEncoder.close(.normal, reason: long) == expected)
    }
}
