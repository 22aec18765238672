/// How long a request's content is (RFC 9112 6). What could be read in two ways is refused: that is how requests
/// are smuggled past whoever stands in front of us.
enum HTTP1Framing {
    static func decide(
        _ head: UnsafeRawBufferPointer, fields: [HTTPHeaders.Field], knownFields: UInt64,
        version: HTTPVersion
    ) throws(HTTP1Error) -> HTTP1Head.Framing {
        let hasLength = knownFields & KnownField.contentLength.bit != 0
        let hasCoding = knownFields & KnownField.transferEncoding.bit != 0
        guard hasLength || hasCoding else { return .none }
        guard !(hasLength && hasCoding) else { throw .lengthWithTransferCoding }
        if hasCoding {
            guard version != .http10 else { throw .invalidTransferCoding }
            try checkCoding(head, fields)
            return .chunked
        }
        var count: Int?
        for field in fields where field.known == .contentLength {
            guard count == nil else { throw .repeatedContentLength }
            guard let announced = length(of: head.slice(field.value)) else {
                throw .invalidContentLength
            }
            count = announced
        }
        guard let count, count > 0 else { return .none }
        return .length(count)
    }

    /// 1*DIGIT and nothing else: no sign, no list, no blank, at most 18 digits.
    static func length(of text: UnsafeRawBufferPointer) -> Int? {
        guard !text.isEmpty, text.count <= 18 else { return nil }
        var value = 0
        for byte in text {
            guard ByteClass.isDigit(byte) else { return nil }
            value = value * 10 + Int(byte - 0x30)
        }
        return value
    }

    /// "chunked", once and last; another coding in front of it is one that we do not have.
    private static func checkCoding(_ head: UnsafeRawBufferPointer, _ fields: [HTTPHeaders.Field])
        throws(HTTP1Error)
    {
        var chunkedCount = 0
        var isLast = false
        var isMalformed = false
        var hasOther = false
        for field in fields where field.known == .transferEncoding {
            head.slice(field.value).forEachListElement { element in
                isLast = element.isEqualIgnoringCase(to: "chunked")
                if isLast {
                    chunkedCount += 1
                } else if !(element.first.map(ByteClass.isToken) ?? false)
                    || !element.allSatisfy(isCoding)
                {
                    isMalformed = true
                } else {
                    hasOther = true
                    // A parameter on "chunked" is another spelling of it for somebody else.
                    if element.count > 7, element.slice(0..<7).isEqualIgnoringCase(to: "chunked"),
                        !ByteClass.isToken(element[7])
                    {
                        isMalformed = true
                    }
                }
            }
        }
        // Without "chunked" at the end nobody knows where the content ends, which is 400 (RFC 9112 6.3), whatever
        // coding it is.
        guard !isMalformed, chunkedCount == 1, isLast else { throw .invalidTransferCoding }
        guard !hasOther else { throw .unknownTransferCoding }
    }

    private static func isCoding(_ byte: UInt8) -> Bool {
        ByteClass.isToken(byte) || ByteClass.isBlank(byte) || byte == 0x3B || byte == 0x3D
            || byte == 0x22
    }

    /// RFC 9110 10.1.1: an expectation other than 100-continue is 417; an HTTP/1.0 client's is ignored.
    static func expectsContinue(
        _ head: UnsafeRawBufferPointer, fields: [HTTPHeaders.Field], knownFields: UInt64,
        version: HTTPVersion
    ) throws(HTTP1Error) -> Bool {
        guard knownFields & KnownField.expect.bit != 0, version != .http10 else { return false }
        for field in fields where field.known == .expect {
            guard head.slice(field.value).isEqualIgnoringCase(to: "100-continue") else {
                throw .unknownExpectation
            }
        }
        return true
    }
}
