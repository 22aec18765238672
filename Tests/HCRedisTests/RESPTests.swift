import HCCore
import HCTesting
import Testing

@testable import HCRedis

@Suite("the wire format")
struct RESPTests {
    struct Sample: Sendable, CustomTestStringConvertible {
        var wire: String
        var values: [RESPValue]
        var testDescription: String { wire.debugDescription }
    }

    static let samples = [
        Sample(wire: "+OK\r\n", values: [.simple("OK")]),
        Sample(wire: "+\r\n", values: [.simple("")]),
        Sample(wire: ":0\r\n", values: [.integer(0)]),
        Sample(wire: ":-9223372036854775808\r\n", values: [.integer(.min)]),
        Sample(wire: ":9223372036854775807\r\n", values: [.integer(.max)]),
        Sample(wire: "$-1\r\n", values: [.null]),
        Sample(wire: "*-1\r\n", values: [.null]),
        Sample(wire: "$0\r\n\r\n", values: [.bytes([])]),
        Sample(wire: "$6\r\nab\r\ncd\r\n", values: [.bytes(Array("ab\r\ncd".utf8))]),
        Sample(wire: "*0\r\n", values: [.array([])]),
        Sample(
            wire: "-WRONGTYPE Operation against a key\r\n",
            values: [.error(RedisServerError(line: "WRONGTYPE Operation against a key"))]),
        Sample(
            wire: "*3\r\n:1\r\n*2\r\n$1\r\na\r\n*0\r\n-ERR x\r\n",
            values: [
                .array([
                    .integer(1), .array([.bytes([97]), .array([])]),
                    .error(RedisServerError(line: "ERR x")),
                ])
            ]),
        Sample(
            wire: "*1\r\n*1\r\n*1\r\n*1\r\n:7\r\n+next\r\n",
            values: [.array([.array([.array([.array([.integer(7)])])])]), .simple("next")]),
        Sample(
            wire: ":1\r\n$2\r\nhi\r\n*2\r\n$-1\r\n$-1\r\n+PONG\r\n",
            values: [
                .integer(1), .bytes([104, 105]), .array([.null, .null]), .simple("PONG"),
            ]),
    ]

    @Test("replies are read whole, cut anywhere in two, and byte by byte", arguments: samples)
    func reading(sample: Sample) throws {
        let wire = Array(sample.wire.utf8)
        for cut in 0...wire.count {
            #expect(try read([wire[..<cut], wire[cut...]]) == sample.values, "cut at \(cut)")
        }
        #expect(try read(wire.indices.map { wire[$0...$0] }) == sample.values)
    }

    @Test("a half reply is not a reply", arguments: samples)
    func halfReplies(sample: Sample) throws {
        let wire = Array(sample.wire.utf8)
        #expect(try read([wire.dropLast()]).count == sample.values.count - 1)
    }

    private func read(_ pieces: [ArraySlice<UInt8>]) throws -> [RESPValue] {
        var reader = RESPReader()
        var values: [RESPValue] = []
        for piece in pieces {
            try piece.withUnsafeBytes { try reader.feed($0) }
            while let value = try reader.next() { values.append(value) }
        }
        return values
    }

    private func failure(of reader: inout RESPReader) -> RESPError? {
        do throws(RESPError) {
            _ = try reader.next()
            return nil
        } catch {
            return error
        }
    }

    @Test(
        "what is no reply is refused",
        arguments: [
            "HTTP/1.1 400 Bad Request\r\n", "?\r\n", "$-2\r\n", "$x\r\n", "*x\r\n", ":1x\r\n",
            "*-2\r\n", "*1\r\n*1\r\n*1\r\n*1\r\n*1\r\n*1\r\n*1\r\n*1\r\n*1\r\n*1\r\n:1\r\n",
            "$99999999999999999999\r\n", ":99999999999999999999\r\n",
        ])
    func malformed(wire: String) throws {
        var reader = RESPReader()
        try Array(wire.utf8).withUnsafeBytes { try reader.feed($0) }
        let failure = failure(of: &reader)
        #expect(failure == .malformed)
    }

    @Test(
        "a reply above the bounds is refused before it is there",
        arguments: [
            "*5\r\n", "*2147483647\r\n", "*1\r\n*5\r\n",
            "$200\r\n" + String(repeating: "x", count: 120),
            "*4\r\n$30\r\n012345678901234567890123456789\r\n$30\r\n012345678901234567890123456789\r\n",
            "+" + String(repeating: "x", count: 120),
        ])
    func bounds(wire: String) throws {
        var reader = RESPReader(limits: RESPLimits(replyBytesMax: 64, elementsMax: 4))
        try Array(wire.utf8).withUnsafeBytes { try reader.feed($0) }
        let failure = failure(of: &reader)
        #expect(failure == .tooLarge)
    }

    @Test("the bound is for one reply, not for what was read before")
    func boundPerReply() throws {
        var reader = RESPReader(limits: RESPLimits(replyBytesMax: 64, elementsMax: 4))
        for _ in 0..<100 {
            try Array("$20\r\n01234567890123456789\r\n".utf8).withUnsafeBytes {
                try reader.feed($0)
            }
            let value = try reader.next()
            #expect(value?.asBytes?.count == 20)
        }
    }

    @Test("random bytes never crash the reader", arguments: [UInt64.random(in: 0...UInt64.max)])
    func randomBytes(seed: UInt64) throws {
        var random = SeededRandom(seed: seed)
        let alphabet = Array("*$+-:0123456789\r\n\r\nab".utf8)
        for _ in 0..<3000 {
            let wire = (0..<40).map { _ in
                alphabet[Int.random(in: alphabet.indices, using: &random)]
            }
            var reader = RESPReader(limits: RESPLimits(replyBytesMax: 1 << 16, elementsMax: 64))
            do throws(RESPError) {
                try wire.withUnsafeBufferPointer { (bytes) throws(RESPError) in
                    try reader.feed(UnsafeRawBufferPointer(bytes))
                }
                while try reader.next() != nil {}
            } catch {
                continue
            }
        }
    }

    @Test("a command is an array of bulk strings, binary as it is")
    func commands() {
        let commands: RedisCommands = [
            [
                "SET", .text("clé"), .bytes([0, 13, 10]), .integer(-1), .integer(Int64.min), 10,
                .text(""),
            ]
        ]
        let expected =
            "*7\r\n$3\r\nSET\r\n$4\r\nclé\r\n$3\r\n\u{0}\r\n\r\n$2\r\n-1\r\n"
            + "$20\r\n-9223372036854775808\r\n$2\r\n10\r\n$0\r\n\r\n"
        #expect(commands.buffer.string == expected)
    }

    @Test("a run of a script is the command that it stands for, however its words were given")
    func runs() {
        let script = RedisScript("return 1")
        let many = (0..<12).map { "key \($0)" }
        let argument = [UInt8](0...255)
        var runs = RedisCommands()
        runs.append(
            RedisScriptCall(keys: [.text("a:{b}")], arguments: [.text("c"), 7]), of: script)
        for names in [many, []] {
            let words = names.map { RedisWord(.text($0)) }
            runs.appendRun(
                of: script, keys: words.count, key: { words[$0] }, argumentBytes: argument.count,
                argument: { $0.copyBytes(from: argument) })
        }
        runs.appendRun(
            of: script, keys: 0, key: { _ in RedisWord("none") }, argumentBytes: 0,
            argument: { #expect($0.isEmpty) })
        let commands: RedisCommands = [
            ["EVALSHA", .text(script.digest), 1, .text("a:{b}"), .text("c"), 7],
            ["EVALSHA", .text(script.digest), 12] + many.map { .text($0) } + [.bytes(argument)],
            ["EVALSHA", .text(script.digest), 0, .bytes(argument)],
            ["EVALSHA", .text(script.digest), 0, .bytes([])],
        ]
        #expect(runs.buffer == commands.buffer)
        #expect(runs.ends == commands.ends)
    }

    @Test(
        "SHA-1 (RFC 3174)",
        arguments: [
            ("", "da39a3ee5e6b4b0d3255bfef95601890afd80709"),
            ("abc", "a9993e364706816aba3e25717850c26c9cd0d89d"),
            (
                "abcdbcdecdefdefgefghfghighijhijkijkljklmklmnlmnomnopnopq",
                "84983e441c3bd26ebaae4aa1f95129e5e54670f1"
            ),
            (
                String(
                    repeating: "0123456701234567012345670123456701234567012345670123456701234567",
                    count: 10),
                "dea356a2cddd90c7a7ecedc5ebb563934f460452"
            ),
        ])
    func sha1(text: String, digest: String) {
        #expect(SHA1.hexDigest(of: Array(text.utf8)) == digest)
    }

    @Test("values and errors do not print what is in them")
    func printing() {
        let secret = "Ada"
        let value = RESPValue.array([.bytes(Array(secret.utf8)), .simple(secret)])
        let error = RedisServerError(line: "ERR unknown command 'Ada'")
        var text = "\(value) \(RESPValue.simple(secret)) \(error) \(RedisError.server(error))"
        dump(value, to: &text)
        dump(RedisArgument.text(secret), to: &text)
        text += String(reflecting: error.message)
        #expect(!text.contains(secret))
        #expect(!text.contains("65"))
        #expect(error.code == "ERR")
        #expect(RedisServerError(line: "NOSCRIPT No matching script.").code == "NOSCRIPT")
        #expect(RedisServerError(line: "oops it broke").code == "ERR")
    }
}
