import HCCore
import HCTesting
import Testing

@testable import HCPostgres

@Suite("binary values from hostile bytes")
struct BinaryReaderTests {
    @Test("an array that lies about its length is malformed, not a crash")
    func lyingArray() {
        let header: [UInt8] = [
            0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 20, 0x7F, 0xFF, 0xFF, 0xFF, 0, 0, 0, 1,
        ]
        header.withUnsafeBytes { bytes in
            var reader = BinaryReader(bytes)
            #expect(throws: BinaryReader.Failure.malformed) {
                try reader.array(of: .int8) { element throws(BinaryReader.Failure) in
                    try element.integer(Int64.self)
                }
            }
        }
    }

    @Test("random bytes are read or refused", arguments: 1...4 as ClosedRange<UInt64>)
    func random(seed: UInt64) {
        var generator = SeededRandom(seed: seed)
        for _ in 0..<5000 {
            let count = Int.random(in: 0...40, using: &generator)
            let bytes = (0..<count).map { _ in UInt8.random(in: 0...3, using: &generator) }
            bytes.withUnsafeBytes { raw in
                var array = BinaryReader(raw)
                _ = try? array.array(of: .text) { element throws(BinaryReader.Failure) in
                    element.text()
                }
                var range = BinaryReader(raw)
                _ = try? range.timestampRange()
                var date = BinaryReader(raw)
                _ = try? date.date()
            }
        }
    }
}
