import HCCore

/// Content of one answer that waits for the client's window and for the connection. What a handler gave whole is
/// kept as it is and copied once, into the frame.
struct HTTP2Output {
    private enum Piece {
        case bytes([UInt8])
        case buffer(ByteBuffer)
        case text(StaticString)
    }

    private var piece = Piece.bytes([])
    private var pieceCount = 0
    private var offset = 0
    private var more: [UInt8] = []

    /// What follows the content.
    var trailers = HTTPHeaders()
    /// Whether nothing comes after what is here.
    var isComplete = true
    /// Whether nghttp2 has been told that there is nothing for now, and waits to be told that there is.
    var isDeferred = false

    var count: Int { pieceCount - offset + more.count }

    /// - Precondition: the body is there already.
    mutating func set(_ body: HTTPResponse.Body) {
        switch body {
        case .none, .stream, .tunnel: preconditionFailure("a body that is not there")
        case .bytes(let bytes): piece = .bytes(bytes)
        case .buffer(let buffer): piece = .buffer(buffer)
        case .text(let text): piece = .text(text)
        }
        pieceCount = body.count ?? 0
        offset = 0
        isComplete = true
    }

    mutating func append(_ bytes: [UInt8]) {
        guard offset == pieceCount, more.isEmpty else {
            more.append(contentsOf: bytes)
            return
        }
        piece = .bytes(bytes)
        pieceCount = bytes.count
        offset = 0
    }

    mutating func append(_ bytes: UnsafeRawBufferPointer) {
        more.append(contentsOf: bytes)
    }

    /// Moves bytes to the end of `output`.
    /// - Precondition: so many are here.
    mutating func move(_ count: Int, to output: inout [UInt8]) {
        var left = count
        while left > 0 {
            if offset == pieceCount {
                precondition(!more.isEmpty, "more is asked for than there is")
                pieceCount = more.count
                piece = .bytes(more)
                more = []
                offset = 0
            }
            let part = min(left, pieceCount - offset)
            let range = offset..<offset + part
            switch piece {
            case .bytes(let bytes):
                bytes.withUnsafeBytes { output.append(contentsOf: $0.slice(range)) }
            case .buffer(let buffer):
                buffer.withUnsafeReadableBytes { output.append(contentsOf: $0.slice(range)) }
            case .text(let text):
                output.append(
                    contentsOf: UnsafeBufferPointer(start: text.utf8Start, count: pieceCount)[range]
                )
            }
            offset += part
            left -= part
        }
        if offset == pieceCount {
            piece = .bytes([])
            pieceCount = 0
            offset = 0
        }
    }
}
