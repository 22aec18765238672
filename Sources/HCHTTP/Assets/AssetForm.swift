/// The bytes of a static file in one coding, with the tag that names just these bytes, and what a client's conditions
/// and ranges make of them.
struct AssetForm: Sendable {
    enum Verdict: Sendable, Equatable {
        case isWanted
        /// 304.
        case isHeld
        /// 412.
        case isStale
    }

    let bytes: [UInt8]
    let tag: String
    /// Between the parts of an answer with several; nothing that the bytes have in them, for it is made of their own
    /// hash.
    private let boundary: String

    /// - Parameter hash: of the bytes as they are here. One of the content before it was coded would not do: another
    ///   release's encoder gives other bytes, and a client would put parts of both together.
    init(_ bytes: [UInt8], _ hash: String, _ coding: ContentCoding?) {
        self.bytes = bytes
        let tag = "\"\(hash)\""
        self.tag = coding.map { EntityTags.coded(tag, $0) } ?? tag
        boundary = "hc-part-\(hash)"
    }

    /// RFC 9110 13.2.2. There is no time of modification, so conditions on that are ignored, as 13.1.3 and 13.1.4 say.
    func verdict(on request: HTTPRequest) -> Verdict {
        let wanted = request.headers.values(.ifMatch)
        if !wanted.isEmpty, !EntityTags.isListedStrongly(tag, in: wanted.joined(separator: ", ")) {
            return .isStale
        }
        let held = request.headers.values(.ifNoneMatch)
        if !held.isEmpty, EntityTags.isListed(tag, in: held.joined(separator: ", ")) {
            return .isHeld
        }
        return .isWanted
    }

    /// Gives the answer its content: all of it, one part (RFC 9110 15.3.7.1), or several (15.3.7.2).
    ///
    /// - Throws: 416 if nothing of the content is asked for.
    func fill(
        _ response: inout HTTPResponse, for request: HTTPRequest, _ mediaType: StaticString
    ) throws(Problem) {
        switch ranges(of: request) {
        case .unsatisfiable: throw .rangeNotSatisfiable(count: bytes.count)
        case .whole:
            response.headers.append(.contentType, mediaType)
            response.body = .bytes(bytes)
        case .parts(let parts):
            response.status = .partialContent
            if parts.count == 1 {
                response.headers.append(.contentType, mediaType)
                response.headers.append(.contentRange, contentRange(parts[0]))
                response.body = .bytes(Array(bytes[parts[0]]))
            } else {
                response.headers.append(
                    .contentType, "multipart/byteranges; boundary=\(boundary)")
                response.body = .bytes(multipart(parts, mediaType))
            }
        }
    }

    /// `Range` has a meaning for GET only, once, and while `If-Range` names this form: by strong comparison, so a weak
    /// tag or a date does not (RFC 9110 13.1.5, 14.2).
    private func ranges(of request: HTTPRequest) -> ByteRanges.Choice {
        let headers = request.headers
        guard request.method == .get, headers.count(of: .range) == 1, let field = headers[.range]
        else { return .whole }
        let held = headers.values("If-Range")
        guard held.isEmpty || held == [tag] else { return .whole }
        return ByteRanges.choose(field, of: bytes.count)
    }

    private func contentRange(_ part: Range<Int>) -> String {
        "bytes \(part.lowerBound)-\(part.upperBound - 1)/\(bytes.count)"
    }

    private func multipart(_ parts: [Range<Int>], _ mediaType: StaticString) -> [UInt8] {
        var output: [UInt8] = []
        output.reserveCapacity(parts.reduce(0) { $0 + $1.count + 160 })
        for part in parts {
            let head = """
                \r\n--\(boundary)\r\nContent-Type: \(mediaType)\r\n\
                Content-Range: \(contentRange(part))\r\n\r\n
                """
            output.append(contentsOf: head.utf8)
            output.append(contentsOf: bytes[part])
        }
        output.append(contentsOf: "\r\n--\(boundary)--\r\n".utf8)
        return output
    }
}
