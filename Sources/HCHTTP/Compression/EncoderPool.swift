import HCCore
package import HCIO

/// The encoders of one loop: states are used again, and only so many are kept or lent to streams.
@LoopActor
package final class EncoderPool {
    let configuration: CompressionConfiguration
    private var idle: [ContentCoding: [ZlibEncoder]] = [:]
    private let memory: BrotliMemory
    private(set) var streamCount = 0

    package init(_ configuration: CompressionConfiguration = CompressionConfiguration()) {
        self.configuration = configuration
        memory = BrotliMemory(keptBytesMax: configuration.brotliKeptBytesMax)
    }

    /// Codes content that is there, in slices: others get their turn between two of them.
    ///
    /// - Returns: nil if there was no memory for it.
    func encode(
        _ content: HTTPResponse.Body, _ coding: ContentCoding
    ) async -> ByteBuffer? {
        do {
            let count = content.count ?? 0
            let encoder = try take(coding, count: count)
            defer { giveBack(encoder) }
            // Text shrinks to a fourth or less; where it does not, the buffer grows.
            var output = ByteBuffer(reserving: count / 4 + 256)
            var position = 0
            while true {
                let end = min(count, position + configuration.sliceBytes)
                try content.withContent(position..<end) { bytes in
                    try encoder.encode(
                        bytes, end == count ? .finish : .proceed, into: &output)
                }
                if end == count { return output }
                position = end
                await EncoderPool.nextTurn()
            }
        } catch {
            return nil
        }
    }

    /// Whether another stream may be coded.
    var hasRoomForStream: Bool { streamCount < configuration.streamsMax }

    /// Codes a stream piece by piece. Each piece is on its way when `write` returns, coded as it would be uncoded: a
    /// stream that is slow is not held back, at a few bytes for each piece.
    func encode(_ stream: ResponseStream, _ coding: ContentCoding) -> ResponseStream {
        ResponseStream(trailers: stream.trailers) { writer in
            let encoder = try self.take(coding, count: nil)
            self.streamCount += 1
            defer {
                self.streamCount -= 1
                self.giveBack(encoder)
            }
            let coded = EncodingWriter(writer, encoder, remaining: stream.count)
            let trailers = try await stream.write(coded)
            try await coded.finish()
            return trailers
        }
    }

    private func take(
        _ coding: ContentCoding, count: Int?
    ) throws(ContentEncoderError) -> any ContentEncoder {
        if coding == .brotli {
            return try BrotliEncoder(
                quality: configuration.brotliQuality, count: count, memory: memory)
        }
        if let encoder = idle[coding]?.popLast() { return encoder }
        return try ZlibEncoder(coding, level: configuration.gzipLevel)
    }

    /// A brotli state is freed with its last reference.
    private func giveBack(_ encoder: any ContentEncoder) {
        guard let encoder = encoder as? ZlibEncoder,
            idle[encoder.coding, default: []].count < configuration.idleEncodersMax
        else { return }
        encoder.reset()
        idle[encoder.coding, default: []].append(encoder)
    }

    /// Lets the loop look at its descriptors and timers once.
    private static func nextTurn() async {
        await withCheckedContinuation { continuation in
            Loop.shared.atEndOfTick { continuation.resume() }
        }
    }
}

/// Codes what a stream writes, and writes that.
@LoopActor
private final class EncodingWriter: ResponseWriter {
    private let writer: any ResponseWriter
    private let encoder: any ContentEncoder
    /// What is still to come of a content of promised length.
    private var remaining: Int?

    init(_ writer: any ResponseWriter, _ encoder: any ContentEncoder, remaining: Int?) {
        self.writer = writer
        self.encoder = encoder
        self.remaining = remaining
    }

    func write(_ bytes: [UInt8]) async throws {
        guard !bytes.isEmpty else { return }
        if let remaining {
            guard bytes.count <= remaining else { throw ResponseWriterError.wrongCount }
            self.remaining = remaining - bytes.count
        }
        try await put(bytes, .flush)
    }

    func finish() async throws {
        guard remaining == nil || remaining == 0 else { throw ResponseWriterError.wrongCount }
        try await put([], .finish)
    }

    private func put(_ bytes: [UInt8], _ operation: EncoderOperation) async throws {
        var output = ByteBuffer()
        try bytes.withUnsafeBytes { try encoder.encode($0, operation, into: &output) }
        guard !output.isEmpty else { return }
        try await writer.write(output.bytes)
    }
}

extension HTTPResponse.Body {
    /// Lends a part of content that is there.
    /// - Precondition: it is no stream.
    fileprivate func withContent(
        _ range: Range<Int>,
        _ body: (UnsafeRawBufferPointer) throws -> Void
    ) throws {
        switch self {
        case .bytes(let bytes):
            try bytes.withUnsafeBytes { try body($0.slice(range)) }
        case .buffer(let buffer):
            try buffer.withUnsafeReadableBytes { try body($0.slice(range)) }
        case .text(let text):
            try body(
                UnsafeRawBufferPointer(start: text.utf8Start, count: text.utf8CodeUnitCount)
                    .slice(range))
        case .none, .stream, .tunnel: preconditionFailure("no content that is there")
        }
    }
}
