import Glibc

/// Reads HTTP/1 requests, strictly (RFC 9110, RFC 9112): bytes in, events out, no I/O.
///
/// It works on the caller's memory. `next` is given all bytes that were not consumed yet, and says how many it
/// consumed; of a head or a line that is not complete it consumes nothing, and the caller keeps those bytes and
/// gives them again with more behind them. What was read of them is not read twice. However the bytes are cut,
/// the events and the error are the same.
///
/// After an error the parser is not used again: what follows in the stream has no meaning.
struct HTTP1Parser: Sendable {
    enum Event {
        /// Give more bytes.
        case needMore
        /// A head; its content and `.end` follow, also if there is no content.
        case head(HTTP1Head)
        /// Content, by its place in the input; never empty.
        case content(Range<Int>)
        /// The end of the message. The next bytes are the next request.
        case end(trailers: HTTPHeaders)
    }

    private enum State: Sendable {
        /// Can transition to: headerLines.
        case requestLine
        /// Can transition to: content, chunkSize, end.
        case headerLines
        /// Can transition to: end.
        case content(remaining: Int)
        /// Can transition to: chunkContent, trailerLines.
        case chunkSize
        /// Can transition to: chunkEnd.
        case chunkContent(remaining: Int)
        /// Can transition to: chunkSize.
        case chunkEnd
        /// Can transition to: requestLine.
        case trailerLines
        /// Can transition to: requestLine.
        case end
    }

    let limits: HTTP1Limits
    private var state = State.requestLine
    private var emptyLines = 0

    // Of a head or trailer section in progress; positions count from its first byte.
    private var lineStart = 0
    private var searched = 0
    private var sectionStart = 0
    private var requestLine = HTTP1RequestLine()
    private var fields: [HTTPHeaders.Field] = []
    private var knownFields: UInt64 = 0
    private var knownHost = ""

    // Of a chunked body in progress.
    private var contentCount = 0
    private var overhead = 0

    init(limits: HTTP1Limits) {
        self.limits = limits
    }

    /// Whether nothing of a next request was seen yet but forgiven empty lines.
    var isBetweenMessages: Bool {
        if case .requestLine = state { searched == 0 } else { false }
    }

    /// Whether a head has begun and is not complete.
    var isInHead: Bool {
        switch state {
        case .requestLine: searched > 0
        case .headerLines: true
        default: false
        }
    }

    /// - Parameter consumed: is raised by the number of bytes that need not be given again.
    mutating func next(_ input: UnsafeRawBufferPointer, consumed: inout Int)
        throws(HTTP1Error) -> Event
    {
        while true {
            let rest = input.slice(consumed..<input.count)
            switch state {
            case .requestLine:
                guard try readRequestLine(rest, &consumed) else { return .needMore }
            case .headerLines:
                guard let line = try nextLine(rest, limit: limits.headerBytesMax, .headersTooLarge)
                else { return .needMore }
                if !line.isEmpty {
                    try readField(rest, line, max: limits.headerCountMax, .tooManyHeaders)
                    continue
                }
                let head = try finishHead(rest)
                consumed += lineStart
                resetSection()
                return .head(head)
            case .content(let remaining):
                guard !rest.isEmpty else { return .needMore }
                let count = min(remaining, rest.count)
                state = count == remaining ? .end : .content(remaining: remaining - count)
                defer { consumed += count }
                return .content(consumed..<consumed + count)
            case .chunkSize:
                guard try readChunkSize(rest, &consumed) else { return .needMore }
            case .chunkContent(let remaining):
                guard !rest.isEmpty else { return .needMore }
                let count = min(remaining, rest.count)
                state = count == remaining ? .chunkEnd : .chunkContent(remaining: remaining - count)
                defer { consumed += count }
                return .content(consumed..<consumed + count)
            case .chunkEnd:
                if let first = rest.first, first != 0x0D { throw .invalidChunk }
                guard rest.count >= 2 else { return .needMore }
                guard rest[1] == 0x0A else { throw .invalidChunk }
                consumed += 2
                state = .chunkSize
            case .trailerLines:
                guard
                    let line = try nextLine(rest, limit: limits.trailerBytesMax, .trailersTooLarge)
                else { return .needMore }
                if !line.isEmpty {
                    try readField(rest, line, max: limits.trailerCountMax, .trailersTooLarge)
                    try refuseForbiddenTrailer()
                    continue
                }
                let trailers =
                    fields.isEmpty
                    ? HTTPHeaders()
                    : HTTPHeaders(
                        head: Array(rest[..<lineStart]), fields: fields, knownFields: knownFields)
                consumed += lineStart
                resetSection()
                state = .requestLine
                emptyLines = 0
                return .end(trailers: trailers)
            case .end:
                state = .requestLine
                emptyLines = 0
                return .end(trailers: HTTPHeaders())
            }
        }
    }

    // MARK: Lines

    /// The next complete line of the section, without its CRLF; nil when it is not complete.
    private mutating func nextLine(
        _ section: UnsafeRawBufferPointer, limit: Int, _ tooLong: HTTP1Error
    ) throws(HTTP1Error) -> Range<Int>? {
        guard let base = section.baseAddress, searched < section.count,
            let found = memchr(base + searched, 0x0A, section.count - searched)
        else {
            searched = section.count
            guard section.count - sectionStart <= limit else { throw tooLong }
            return nil
        }
        let end = base.distance(to: UnsafeRawPointer(found))
        guard end + 1 - sectionStart <= limit else { throw tooLong }
        guard end > lineStart, section[end - 1] == 0x0D else { throw .invalidLineEnd }
        let line = lineStart..<end - 1
        lineStart = end + 1
        searched = lineStart
        return line
    }

    private mutating func resetSection() {
        lineStart = 0
        searched = 0
        sectionStart = 0
        fields = []
        knownFields = 0
    }

    private mutating func readRequestLine(_ rest: UnsafeRawBufferPointer, _ consumed: inout Int)
        throws(HTTP1Error) -> Bool
    {
        guard let first = rest.first else { return false }
        guard first == 0x0D || ByteClass.isToken(first) else { throw .malformedRequestLine }
        if first == 0x0D {
            // An empty line before the request is forgiven, a few times (RFC 9112 2.2).
            guard rest.count >= 2 else {
                searched = 0
                return false
            }
            guard rest[1] == 0x0A else { throw .invalidLineEnd }
            emptyLines += 1
            guard emptyLines <= limits.emptyLinesMax else { throw .malformedRequestLine }
            consumed += 2
            return true
        }
        let found: Range<Int>?
        do throws(HTTP1Error) {
            found = try nextLine(rest, limit: limits.requestLineBytesMax, .requestLineTooLong)
        } catch {
            // A method longer than any is not implemented; 414 is for targets (RFC 9112 3).
            let hasMethod = rest.prefix(limits.requestLineBytesMax).contains(0x20)
            throw error == .requestLineTooLong && !hasMethod ? .unknownMethod : error
        }
        guard let line = found else { return false }
        requestLine = try HTTP1RequestLine(rest, line, limits: limits)
        sectionStart = lineStart
        fields.reserveCapacity(12)
        state = .headerLines
        return true
    }

    /// Checks one field line (RFC 9112 5) and notes where it lies.
    private mutating func readField(
        _ section: UnsafeRawBufferPointer, _ line: Range<Int>, max: Int, _ tooMany: HTTP1Error
    ) throws(HTTP1Error) {
        guard fields.count < max else { throw tooMany }
        guard !ByteClass.isBlank(section[line.lowerBound]) else { throw .lineFolding }
        var colon = line.lowerBound
        while colon < line.upperBound && ByteClass.isToken(section[colon]) { colon += 1 }
        guard colon > line.lowerBound, colon < line.upperBound, section[colon] == 0x3A else {
            throw .invalidFieldName
        }
        guard colon - line.lowerBound <= HTTPFieldName.bytesMax else { throw .headersTooLarge }
        var start = colon + 1
        var end = line.upperBound
        while start < end && ByteClass.isBlank(section[start]) { start += 1 }
        while end > start && ByteClass.isBlank(section[end - 1]) { end -= 1 }
        guard section.slice(start..<end).isFieldValue() else { throw .invalidFieldValue }
        let known = KnownField(section.slice(line.lowerBound..<colon))
        knownFields |= known.bit
        fields.append(
            HTTPHeaders.Field(
                nameStart: UInt32(line.lowerBound), valueStart: UInt32(start),
                valueCount: UInt32(end - start), nameCount: UInt16(colon - line.lowerBound),
                known: known))
    }

    private func refuseForbiddenTrailer() throws(HTTP1Error) {
        if let known = fields.last?.known, TrailerFields.isForbidden(known) {
            throw .invalidTrailer
        }
    }

    // MARK: The end of the head

    private mutating func finishHead(_ section: UnsafeRawBufferPointer) throws(HTTP1Error)
        -> HTTP1Head
    {
        let version = requestLine.version
        let host = try HTTP1Host.validate(
            section, fields: fields, target: requestLine.authority, version: version,
            known: knownHost)
        knownHost = host
        let framing = try HTTP1Framing.decide(
            section, fields: fields, knownFields: knownFields, version: version)
        if case .length(let count) = framing, count > limits.bodyBytesMax { throw .contentTooLarge }
        let expectsContinue = try HTTP1Framing.expectsContinue(
            section, fields: fields, knownFields: knownFields, version: version)

        let bytes = [UInt8](section[..<lineStart])
        let headers = HTTPHeaders(
            head: bytes, fields: exchange(&fields, with: []), knownFields: knownFields)
        let keepAlive =
            version == .http11
            ? !headers.hasToken(.connection, "close")
            : headers.hasToken(.connection, "keep-alive")
                && !headers.hasToken(.connection, "close")
        switch framing {
        case .none: state = .end
        case .length(let count): state = .content(remaining: count)
        case .chunked:
            state = .chunkSize
            contentCount = 0
            overhead = 0
        }
        return HTTP1Head(
            method: requestLine.method, version: version,
            target: RequestTarget(
                bytes: bytes, pathRange: requestLine.path, queryRange: requestLine.query,
                isPathEncoded: requestLine.isPathEncoded),
            headers: headers, host: host, framing: framing, keepAlive: keepAlive,
            expectsContinue: expectsContinue && framing != .none)
    }

    // MARK: Chunks

    /// Reads one chunk-size line (RFC 9112 7.1). Extensions are checked for their form and skipped.
    private mutating func readChunkSize(_ rest: UnsafeRawBufferPointer, _ consumed: inout Int)
        throws(HTTP1Error) -> Bool
    {
        sectionStart = 0
        lineStart = 0
        guard let line = try nextLine(rest, limit: limits.chunkLineBytesMax, .invalidChunk) else {
            return false
        }
        let lineCount = lineStart
        lineStart = 0
        searched = 0
        var size = 0
        var index = 0
        while index < line.upperBound, let digit = ByteClass.hexValue(rest[index]) {
            guard index < 15 else { throw .invalidChunk }
            size = size << 4 | Int(digit)
            index += 1
        }
        guard index > 0 else { throw .invalidChunk }
        if index < line.upperBound {
            var extensions = HTTP1ChunkExtensions(rest.slice(index..<line.upperBound))
            guard extensions.areWellFormed() else { throw .invalidChunk }
        }
        // A chunk pays for its line with twice its content; what is not paid for adds up (a flood of tiny chunks
        // or of extensions).
        overhead = max(0, overhead + lineCount - 16 - 2 * min(size, 1 << 20))
        guard overhead <= limits.chunkOverheadBytesMax else { throw .chunkOverhead }
        guard size <= limits.bodyBytesMax - contentCount else { throw .contentTooLarge }
        contentCount += size
        consumed += lineCount
        state = size == 0 ? .trailerLines : .chunkContent(remaining: size)
        return true
    }
}
