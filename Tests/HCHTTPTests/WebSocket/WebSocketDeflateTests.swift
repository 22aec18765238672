import CZlib
import HCTesting
import Testing

@testable import HCHTTP

@Suite("permessage-deflate")
struct WebSocketDeflateTests {
    // MARK: Negotiation

    static let offers: [(offer: String, answer: String?)] = [
        (
            "permessage-deflate",
            "permessage-deflate; server_no_context_takeover; client_no_context_takeover"
        ),
        (
            "Permessage-Deflate",
            "permessage-deflate; server_no_context_takeover; client_no_context_takeover"
        ),
        (
            "permessage-deflate; server_max_window_bits=10",
            "permessage-deflate; server_no_context_takeover; client_no_context_takeover; server_max_window_bits=10"
        ),
        (
            "permessage-deflate; server_max_window_bits=\"10\"",
            "permessage-deflate; server_no_context_takeover; client_no_context_takeover; server_max_window_bits=10"
        ),
        (
            "permessage-deflate; client_max_window_bits",
            "permessage-deflate; server_no_context_takeover; client_no_context_takeover"
        ),
        (
            "permessage-deflate; client_max_window_bits=9",
            "permessage-deflate; server_no_context_takeover; client_no_context_takeover; client_max_window_bits=9"
        ),
        (
            "permessage-deflate; client_max_window_bits=8",
            "permessage-deflate; server_no_context_takeover; client_no_context_takeover; client_max_window_bits=8"
        ),
        (
            "permessage-deflate;server_no_context_takeover;client_no_context_takeover",
            "permessage-deflate; server_no_context_takeover; client_no_context_takeover"
        ),
        // The second choice when the first cannot be kept, or is unknown.
        (
            "permessage-deflate; server_max_window_bits=8, permessage-deflate; server_max_window_bits=15",
            "permessage-deflate; server_no_context_takeover; client_no_context_takeover; server_max_window_bits=15"
        ),
        (
            "permessage-deflate; server_max_window_bits=15; client_max_window_bits=15",
            "permessage-deflate; server_no_context_takeover; client_no_context_takeover; server_max_window_bits=15"
        ),
        (
            "x-webkit-deflate-frame, permessage-deflate",
            "permessage-deflate; server_no_context_takeover; client_no_context_takeover"
        ),
        // Declined.
        ("permessage-bzip2", nil),
        ("permessage-deflate; server_max_window_bits=8", nil),
        ("permessage-deflate; server_max_window_bits=7", nil),
        ("permessage-deflate; server_max_window_bits=16", nil),
        ("permessage-deflate; server_max_window_bits=010", nil),
        ("permessage-deflate; server_max_window_bits=1x", nil),
        ("permessage-deflate; server_max_window_bits", nil),
        ("permessage-deflate; client_max_window_bits=16", nil),
        ("permessage-deflate; client_max_window_bits=0", nil),
        ("permessage-deflate; server_no_context_takeover=1", nil),
        ("permessage-deflate; client_no_context_takeover=true", nil),
        ("permessage-deflate; unknown", nil),
        ("permessage-deflate; unknown=1", nil),
        ("permessage-deflate; server_no_context_takeover; server_no_context_takeover", nil),
        ("permessage-deflate; client_max_window_bits; client_max_window_bits=10", nil),
    ]

    @Test("an offer is answered with what can be kept, or declined", arguments: offers.indices)
    func negotiation(_ index: Int) throws {
        let (offer, answer) = Self.offers[index]
        let list = try #require(WebSocketExtensionOffer.list([offer]))
        let agreed = WebSocketDeflateAgreement.choose(list, WebSocketDeflateConfiguration())
        #expect(agreed?.fieldValue == answer, "\(offer)")
    }

    @Test("a server that keeps context says only what the client asked for, and its own bounds")
    func keepingContext() throws {
        var configuration = WebSocketDeflateConfiguration()
        configuration.keepsContext = true
        configuration.windowBits = 12
        func answer(_ offer: String) throws -> String? {
            let list = try #require(WebSocketExtensionOffer.list([offer]))
            return WebSocketDeflateAgreement.choose(list, configuration)?.fieldValue
        }
        #expect(
            try answer("permessage-deflate") == "permessage-deflate; server_max_window_bits=12")
        #expect(
            try answer("permessage-deflate; client_max_window_bits")
                == "permessage-deflate; server_max_window_bits=12")
        #expect(
            try answer("permessage-deflate; client_max_window_bits=10; server_max_window_bits=13")
                == "permessage-deflate; server_max_window_bits=12; client_max_window_bits=10")
        #expect(
            try answer("permessage-deflate; server_no_context_takeover")
                == "permessage-deflate; server_no_context_takeover; server_max_window_bits=12")
        #expect(
            try answer("permessage-deflate; client_no_context_takeover")
                == "permessage-deflate; client_no_context_takeover; server_max_window_bits=12")
    }

    @Test(
        "what is no list of extensions is refused",
        arguments: [
            "permessage-deflate;", "permessage-deflate; =1", "permessage-deflate; a=",
            "permessage-deflate; a=\"", "permessage-deflate; a=\"\"",
            "permessage-deflate; a=\"b c\"",
            "permessage-deflate a", "; a", "a; b=c=d", "a b", "\"a\"", "a; b=\"c\" d",
            Array(repeating: "a", count: 17).joined(separator: ","),
        ])
    func malformed(_ text: String) {
        #expect(WebSocketExtensionOffer.list([text]) == nil)
    }

    @Test("empty elements, blanks and several fields are one list")
    func lists() {
        let list = WebSocketExtensionOffer.list([", a ;b = c ,,", "", "d;e=\"f\""])
        #expect(list?.map(\.name) == ["a", "d"])
        #expect(list?.first?.parameters == [.init(name: "b", value: "c")])
        #expect(list?.last?.parameters == [.init(name: "e", value: "f")])
    }

    // MARK: Inflating

    static func agreement(clientForgets: Bool = false, bits: Int = 15) -> WebSocketDeflateAgreement
    {
        WebSocketDeflateAgreement(
            serverForgets: false, clientForgets: clientForgets, serverWindowBits: bits,
            clientWindowBits: bits, clientTakesBits: false)
    }

    static let hello: [UInt8] = [0xF2, 0x48, 0xCD, 0xC9, 0xC9, 0x07, 0x00]

    struct Case: Sendable, CustomTestStringConvertible {
        let testDescription: String
        let frames: [RawFrame]
        let expected: WebSocketTranscript

        init(
            _ name: String, _ frames: [RawFrame], _ events: [String], _ error: WebSocketError? = nil
        ) {
            testDescription = name
            self.frames = frames
            expected = WebSocketTranscript(events, error)
        }
    }

    static let messages: [Case] = [
        Case("RFC 7692 7.2.3.1", [RawFrame(0xC1, hello)], ["text Hello"]),
        Case(
            "in fragments",
            [
                RawFrame(0x41, Array(hello[..<3])), .ping("x"), RawFrame(0x00),
                RawFrame(0x80, Array(hello[3...])),
            ], ["ping x", "text Hello"]),
        Case(
            "7.2.3.2, the window is shared",
            [RawFrame(0xC1, hello), RawFrame(0xC1, [0xF2, 0x00, 0x11, 0x00, 0x00])],
            ["text Hello", "text Hello"]),
        Case(
            "7.2.3.3, a block without compression",
            [RawFrame(0xC1, [0x00, 0x05, 0x00, 0xFA, 0xFF, 0x48, 0x65, 0x6C, 0x6C, 0x6F, 0x00])],
            ["text Hello"]),
        Case(
            "7.2.3.4, a final block",
            [RawFrame(0xC1, [0xF3, 0x48, 0xCD, 0xC9, 0xC9, 0x07, 0x00, 0x00])], ["text Hello"]),
        Case(
            "a final block, and then the shared window",
            [
                RawFrame(0xC1, [0xF3, 0x48, 0xCD, 0xC9, 0xC9, 0x07, 0x00, 0x00]),
                RawFrame(0xC1, [0xF2, 0x00, 0x11, 0x00, 0x00]),
            ], ["text Hello", "text Hello"]),
        Case(
            "7.2.3.5, two blocks",
            [
                RawFrame(
                    0xC1,
                    [
                        0xF2, 0x48, 0x05, 0x00, 0x00, 0x00, 0xFF, 0xFF, 0xCA, 0xC9, 0xC9, 0x07,
                        0x00,
                    ])
            ], ["text Hello"]),
        Case("an empty message", [RawFrame(0xC1, [0x00])], ["text "]),
        Case(
            "no content at all", [RawFrame(0xC1), RawFrame(0xC1, hello)], ["text ", "text Hello"]),
        Case(
            "some messages are not compressed", [.text("a"), RawFrame(0xC1, hello), .text("b")],
            ["text a", "text Hello", "text b"]),
        // RSV1 belongs to the first frame of a message.
        Case(
            "RSV1 on a continuation",
            [RawFrame(0x41, Array(hello[..<3])), RawFrame(0xC0, Array(hello[3...]))], [],
            .reservedBits),
        Case(
            "RSV1 on the continuation of a plain message",
            [RawFrame(0x01, [0x41]), RawFrame(0xC0, [0x42])], [], .reservedBits),
        Case("RSV1 on a ping", [RawFrame(0xC9)], [], .reservedBits),
        Case("RSV1 on a close", [RawFrame(0xC8)], [], .reservedBits),
        Case("RSV2", [RawFrame(0xE1)], [], .reservedBits),
        // What is not DEFLATE.
        Case("a reserved block type", [RawFrame(0xC1, [0xFF, 0xFF])], [], .invalidDeflate),
        Case("cut off in a block", [RawFrame(0xC2, [0xF2, 0x48])], [], .invalidDeflate),
        Case(
            "cut off in a stored block, at a whole byte",
            [RawFrame(0xC2, [0x00, 0x05, 0x00, 0xFA, 0xFF])], [], .invalidDeflate),
        Case(
            "a stored block whose lengths disagree",
            [RawFrame(0xC2, [0x00, 0x05, 0x00, 0x00, 0x00, 0x41])], [], .invalidDeflate),
        Case(
            "a reference to what never was", [RawFrame(0xC1, [0xF2, 0x00, 0x11, 0x00, 0x00])], [],
            .invalidDeflate),
        // UTF-8 is that of the content.
        Case(
            "a text that is none",
            [RawFrame(0xC1, [0x00, 0x02, 0x00, 0xFD, 0xFF, 0xC3, 0x41, 0x00])], [], .invalidUTF8),
        Case(
            "a text that is cut off",
            [RawFrame(0xC1, [0x00, 0x01, 0x00, 0xFE, 0xFF, 0xC3, 0x00])], [], .invalidUTF8),
        Case(
            "a fault in the text before one in the stream",
            [RawFrame(0xC1, [0x00, 0x01, 0x00, 0xFE, 0xFF, 0xFF, 0xFF])], [], .invalidUTF8),
    ]

    @Test("compressed messages, whole and in pieces", arguments: messages)
    func inflating(_ one: Case) {
        let bytes = one.frames.flatMap { $0.masked() }
        for size in [Int.max, 1, 2, 5] {
            let transcript = WebSocketTranscript(
                bytes, pieceBytes: size, deflate: Self.agreement())
            #expect(transcript == one.expected, "in pieces of \(size)")
        }
    }

    @Test("a client that goes beyond its own window is read alike, however its message is cut")
    func beyondTheWindow() {
        // Written for a window of 32 KiB, agreed on as 512 bytes. Found by fuzz-websocket.
        let content = (0..<3000).map { UInt8(truncatingIfNeeded: $0 &* $0 >> 4) }
        var compressed: [UInt8] = []
        let deflater = WebSocketDeflater(windowBits: 15, level: 9, memoryLevel: 9)
        (content + content).withUnsafeBytes {
            deflater.compress($0, forgets: true, into: &compressed)
        }
        let bytes = RawFrame(0xC2, compressed).masked()
        let whole = WebSocketTranscript(bytes, deflate: Self.agreement(bits: 9))
        #expect(whole == WebSocketTranscript(["binary 6000 bytes"]))
        for size in [1, 7, 100] {
            #expect(
                WebSocketTranscript(bytes, pieceBytes: size, deflate: Self.agreement(bits: 9))
                    == whole)
        }
    }

    @Test("a client that promised to forget is held to it")
    func forgetting() {
        let bytes = [RawFrame(0xC1, Self.hello), RawFrame(0xC1, [0xF2, 0x00, 0x11, 0x00, 0x00])]
            .flatMap { $0.masked() }
        #expect(
            WebSocketTranscript(bytes, deflate: Self.agreement(clientForgets: true))
                == WebSocketTranscript(["text Hello"], .invalidDeflate))
    }

    @Test("without the extension a compressed message is a violation")
    func notAgreed() {
        #expect(
            WebSocketTranscript(RawFrame(0xC1, Self.hello).masked())
                == WebSocketTranscript([], .reservedBits))
    }

    @Test("a bomb goes off at the limit, not in memory")
    func bomb() {
        let deflater = WebSocketDeflater(windowBits: 15, level: 9, memoryLevel: 9)
        var compressed: [UInt8] = []
        [UInt8](repeating: 0, count: 64 << 20).withUnsafeBytes {
            deflater.compress($0, forgets: true, into: &compressed)
        }
        #expect(compressed.count < 70_000)
        let limits = WebSocketLimits(messageBytesMax: 100_000)
        let bytes = RawFrame(0xC2, compressed).masked()
        for size in [Int.max, 1000] {
            let transcript = WebSocketTranscript(
                bytes, pieceBytes: size, limits: limits, deflate: Self.agreement())
            #expect(transcript == WebSocketTranscript([], .messageTooLarge))
        }
        // And the decoder never held more.
        var decoder = WebSocketDecoder(
            from: .client, limits: limits, deflate: Self.agreement(),
            pool: WebSocketDeflatePool(WebSocketDeflateConfiguration()))
        var consumed = 0
        var error: WebSocketError?
        bytes.withUnsafeBytes { input in
            do throws(WebSocketError) {
                _ = try decoder.next(input, consumed: &consumed)
            } catch let thrown {
                error = thrown
            }
        }
        #expect(error == .messageTooLarge)
        #expect(decoder.keptCount == 0)
    }

    @Test("compressed frames above the limit are refused before they are read")
    func compressedLimit() {
        let limits = WebSocketLimits(messageBytesMax: 1000)
        let header: [UInt8] = [0xC2, 0xFE, 0x04, 0x80, 0, 0, 0, 0]
        let transcript = WebSocketTranscript(header, limits: limits, deflate: Self.agreement())
        #expect(transcript.error == .frameTooLarge)
        // And so are many small ones that inflate to nothing: 1000 bytes have at most 1064 compressed.
        let empty = RawFrame(
            0x00, Array([[UInt8]](repeating: [0, 0, 0, 0xFF, 0xFF], count: 40).joined()))
        let frames =
            [RawFrame(0x42, [0x00, 0x00, 0x00, 0xFF, 0xFF])] + Array(repeating: empty, count: 6)
        #expect(
            WebSocketTranscript(
                frames.flatMap { $0.masked() }, limits: limits, deflate: Self.agreement())
                == WebSocketTranscript([], .messageTooLarge))
    }

    // MARK: Both ways

    @Test("what is sent is read again, with and without context, in every window")
    func roundTrip() throws {
        var random = SeededRandom(seed: 7692)
        for keeps in [false, true] {
            for bits in 9...15 {
                var configuration = WebSocketDeflateConfiguration()
                configuration.keepsContext = keeps
                configuration.windowBits = bits
                configuration.messageBytesMin = 0
                let offers = try #require(WebSocketExtensionOffer.list(["permessage-deflate"]))
                let agreed = try #require(WebSocketDeflateAgreement.choose(offers, configuration))
                let pool = WebSocketDeflatePool(configuration)
                var encoder = WebSocketEncoder(deflate: agreed, pool: pool)
                var mirrored = agreed
                mirrored.clientForgets = agreed.serverForgets
                mirrored.clientWindowBits = agreed.serverWindowBits
                var decoder = WebSocketDecoder(
                    from: .server, limits: WebSocketLimits(messageBytesMax: 1 << 20),
                    deflate: mirrored, pool: pool)
                for count in [0, 0, 1, 100, 5000, 40_000, 0, 20_000, 100_000] {
                    let words = (0..<count / 4 + 1).map { _ in
                        ["abcd", "wxyz", "\(UInt16.random(in: 0...999, using: &random))"]
                            .randomElement(using: &random) ?? ""
                    }
                    let message = WebSocketMessage(text: String(words.joined().prefix(count)))
                    let frame = encoder.message(message)
                    var consumed = 0
                    let event = try frame.withUnsafeBytes {
                        try decoder.next($0, consumed: &consumed)
                    }
                    guard case .message(let received) = event else {
                        Issue.record("no message of \(count)")
                        return
                    }
                    #expect(received == message)
                    #expect(consumed == frame.count)
                }
            }
        }
    }

    @Test(
        "a compressor keeps to its window: a client that holds no more reads it", arguments: 9...15)
    func window(_ bits: Int) {
        let content = (0..<100_000).map { UInt8(truncatingIfNeeded: $0 &* $0 >> 7) }
        var compressed: [UInt8] = []
        content.withUnsafeBytes {
            WebSocketDeflater(windowBits: bits, level: 9, memoryLevel: 8)
                .compress($0, forgets: true, into: &compressed)
        }
        var stream = z_stream()
        #expect(hc_inflate_init(&stream, Int32(-bits)) == Z_OK)
        defer { inflateEnd(&stream) }
        var output: [UInt8] = []
        // Little room at a time: then zlib has nothing to refer to but its window.
        var room = [UInt8](repeating: 0, count: 100)
        compressed.withUnsafeMutableBufferPointer { input in
            stream.next_in = input.baseAddress
            stream.avail_in = UInt32(input.count)
            var result = Z_OK
            repeat {
                let count = room.withUnsafeMutableBufferPointer { room in
                    stream.next_out = room.baseAddress
                    stream.avail_out = UInt32(room.count)
                    result = inflate(&stream, Z_SYNC_FLUSH)
                    return room.count - Int(stream.avail_out)
                }
                output += room[..<count]
            } while result == Z_OK && (stream.avail_in > 0 || stream.avail_out == 0)
        }
        #expect(output == content)
    }

    @Test("what does not shrink is sent as it is, unless the compressor remembers it")
    func incompressible() {
        var random = SeededRandom(seed: 1)
        let noise = (0..<1000).map { _ in UInt8.random(in: 0...255, using: &random) }
        var configuration = WebSocketDeflateConfiguration()
        let pool = WebSocketDeflatePool(configuration)
        var forgetful = WebSocketEncoder(
            deflate: WebSocketDeflateAgreement(
                serverForgets: true, clientForgets: true, serverWindowBits: 15,
                clientWindowBits: 15, clientTakesBits: false), pool: pool)
        #expect(forgetful.message(WebSocketMessage(binary: noise))[0] == 0x82)
        #expect(forgetful.message(WebSocketMessage(text: "short"))[0] == 0x81)
        #expect(
            forgetful.message(WebSocketMessage(text: String(repeating: "a", count: 200)))[0] == 0xC1
        )
        configuration.keepsContext = true
        var keeping = WebSocketEncoder(deflate: Self.agreement(), pool: pool)
        #expect(keeping.message(WebSocketMessage(binary: noise))[0] == 0xC2)
    }

    @Test("no more than a few idle decompressors are kept, and none is kept dirty")
    func pool() throws {
        let pool = WebSocketDeflatePool(WebSocketDeflateConfiguration())
        let taken = (0..<20).map { _ in pool.takeInflater() }
        for inflater in taken {
            var output: [UInt8] = []
            try Self.hello.withUnsafeBytes {
                try inflater.inflate($0, onto: &output, countMax: 100)
            }
            pool.giveBack(inflater)
        }
        #expect(pool.spareCount == WebSocketDeflatePool.spareMax)
        // The window of before is gone.
        let again = pool.takeInflater()
        var output: [UInt8] = []
        #expect(throws: WebSocketError.invalidDeflate) {
            try ([0xF2, 0x00, 0x11, 0x00, 0x00] as [UInt8]).withUnsafeBytes {
                try again.inflate($0, onto: &output, countMax: 100)
            }
        }
    }

    @Test("settings out of range are told together")
    func problems() {
        var configuration = WebSocketConfiguration()
        configuration.deflate?.windowBits = 8
        configuration.deflate?.level = 0
        configuration.queueBytesMax = 0
        configuration.pingInterval = .zero
        #expect(configuration.problems().count == 4)
        #expect(WebSocketConfiguration().problems().isEmpty)
        #expect(WebSocketDeflateConfiguration().bytesPerSocket == 0)
    }
}
