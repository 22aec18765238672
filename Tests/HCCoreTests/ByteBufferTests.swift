import HCCore
import HCTesting
import Testing

@Suite("Byte buffers")
struct ByteBufferTests {
    @Test("bytes go in at the back and out at the front")
    func order() {
        var buffer = ByteBuffer()
        buffer.append("one " as StaticString)
        buffer.append(utf8: "zwö")
        buffer.append([0x21])
        buffer.append([0x20, 0x20, 0x2e][1...])
        #expect(buffer.string == "one zwö! .")
        #expect(buffer.readableCount == 11)
        buffer.consume(4)
        #expect(buffer[0] == UInt8(ascii: "z"))
        #expect(buffer.bytes == Array("zwö! .".utf8))
        #expect(buffer.read(4) == Array("zwö".utf8))
        buffer.truncate(to: 1)
        #expect(buffer.string == "!")
        buffer.consume(1)
        #expect(buffer.isEmpty)
        #expect(buffer == ByteBuffer())
    }

    @Test(
        "decimals of every width",
        arguments: [0, 9, 10, 99, 100, 1_234_567_890, .max, -1, -10, .min] as [Int64])
    func decimals(value: Int64) {
        var buffer = ByteBuffer(string: "x")
        buffer.append(decimal: value)
        #expect(buffer.string == "x\(value)")
        buffer.clear()
        buffer.append(decimal: UInt64(bitPattern: value))
        #expect(buffer.string == "\(UInt64(bitPattern: value))")
    }

    @Test(
        "hexadecimal of every width",
        arguments: [0, 1, 15, 16, 255, 256, 0xfff, 0x1000, 0xdead_beef, .max] as [UInt64])
    func hexadecimals(value: UInt64) {
        var buffer = ByteBuffer()
        buffer.append(hex: value)
        #expect(buffer.string == String(value, radix: 16))
    }

    @Test("bytes in hexadecimal have two digits each")
    func hexadecimalBytes() {
        var buffer = ByteBuffer()
        buffer.append(hex: [0, 1, 0xab, 0xff])
        #expect(buffer.string == "0001abff")
    }

    @Test("cleared and refilled it keeps its memory, unless that grew too large")
    func capacity() {
        var buffer = ByteBuffer()
        buffer.append([UInt8](repeating: 1, count: 1000))
        let capacity = buffer.capacity
        for _ in 0..<10 {
            buffer.clear()
            buffer.append([UInt8](repeating: 2, count: 1000))
        }
        #expect(buffer.capacity == capacity)
        buffer.clear()
        for _ in 0..<1000 {
            buffer.append([UInt8](repeating: 3, count: 10))
            buffer.consume(buffer.readableCount)
        }
        #expect(buffer.capacity == capacity)
        buffer.clear(keepingCapacityUpTo: 10)
        #expect(buffer.capacity < capacity)
    }

    @Test("consumed bytes do not pile up while others are waiting")
    func compaction() {
        var buffer = ByteBuffer()
        for round in 0..<10_000 {
            buffer.append(utf8: "0123456789")
            buffer.consume(round == 0 ? 5 : 10)
        }
        #expect(buffer.string == "56789")
        #expect(buffer.capacity < 1000)
    }

    @Test("a writer fills lent space and the rest is given back, also when it fails")
    func inPlace() throws {
        struct Failure: Error {}
        var buffer = ByteBuffer(string: "ab")
        let filled = buffer.appendInPlace(space: 100) { space in
            #expect(space.count == 100)
            space[0] = UInt8(ascii: "c")
            return 1
        }
        #expect(filled == 1)
        #expect(throws: Failure.self) {
            try buffer.appendInPlace(space: 8) { _ throws(Failure) in throw Failure() }
        }
        #expect(buffer.appendInPlace(space: 0) { _ in 0 } == 0)
        #expect(buffer.string == "abc")
    }

    @Test("lent bytes begin at the first that was not consumed")
    func lending() {
        var buffer = ByteBuffer([1, 2, 3, 4])
        buffer.consume(2)
        #expect(buffer.withUnsafeReadableBytes { Array($0) } == [3, 4])
        buffer.consume(2)
        #expect(buffer.withUnsafeReadableBytes { $0.count } == 0)
    }

    @Test("text is checked on demand")
    func text() {
        #expect(ByteBuffer([0x61, 0xff]).validatedString == nil)
        #expect(ByteBuffer([0x61, 0xc3, 0xa9]).validatedString == "aé")
        #expect(ByteBuffer([0x61, 0xff]).string == "a\u{fffd}")
    }

    @Test("random appends and reads agree with an array")
    func model() {
        var random = SeededRandom(seed: 11)
        var buffer = ByteBuffer()
        var model: [UInt8] = []
        for _ in 0..<5000 {
            if Bool.random(using: &random) {
                let bytes = random.bytes(.random(in: 0...40, using: &random))
                buffer.append(bytes)
                model += bytes
            } else {
                let count = Int.random(in: 0...model.count, using: &random)
                #expect(buffer.read(count) == Array(model.prefix(count)))
                model.removeFirst(count)
            }
        }
        #expect(buffer.bytes == model, "seed \(random.seed)")
    }
}
