/// The parts of a request line (RFC 9112 3) by their places in the head.
struct HTTP1RequestLine: Sendable {
    private(set) var method = HTTPMethod.get
    private(set) var version = HTTPVersion.http11
    /// Of an absolute-form target: what comes after "//", before the path.
    private(set) var authority: Range<Int>?
    private(set) var path = 0..<0
    private(set) var query: Range<Int>?
    private(set) var isPathEncoded = false

    init() {}

    init(_ bytes: UnsafeRawBufferPointer, _ line: Range<Int>, limits: HTTP1Limits)
        throws(HTTP1Error)
    {
        var space = line.lowerBound
        while space < line.upperBound && ByteClass.isToken(bytes[space]) { space += 1 }
        guard space > line.lowerBound, space < line.upperBound, bytes[space] == 0x20 else {
            throw .malformedRequestLine
        }
        var end = line.upperBound
        while end > space && bytes[end - 1] != 0x20 { end -= 1 }
        let target = space + 1..<max(space + 1, end - 1)
        guard end > space + 1, !target.isEmpty else { throw .malformedRequestLine }
        // The method is judged last: a line that is no request line at all is 400, not 501.
        let name = bytes.slice(line.lowerBound..<space)
        let versionText = bytes.slice(end..<line.upperBound)
        if name.isEqual(to: "PRI"), versionText.isEqual(to: "HTTP/2.0") { throw .http2Preface }
        version = try HTTP1RequestLine.version(versionText)
        for index in target where bytes[index] <= 0x20 || bytes[index] >= 0x7F {
            throw .invalidTarget
        }
        guard let method = HTTPMethod(name) else { throw .unknownMethod }
        self.method = method
        try readTarget(bytes, target, limits)
    }

    /// The `:path` of an HTTP/2 request (RFC 9113 8.3.1), which begins with "/" or is "*".
    init(
        path: Range<Int>, of bytes: UnsafeRawBufferPointer, method: HTTPMethod, limits: HTTP1Limits
    ) throws(HTTP1Error) {
        for index in path where bytes[index] <= 0x20 || bytes[index] >= 0x7F {
            throw .invalidTarget
        }
        self.method = method
        version = .http2
        try readTarget(bytes, path, limits)
    }

    private static func version(_ text: UnsafeRawBufferPointer) throws(HTTP1Error) -> HTTPVersion {
        guard text.count == 8, text.slice(0..<5).isEqual(to: "HTTP/"), text[6] == 0x2E,
            ByteClass.isDigit(text[5]), ByteClass.isDigit(text[7])
        else { throw .malformedRequestLine }
        guard text[5] == 0x31 else { throw .unsupportedVersion }
        // A higher minor version is served as the highest that we have (RFC 9110 2.5).
        return text[7] == 0x30 ? .http10 : .http11
    }

    /// RFC 9112 3.2: origin-form, absolute-form, and asterisk-form for OPTIONS. Authority-form is CONNECT's alone.
    private mutating func readTarget(
        _ bytes: UnsafeRawBufferPointer, _ target: Range<Int>, _ limits: HTTP1Limits
    ) throws(HTTP1Error) {
        var start = target.lowerBound
        if bytes[start] == 0x2A {
            guard target.count == 1, method == .options else { throw .invalidTarget }
            path = target
            return
        }
        if bytes[start] != 0x2F {
            let rest = bytes.slice(target)
            let scheme: Int
            if rest.count > 7, rest.slice(0..<7).isEqualIgnoringCase(to: "http://") {
                scheme = 7
            } else if rest.count > 8, rest.slice(0..<8).isEqualIgnoringCase(to: "https://") {
                scheme = 8
            } else {
                throw .invalidTarget
            }
            start += scheme
            var end = start
            while end < target.upperBound, bytes[end] != 0x2F, bytes[end] != 0x3F,
                bytes[end] != 0x23
            {
                end += 1
            }
            authority = start..<end
            if end == target.upperBound || bytes[end] != 0x2F {
                // "http://host" and "http://host?q" ask for "/" (RFC 9112 3.2.1): the path is the slash before the host.
                path = start - 1..<start
                guard end < target.upperBound else { return }
                guard bytes[end] == 0x3F else { throw .invalidTarget }
                query = end + 1..<target.upperBound
                try HTTP1RequestLine.checkQuery(bytes, end + 1..<target.upperBound)
                return
            }
            start = end
        }
        var index = start
        var segmentCount = 0
        var segmentStart = start
        while index < target.upperBound, bytes[index] != 0x3F {
            let byte = bytes[index]
            if byte == 0x25 {
                isPathEncoded = true
                let decoded = try HTTP1RequestLine.percent(bytes, index, target.upperBound)
                guard decoded >= 0x20, decoded != 0x7F else { throw .invalidPercentCoding }
                segmentCount += 1
                index += 3
            } else if byte == 0x2F {
                try HTTP1RequestLine.checkSegment(bytes, segmentStart..<index)
                segmentStart = index + 1
                segmentCount = 0
                index += 1
            } else {
                guard ByteClass.isPath(byte) else { throw .invalidTarget }
                segmentCount += 1
                index += 1
            }
            guard segmentCount <= limits.pathSegmentBytesMax else { throw .pathSegmentTooLong }
        }
        try HTTP1RequestLine.checkSegment(bytes, segmentStart..<index)
        path = start..<index
        if isPathEncoded {
            try HTTP1RequestLine.checkText(bytes.slice(path))
        }
        if index < target.upperBound {
            query = index + 1..<target.upperBound
            try HTTP1RequestLine.checkQuery(bytes, index + 1..<target.upperBound)
        }
    }

    /// "." and ".." are refused also when they are encoded: what is behind us might resolve them.
    private static func checkSegment(_ bytes: UnsafeRawBufferPointer, _ segment: Range<Int>)
        throws(HTTP1Error)
    {
        guard !segment.isEmpty, segment.count <= 6 else { return }
        let first = bytes[segment.lowerBound]
        guard first == 0x2E || first == 0x25 else { return }
        let text = PercentCoding.decodedBytes(bytes.slice(segment), plusIsSpace: false)
        guard text != [0x2E], text != [0x2E, 0x2E] else { throw .dotSegment }
    }

    private static func checkQuery(_ bytes: UnsafeRawBufferPointer, _ query: Range<Int>)
        throws(HTTP1Error)
    {
        var index = query.lowerBound
        var isEncoded = false
        while index < query.upperBound {
            if bytes[index] == 0x25 {
                isEncoded = true
                guard try percent(bytes, index, query.upperBound) != 0 else {
                    throw .invalidPercentCoding
                }
                index += 3
            } else {
                guard ByteClass.isQuery(bytes[index]) else { throw .invalidTarget }
                index += 1
            }
        }
        if isEncoded { try checkText(bytes.slice(query)) }
    }

    /// The byte that "%" and two hex digits stand for.
    private static func percent(_ bytes: UnsafeRawBufferPointer, _ index: Int, _ end: Int)
        throws(HTTP1Error) -> UInt8
    {
        guard index + 2 < end, let high = ByteClass.hexValue(bytes[index + 1]),
            let low = ByteClass.hexValue(bytes[index + 2])
        else { throw .invalidPercentCoding }
        return high << 4 | low
    }

    /// The decoded text must be UTF-8, in each part: no character is cut by a "/", "&" or "=".
    private static func checkText(_ bytes: UnsafeRawBufferPointer) throws(HTTP1Error) {
        let decoded = PercentCoding.decodedBytes(bytes, plusIsSpace: false)
        guard String(validating: decoded, as: UTF8.self) != nil else {
            throw .invalidPercentCoding
        }
    }
}
