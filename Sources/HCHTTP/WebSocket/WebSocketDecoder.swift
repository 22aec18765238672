/// Reads the frames of one direction (RFC 6455, RFC 7692): bytes in, messages and control frames out, no I/O.
///
/// It works on the caller's memory as `HTTP1Parser` does: of the head of a frame, or of a control frame, that is
/// not complete it consumes nothing, and the caller gives those bytes again with more behind them (`pendingBytesMax`).
/// The content of messages is taken as it comes. However the bytes are cut, the events and the error are the same.
///
/// After an error the decoder is not used again.
package struct WebSocketDecoder: ~Copyable {
    package enum Event {
        /// Give more bytes.
        case needMore
        case message(WebSocketMessage)
        case ping([UInt8])
        case pong([UInt8])
        /// Without a code if the frame was empty (1005, which is never sent).
        case close(WebSocketCloseCode?, reason: String)
    }

    /// The most that is not consumed while more is needed: a control frame but for its last byte.
    package static let pendingBytesMax = 6 + WebSocketFrameHeader.controlBytesMax - 1

    /// A message whose end was not seen.
    private struct Message {
        let kind: WebSocketMessage.Kind
        let isCompressed: Bool
        var bytes: [UInt8] = []
        var text = UTF8Validator()
        var compressedCount = 0
        var emptyFragments = 0
    }

    /// A data frame whose content is being read.
    private struct Content {
        let isFinal: Bool
        let mask: UInt32
        let count: Int
        var taken = 0
    }

    private let peer: WebSocketRole
    private let limits: WebSocketLimits
    private let deflate: WebSocketDeflateAgreement?
    private let pool: WebSocketDeflatePool?
    private var message: Message?
    private var content: Content?
    /// While a compressed message is in progress, and always when context is kept.
    private var inflater: WebSocketInflater?

    package init(
        from peer: WebSocketRole, limits: WebSocketLimits,
        deflate: WebSocketDeflateAgreement? = nil, pool: WebSocketDeflatePool? = nil
    ) {
        precondition(deflate == nil || pool != nil, "compressed messages need an inflater")
        self.peer = peer
        self.limits = limits
        self.deflate = deflate
        self.pool = pool
    }

    /// Whether a message has begun and not ended.
    package var isInMessage: Bool { message != nil }

    /// What is kept of a message in progress.
    package var keptCount: Int { message?.bytes.count ?? 0 }

    /// - Parameter consumed: is raised by the number of bytes that need not be given again.
    package mutating func next(_ input: UnsafeRawBufferPointer, consumed: inout Int)
        throws(WebSocketError) -> Event
    {
        while true {
            let rest = input.slice(consumed..<input.count)
            if content != nil {
                if let message = try readContent(rest, &consumed) { return .message(message) }
                if content != nil { return .needMore }
                continue
            }
            let header = try WebSocketFrameHeader.read(
                rest, from: peer, allowsCompression: deflate != nil)
            guard let header else { return .needMore }
            if header.opcode.isControl {
                let end = header.headerCount + header.count
                guard rest.count >= end else { return .needMore }
                consumed += end
                return try control(header, rest.slice(header.headerCount..<end))
            }
            try begin(header)
            consumed += header.headerCount
        }
    }

    // MARK: Messages

    private mutating func begin(_ header: WebSocketFrameHeader) throws(WebSocketError) {
        if header.opcode == .continuation {
            guard message != nil else { throw .nothingToContinue }
        } else {
            guard message == nil else { throw .messageNotFinished }
            message = Message(
                kind: header.opcode == .text ? .text : .binary, isCompressed: header.isCompressed)
        }
        guard let message else { return }
        guard header.count <= limits.frameBytesMax else { throw .frameTooLarge }
        if message.isCompressed {
            let left = limits.compressedBytesMax - message.compressedCount
            guard header.count <= left else { throw .messageTooLarge }
        } else {
            guard header.count <= limits.messageBytesMax - message.bytes.count else {
                throw .messageTooLarge
            }
        }
        if header.count == 0, !header.isFinal {
            self.message?.emptyFragments += 1
            guard message.emptyFragments < limits.emptyFragmentsMax else { throw .emptyFragments }
        }
        content = Content(isFinal: header.isFinal, mask: header.mask, count: header.count)
    }

    /// Takes what there is of the frame's content.
    /// - Returns: the message, if this was its end.
    private mutating func readContent(
        _ rest: UnsafeRawBufferPointer, _ consumed: inout Int
    ) throws(WebSocketError) -> WebSocketMessage? {
        guard var frame = content, var current = message.take() else { return nil }
        let count = min(frame.count - frame.taken, rest.count)
        if count > 0 {
            let piece = rest.slice(0..<count)
            if current.isCompressed {
                try inflate(piece, frame, &current)
                current.compressedCount += count
            } else {
                try append(piece, frame, &current)
            }
            frame.taken += count
            consumed += count
        }
        guard frame.taken == frame.count else {
            content = frame
            message = current
            return nil
        }
        content = nil
        guard frame.isFinal else {
            message = current
            return nil
        }
        if current.isCompressed { try finishInflating(&current) }
        if current.kind == .text, !current.text.isComplete { throw .invalidUTF8 }
        return WebSocketMessage(current.kind, validated: current.bytes)
    }

    private func append(
        _ piece: UnsafeRawBufferPointer, _ frame: Content, _ current: inout Message
    ) throws(WebSocketError) {
        let start = current.bytes.count
        if start == 0, frame.isFinal, frame.count > piece.count {
            // What is announced may never come: room is made for a part of it only.
            current.bytes.reserveCapacity(min(frame.count, 256 << 10))
        }
        current.bytes.append(contentsOf: piece)
        let isValid = current.bytes.withUnsafeMutableBytes { bytes in
            let added = UnsafeMutableRawBufferPointer(rebasing: bytes[start...])
            WebSocketMask.apply(frame.mask, phase: frame.taken, to: added)
            return current.kind == .binary || current.text.accept(UnsafeRawBufferPointer(added))
        }
        guard isValid else { throw .invalidUTF8 }
    }

    // MARK: Compressed messages

    private mutating func inflate(
        _ piece: UnsafeRawBufferPointer, _ frame: Content, _ current: inout Message
    ) throws(WebSocketError) {
        guard let pool, let deflate else { throw .reservedBits }
        let inflater: WebSocketInflater
        if let own = self.inflater {
            inflater = own
        } else {
            inflater =
                deflate.clientForgets ? pool.takeInflater() : WebSocketInflater()
            self.inflater = inflater
        }
        let start = current.bytes.count
        var problem: WebSocketError?
        // Unmasked beside the input, which is not ours to change.
        withUnsafeTemporaryAllocation(
            byteCount: min(piece.count, 16 << 10), alignment: 16
        ) { plain in
            var position = 0
            while position < piece.count, problem == nil {
                let end = min(piece.count, position + plain.count)
                let part = UnsafeMutableRawBufferPointer(rebasing: plain[..<(end - position)])
                part.copyMemory(from: piece.slice(position..<end))
                WebSocketMask.apply(frame.mask, phase: frame.taken + position, to: part)
                do throws(WebSocketError) {
                    try inflater.inflate(
                        UnsafeRawBufferPointer(part), onto: &current.bytes,
                        countMax: limits.messageBytesMax)
                } catch {
                    problem = error
                }
                position = end
            }
        }
        // What was inflated before the problem is looked at first, as it would be if it had come alone.
        try validate(&current, from: start)
        if let problem { throw problem }
    }

    private mutating func finishInflating(_ current: inout Message) throws(WebSocketError) {
        // Nothing at all is no DEFLATE stream, but what some compressors make of an empty message; it can mean
        // nothing else.
        guard current.compressedCount > 0 else { return }
        guard let inflater, let deflate else { return }
        let start = current.bytes.count
        do throws(WebSocketError) {
            try inflater.finish(onto: &current.bytes, countMax: limits.messageBytesMax)
        } catch {
            try validate(&current, from: start)
            throw error
        }
        try validate(&current, from: start)
        if deflate.clientForgets {
            self.inflater = nil
            pool?.giveBack(inflater)
        }
    }

    private func validate(_ current: inout Message, from start: Int) throws(WebSocketError) {
        guard current.kind == .text else { return }
        let isValid = current.bytes.withUnsafeBytes { bytes in
            current.text.accept(bytes.slice(start..<bytes.count))
        }
        guard isValid else { throw .invalidUTF8 }
    }

    // MARK: Control frames

    private func control(
        _ header: WebSocketFrameHeader, _ masked: UnsafeRawBufferPointer
    ) throws(WebSocketError) -> Event {
        var bytes = [UInt8](masked)
        bytes.withUnsafeMutableBytes { WebSocketMask.apply(header.mask, phase: 0, to: $0) }
        switch header.opcode {
        case .ping: return .ping(bytes)
        case .pong: return .pong(bytes)
        default: return try WebSocketDecoder.close(bytes)
        }
    }

    /// RFC 6455 5.5.1: nothing, or a code and a reason in UTF-8.
    private static func close(_ bytes: [UInt8]) throws(WebSocketError) -> Event {
        guard !bytes.isEmpty else { return .close(nil, reason: "") }
        guard bytes.count >= 2 else { throw .closeTooShort }
        guard let code = WebSocketCloseCode(UInt16(bytes[0]) << 8 | UInt16(bytes[1])) else {
            throw .closeCode
        }
        guard let reason = String(validating: bytes[2...], as: UTF8.self) else {
            throw .invalidUTF8
        }
        return .close(code, reason: reason)
    }
}
