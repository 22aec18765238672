import CZlib
import HCCore

/// How far compressed content of a request may grow.
package struct ContentDecodingLimits: Sendable {
    /// Bytes out for each byte in. Deflate reaches 1032; documents of clinics stay below 30.
    package var ratioMax = 100
    /// Up to here the ratio is not looked at: a small document may be very alike.
    package var ratioFreeBytes = 64 << 10
    /// Bytes that one piece gives at most: what a bomb takes before it is seen.
    package var pieceBytesMax = 64 << 10
    /// How much larger than its content the coded form may be; only forms made to waste time are.
    package var overheadBytesMax = 64 << 10

    package init() {}
}

/// Why compressed content was refused. The raw value is the label of the counter.
package enum ContentDecodingError: String, Error, Sendable, CaseIterable {
    /// Not gzip, or a checksum or length that does not fit (RFC 1952 2.3.1).
    case malformed
    case truncated
    /// Something else comes behind the last member.
    case trailingBytes = "trailing-bytes"
    case ratioTooHigh = "ratio-too-high"
    case outOfMemory = "out-of-memory"

    package var problem: Problem {
        switch self {
        case .malformed: .malformedCoding("The content is not the gzip that its header says.")
        case .truncated: .malformedCoding("The gzip content ends too early.")
        case .trailingBytes: .malformedCoding("Something follows the end of the gzip content.")
        case .ratioTooHigh:
            Problem(
                .contentTooLarge, code: "compression-ratio-too-high", title: "Content Too Large",
                detail: "The content is compressed more than is accepted; send it uncompressed.")
        case .outOfMemory: .internalError
        }
    }
}

extension Problem {
    fileprivate static func malformedCoding(_ detail: String) -> Problem {
        Problem(
            .badRequest, code: "malformed-content-coding", title: "Bad Request", detail: detail)
    }
}

/// gzip, one or more members (RFC 1952 2.2), out of pieces as they arrive. No I/O.
///
/// Owns the `z_stream`, which lies at one address all its life. Takes `stateBytes`.
package final class GzipDecoder {
    /// A window of 32 KiB and zlib's tables (zconf.h).
    package static let stateBytes = (1 << 15) + (7 << 10)

    private let limits: ContentDecodingLimits
    private let stream: UnsafeMutablePointer<z_stream>
    private var input: [UInt8] = []
    private var position = 0
    /// Between members: before the first, or behind one.
    private var isAtBoundary = true
    /// The last piece was full: zlib may hold more that it has no input for.
    private var mayHoldMore = false
    private var receivedCount = 0
    private var usedCount = 0
    private var madeCount = 0
    private var failure: ContentDecodingError?

    package init(_ limits: ContentDecodingLimits = ContentDecodingLimits())
        throws(ContentDecodingError)
    {
        self.limits = limits
        stream = .allocate(capacity: 1)
        stream.initialize(to: z_stream())
        // 16 asks for gzip and nothing else (zlib.h, inflateInit2).
        guard hc_inflate_init(stream, 15 + 16) == Z_OK else {
            stream.deallocate()
            throw .outOfMemory
        }
    }

    deinit {
        inflateEnd(stream)
        stream.deallocate()
    }

    /// Bytes of coded content given so far.
    package var encodedCount: Int { receivedCount }

    /// Gives the next bytes of coded content.
    /// - Precondition: `next` has returned nil, or was not called yet.
    package func receive(_ bytes: [UInt8]) {
        precondition(position == input.count, "the bytes before are not decoded yet")
        input = bytes
        position = 0
        receivedCount += bytes.count
    }

    /// The next piece, at most `pieceBytesMax`; nil when more input is needed.
    ///
    /// - Throws: the same from the first error on.
    package func next() throws(ContentDecodingError) -> [UInt8]? {
        if let failure { throw failure }
        do throws(ContentDecodingError) {
            while position < input.count || mayHoldMore {
                if isAtBoundary { try beginMember() }
                if let piece = try inflatePiece() { return piece }
            }
            return nil
        } catch {
            failure = error
            throw error
        }
    }

    /// The coded content is over.
    package func finish() throws(ContentDecodingError) {
        if let failure { throw failure }
        // No content at all is no content, coded or not.
        guard isAtBoundary else {
            failure = .truncated
            throw .truncated
        }
    }

    private func beginMember() throws(ContentDecodingError) {
        // Behind a member another one may follow, which is told by its first byte.
        guard input[position] == 0x1F || usedCount == 0 else { throw .trailingBytes }
        if usedCount > 0 { inflateReset(stream) }
        isAtBoundary = false
    }

    private func inflatePiece() throws(ContentDecodingError) -> [UInt8]? {
        let stream = stream
        let room = limits.pieceBytesMax
        var status = Z_OK
        let piece = input.withUnsafeMutableBytes { input in
            [UInt8](unsafeUninitializedCapacity: room) { output, count in
                let rest = UnsafeMutableRawBufferPointer(rebasing: input[position...])
                stream.pointee.next_in = rest.bindMemory(to: UInt8.self).baseAddress
                stream.pointee.avail_in = UInt32(clamping: rest.count)
                stream.pointee.next_out = output.baseAddress
                stream.pointee.avail_out = UInt32(room)
                let given = Int(stream.pointee.avail_in)
                status = inflate(stream, Z_NO_FLUSH)
                let used = given - Int(stream.pointee.avail_in)
                position += used
                usedCount += used
                count = room - Int(stream.pointee.avail_out)
                stream.pointee.next_in = nil
                stream.pointee.next_out = nil
            }
        }
        switch status {
        case Z_OK, Z_BUF_ERROR: break
        case Z_STREAM_END: isAtBoundary = true
        case Z_MEM_ERROR: throw .outOfMemory
        default: throw .malformed
        }
        mayHoldMore = piece.count == room && !isAtBoundary
        madeCount += piece.count
        if madeCount > limits.ratioFreeBytes, madeCount > usedCount * limits.ratioMax {
            throw .ratioTooHigh
        }
        return piece.isEmpty ? nil : piece
    }
}
