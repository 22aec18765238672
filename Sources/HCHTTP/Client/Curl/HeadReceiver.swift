import HCCore

/// Takes the lines of an answer's head as curl gives them: status line, fields, empty line; heads of 1xx before it.
package struct HeadReceiver {
    private let bytesMax: Int
    private var bytes = 0
    private var status: HTTPStatus?
    private var headers = HTTPHeaders()

    package init(bytesMax: Int) {
        self.bytesMax = bytesMax
    }

    /// - Returns: the head, with the line that ends it.
    package mutating func receive(
        _ line: UnsafeRawBufferPointer
    ) throws(HTTPClientError) -> OutboundHead? {
        bytes += line.count
        guard bytes <= bytesMax else { throw .tooLarge(.head) }
        var end = line.count
        while end > 0, line[end - 1] == 0x0A || line[end - 1] == 0x0D { end -= 1 }
        if end == 0 { return finish() }
        guard status != nil else {
            status = try HeadReceiver.status(line.slice(0..<end))
            return nil
        }
        guard let colon = (0..<end).first(where: { line[$0] == 0x3A }),
            let name = HTTPFieldName(String(decoding: line.slice(0..<colon), as: UTF8.self))
        else { throw .malformed("a field without a proper name") }
        var start = colon + 1
        while start < end, ByteClass.isBlank(line[start]) { start += 1 }
        while end > start, ByteClass.isBlank(line[end - 1]) { end -= 1 }
        headers.append(name, String(decoding: line.slice(start..<end), as: UTF8.self))
        return nil
    }

    private mutating func finish() -> OutboundHead? {
        guard let status else { return nil }
        if status.code < 200 {
            self.status = nil
            headers = HTTPHeaders()
            return nil
        }
        return OutboundHead(status: status, headers: headers)
    }

    /// "HTTP/1.1 200 OK", "HTTP/2 200".
    private static func status(_ line: UnsafeRawBufferPointer) throws(HTTPClientError) -> HTTPStatus
    {
        let text = String(decoding: line, as: UTF8.self)
        let words = text.split(separator: " ", maxSplits: 2, omittingEmptySubsequences: false)
        guard text.hasPrefix("HTTP/"), words.count >= 2, words[1].utf8.count == 3,
            words[1].utf8.allSatisfy(ByteClass.isDigit), let code = Int(words[1]),
            (100...599).contains(code)
        else { throw .malformed("no status line") }
        return HTTPStatus(code)
    }
}

extension HTTPHeaders {
    /// Nil unless Content-Length is there once and a number.
    var contentCount: Int? {
        guard count(of: .contentLength) == 1, let text = self[.contentLength],
            text.utf8.allSatisfy(ByteClass.isDigit)
        else { return nil }
        return Int(text)
    }
}
