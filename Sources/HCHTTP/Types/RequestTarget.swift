/// What a request asks for (RFC 9112 3.2), already checked: every "%" is followed by two hex digits, the decoded
/// text is UTF-8 without control characters, no segment is "." or "..".
package struct RequestTarget: Sendable {
    /// Holds the head of the request; shared with its headers.
    let bytes: [UInt8]
    let pathRange: Range<Int>
    let queryRange: Range<Int>?
    /// Whether the path has a "%".
    let isPathEncoded: Bool

    /// `OPTIONS *` (RFC 9112 3.2.4).
    package var isAsterisk: Bool {
        pathRange.count == 1 && bytes[pathRange.lowerBound] == 0x2A
    }

    /// The path as it was sent: for logs of the shape of a request and for signatures, not for decisions.
    package var path: String { String(decoding: bytes[pathRange], as: UTF8.self) }

    /// The query as it was sent, without the "?".
    package var rawQuery: String? {
        queryRange.map { String(decoding: bytes[$0], as: UTF8.self) }
    }

    /// The decoded segments: "/a/b%2Fc" is "a", "b/c"; "/a/" is "a", "". Made anew on each call.
    package var segments: [String] {
        guard !isAsterisk else { return [] }
        var found: [String] = []
        bytes.withUnsafeBytes { bytes in
            var walk = SegmentWalk(pathRange)
            while let segment = walk.next(bytes) {
                found.append(PercentCoding.decode(bytes.slice(segment)))
            }
        }
        return found
    }

    /// The decoded query parameters. Made anew on each call: a handler keeps it in a constant.
    package var query: QueryParameters {
        guard let queryRange else { return QueryParameters([]) }
        return bytes.withUnsafeBytes { QueryParameters(parsing: $0.slice(queryRange)) }
    }
}

/// Goes through the raw segments of a path that begins with "/".
struct SegmentWalk {
    private var position: Int
    private let end: Int

    init(_ path: Range<Int>) {
        position = path.lowerBound
        end = path.upperBound
    }

    @inline(__always)
    mutating func next(_ bytes: UnsafeRawBufferPointer) -> Range<Int>? {
        guard position < end else { return nil }
        let start = position + 1
        var last = start
        while last < end && bytes[last] != 0x2F { last += 1 }
        position = last
        return start..<last
    }
}

/// Percent-coding (RFC 3986 2.1) of what the parser has already found valid.
enum PercentCoding {
    /// Decodes; `plusIsSpace` for the query of a form (WHATWG URL, application/x-www-form-urlencoded).
    static func decode(_ bytes: UnsafeRawBufferPointer, plusIsSpace: Bool = false) -> String {
        let needsWork = bytes.contains { $0 == 0x25 || (plusIsSpace && $0 == 0x2B) }
        guard needsWork else { return String(decoding: bytes, as: UTF8.self) }
        return String(decoding: decodedBytes(bytes, plusIsSpace: plusIsSpace), as: UTF8.self)
    }

    static func decodedBytes(_ bytes: UnsafeRawBufferPointer, plusIsSpace: Bool) -> [UInt8] {
        var decoded: [UInt8] = []
        decoded.reserveCapacity(bytes.count)
        var index = 0
        while index < bytes.count {
            let byte = bytes[index]
            if byte == 0x25, index + 2 < bytes.count,
                let high = ByteClass.hexValue(bytes[index + 1]),
                let low = ByteClass.hexValue(bytes[index + 2])
            {
                decoded.append(high << 4 | low)
                index += 3
            } else {
                decoded.append(plusIsSpace && byte == 0x2B ? 0x20 : byte)
                index += 1
            }
        }
        return decoded
    }
}

/// The parameters of a query in their order. A name that appears twice appears twice here: a route that wants
/// one value says `single`, and a client that sends two is told so.
package struct QueryParameters: Sendable, Equatable {
    package struct Parameter: Sendable, Equatable {
        package let name: String
        package let value: String
    }

    package let all: [Parameter]

    package init(_ all: [Parameter]) {
        self.all = all
    }

    init(parsing bytes: UnsafeRawBufferPointer) {
        var found: [Parameter] = []
        var start = 0
        while start <= bytes.count {
            var end = start
            while end < bytes.count && bytes[end] != 0x26 { end += 1 }
            if end > start {
                var split = start
                while split < end && bytes[split] != 0x3D { split += 1 }
                let value = split < end ? bytes.slice(split + 1..<end) : bytes.slice(end..<end)
                found.append(
                    Parameter(
                        name: PercentCoding.decode(bytes.slice(start..<split), plusIsSpace: true),
                        value: PercentCoding.decode(value, plusIsSpace: true)))
            }
            start = end + 1
        }
        all = found
    }

    package var isEmpty: Bool { all.isEmpty }

    package func values(_ name: String) -> [String] {
        all.filter { $0.name == name }.map(\.value)
    }

    /// The only value of that name, nil if there is none.
    ///
    /// - Throws: a `Problem` 400 that names the parameter if it was given more than once.
    package func single(_ name: String) throws(Problem) -> String? {
        let found = values(name)
        guard found.count <= 1 else {
            throw .invalid([FieldProblem(name, code: "duplicate", "Give this parameter once.")])
        }
        return found.first
    }

    /// Refuses parameters that the route does not have: a misspelled filter must not return everything.
    ///
    /// - Throws: a `Problem` 400 that names each unknown parameter.
    package func allow(_ names: Set<String>) throws(Problem) {
        let unknown = all.map(\.name).filter { !names.contains($0) }
        guard unknown.isEmpty else {
            throw .invalid(
                unknown.prefix(20).map {
                    FieldProblem($0, code: "unknown", "This parameter does not exist here.")
                })
        }
    }
}
