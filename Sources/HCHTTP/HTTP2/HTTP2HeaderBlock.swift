/// Gathers the fields of one decoded field block and makes a request's head of them (RFC 9113 8.2, 8.3).
///
/// Two kinds of bad input are told apart. What HTTP/2 calls malformed has no answer: its stream is reset. What
/// HTTP/1 would refuse too (a target, a host, a method) gets the same answer here as there.
struct HTTP2HeaderBlock {
    enum Outcome {
        case request(HTTP2Head)
        case refused(HTTP1Error)
        case malformed
    }

    private(set) var isTrailers = false
    private(set) var isMalformed = false
    /// The block has decoded to more than anybody would look at.
    private(set) var isBomb = false
    private var refusal: HTTP1Error?

    private let limits: HTTP2Limits
    private let common: HTTP1Limits
    private var listBytes = 0

    private var bytes: [UInt8] = []
    private var fields: [HTTPHeaders.Field] = []
    private var knownFields: UInt64 = 0
    private var hasRegularField = false
    private var cookieCount = 0

    private var method: Range<Int>?
    private var scheme: Range<Int>?
    private var path: Range<Int>?
    private var authority: Range<Int>?
    private var protocolName: Range<Int>?

    init(limits: HTTP2Limits, common: HTTP1Limits) {
        self.limits = limits
        self.common = common
    }

    mutating func begin(trailers: Bool) {
        isTrailers = trailers
        isMalformed = false
        isBomb = false
        refusal = nil
        listBytes = 0
        bytes.removeAll(keepingCapacity: true)
        fields.removeAll(keepingCapacity: true)
        if fields.capacity == 0 {
            bytes.reserveCapacity(512)
            fields.reserveCapacity(16)
        }
        knownFields = 0
        hasRegularField = false
        cookieCount = 0
        method = nil
        scheme = nil
        path = nil
        authority = nil
        protocolName = nil
    }

    /// Lets go of the memory: a connection without requests keeps none.
    mutating func clear() {
        bytes = []
        fields = []
    }

    // MARK: Fields

    mutating func add(name: UnsafeRawBufferPointer, value: UnsafeRawBufferPointer) {
        listBytes += name.count + value.count + 32
        guard listBytes <= limits.headerBombBytesMax else {
            isBomb = true
            return
        }
        guard !isMalformed, refusal == nil else { return }
        let isTooLarge =
            isTrailers
            ? listBytes > common.trailerBytesMax + 32 * common.trailerCountMax
            : listBytes > limits.headerListBytesMax
        guard !isTooLarge else {
            refusal = .headersTooLarge
            return
        }
        guard isValue(value) else {
            isMalformed = true
            return
        }
        if name.first == 0x3A {
            addPseudo(name, value)
        } else {
            addField(name, value)
        }
    }

    /// RFC 9113 8.2.1 forbids NUL, CR, LF and blanks at the ends; the other control characters have no meaning
    /// either (RFC 9110 5.5).
    private func isValue(_ value: UnsafeRawBufferPointer) -> Bool {
        guard let first = value.first, let last = value.last else { return true }
        guard !ByteClass.isBlank(first), !ByteClass.isBlank(last) else { return false }
        for byte in value where !ByteClass.isFieldValue(byte) { return false }
        return true
    }

    private mutating func addPseudo(
        _ name: UnsafeRawBufferPointer, _ value: UnsafeRawBufferPointer
    ) {
        guard !isTrailers, !hasRegularField else {
            isMalformed = true
            return
        }
        let start = bytes.count
        let place = start..<start + value.count
        // Each at most once (RFC 9113 8.3).
        switch name.count {
        case 7 where name.isEqual(to: ":method") && method == nil: method = place
        case 7 where name.isEqual(to: ":scheme") && scheme == nil: scheme = place
        case 5 where name.isEqual(to: ":path") && path == nil: path = place
        case 10 where name.isEqual(to: ":authority") && authority == nil: authority = place
        case 9 where name.isEqual(to: ":protocol") && protocolName == nil: protocolName = place
        default:
            isMalformed = true
            return
        }
        bytes.append(contentsOf: value)
    }

    private mutating func addField(
        _ name: UnsafeRawBufferPointer, _ value: UnsafeRawBufferPointer
    ) {
        hasRegularField = true
        guard isName(name) else {
            isMalformed = true
            return
        }
        guard name.count <= HTTPFieldName.bytesMax else {
            refusal = .headersTooLarge
            return
        }
        let known = KnownField(name)
        switch known {
        case .connection, .keepAlive, .transferEncoding, .upgrade:
            isMalformed = true
            return
        case .te:
            // RFC 9113 8.2.2.
            guard value.isEqualIgnoringCase(to: "trailers") else {
                isMalformed = true
                return
            }
        case .cookie: cookieCount += 1
        case .other:
            guard !name.isEqual(to: "proxy-connection") else {
                isMalformed = true
                return
            }
        default: break
        }
        let countMax = isTrailers ? common.trailerCountMax : limits.headerCountMax
        guard fields.count < countMax else {
            refusal = .tooManyHeaders
            return
        }
        if isTrailers, TrailerFields.isForbidden(known) {
            isMalformed = true
            return
        }
        let start = bytes.count
        bytes.append(contentsOf: name)
        bytes.append(contentsOf: value)
        knownFields |= known.bit
        fields.append(
            HTTPHeaders.Field(
                nameStart: UInt32(start), valueStart: UInt32(start + name.count),
                valueCount: UInt32(value.count), nameCount: UInt16(name.count), known: known))
    }

    /// A token without upper case (RFC 9113 8.2.1).
    private func isName(_ name: UnsafeRawBufferPointer) -> Bool {
        guard !name.isEmpty else { return false }
        for byte in name where !ByteClass.isToken(byte) || byte &- 0x41 < 26 { return false }
        return true
    }

    // MARK: The end of the block

    /// Whether the method is HEAD, whatever else the request is.
    var isHead: Bool {
        guard let method else { return false }
        return bytes.withUnsafeBytes { $0.slice(method).isEqual(to: "HEAD") }
    }

    /// Of a trailer section.
    var areTrailersTooLarge: Bool { refusal != nil }

    /// The fields of a trailer section.
    var trailers: HTTPHeaders {
        fields.isEmpty
            ? HTTPHeaders() : HTTPHeaders(head: bytes, fields: fields, knownFields: knownFields)
    }

    /// - Parameter isComplete: no content follows.
    mutating func finish(isComplete: Bool) -> Outcome {
        guard !isMalformed, !isBomb else { return .malformed }
        if let refusal { return .refused(refusal) }
        joinCookies()
        do throws(HTTP1Error) {
            return try head(isComplete)
        } catch {
            return .refused(error)
        }
    }

    private func head(_ isComplete: Bool) throws(HTTP1Error) -> Outcome {
        let bytes = bytes
        let fields = fields
        // RFC 9113 8.3.1: each once and not empty.
        guard let methodPlace = method, !methodPlace.isEmpty else { return .malformed }
        let outcome = bytes.withUnsafeBytes { space -> Result<Outcome, HTTP1Error> in
            do throws(HTTP1Error) {
                let name = space.slice(methodPlace)
                guard name.allSatisfy(ByteClass.isToken) else { return .success(.malformed) }
                if name.isEqual(to: "CONNECT") {
                    return .success(try connect(space, bytes, fields, isComplete))
                }
                guard protocolName == nil, let scheme, let path, isScheme(space.slice(scheme)),
                    isPath(space.slice(path), of: name)
                else { return .success(.malformed) }
                guard let length = contentLength(space, fields, isComplete) else {
                    return .success(.malformed)
                }
                guard agree(space, fields, scheme) else { return .success(.malformed) }
                guard let method = HTTPMethod(name) else { throw .unknownMethod }
                let head = try makeHead(
                    method, path, space, bytes, fields, length, isComplete, upgrade: nil)
                return .success(.request(head))
            } catch {
                return .failure(error)
            }
        }
        return try outcome.get()
    }

    /// RFC 9113 8.5: plain CONNECT names an authority and nothing else. RFC 8441 4: with `:protocol` it is a
    /// request like others, and what we can speak is given to routes as GET.
    private func connect(
        _ space: UnsafeRawBufferPointer, _ bytes: [UInt8], _ fields: [HTTPHeaders.Field],
        _ isComplete: Bool
    ) throws(HTTP1Error) -> Outcome {
        guard let authority, !authority.isEmpty else { return .malformed }
        guard let protocolName else {
            guard scheme == nil, path == nil else { return .malformed }
            throw .unknownMethod
        }
        guard let scheme, let path, isScheme(space.slice(scheme)),
            isPath(space.slice(path), of: space.slice(0..<0)), agree(space, fields, scheme)
        else { return .malformed }
        guard space.slice(protocolName).isEqualIgnoringCase(to: "websocket") else {
            throw .unknownMethod
        }
        // What follows is no content: a length of it would be another's opinion of where the tunnel ends.
        guard knownFields & KnownField.contentLength.bit == 0 else { return .malformed }
        let head = try makeHead(
            .get, path, space, bytes, fields, nil, isComplete,
            upgrade: .webSocket(.extendedConnect))
        return .request(head)
    }

    private func makeHead(
        _ method: HTTPMethod, _ path: Range<Int>, _ space: UnsafeRawBufferPointer,
        _ bytes: [UInt8], _ fields: [HTTPHeaders.Field], _ length: Int?, _ isComplete: Bool,
        upgrade: HTTPUpgrade?
    ) throws(HTTP1Error) -> HTTP2Head {
        guard path.count <= common.requestLineBytesMax else { throw .requestLineTooLong }
        let line = try HTTP1RequestLine(path: path, of: space, method: method, limits: common)
        let host = try self.host(space, fields)
        if let length, length > common.bodyBytesMax { throw .contentTooLarge }
        let expectsContinue = try HTTP1Framing.expectsContinue(
            space, fields: fields, knownFields: knownFields, version: .http2)
        return HTTP2Head(
            method: method,
            target: RequestTarget(
                bytes: bytes, pathRange: line.path, queryRange: line.query,
                isPathEncoded: line.isPathEncoded),
            headers: HTTPHeaders(head: bytes, fields: fields, knownFields: knownFields),
            host: host, announcedCount: length, isComplete: isComplete,
            expectsContinue: expectsContinue && !isComplete, upgrade: upgrade)
    }

    // MARK: Parts

    /// RFC 3986 3.1. Which of "http" and "https" it says is the affair of whoever ended the TLS.
    private func isScheme(_ scheme: UnsafeRawBufferPointer) -> Bool {
        scheme.isEqualIgnoringCase(to: "https") || scheme.isEqualIgnoringCase(to: "http")
    }

    /// RFC 9113 8.3.1: it begins with "/", or is "*" for OPTIONS.
    private func isPath(_ path: UnsafeRawBufferPointer, of method: UnsafeRawBufferPointer) -> Bool {
        guard let first = path.first else { return false }
        if first == 0x2F { return true }
        return first == 0x2A && path.count == 1 && method.isEqual(to: "OPTIONS")
    }

    /// Nil if there is more than one, if one is no number, or if no content follows though some is announced
    /// (RFC 9113 8.1.1).
    private func contentLength(
        _ space: UnsafeRawBufferPointer, _ fields: [HTTPHeaders.Field], _ isComplete: Bool
    ) -> Int?? {
        guard knownFields & KnownField.contentLength.bit != 0 else { return .some(nil) }
        var found: Int?
        for field in fields where field.known == .contentLength {
            guard found == nil, let length = HTTP1Framing.length(of: space.slice(field.value))
            else { return nil }
            found = length
        }
        if isComplete, found != 0 { return nil }
        return .some(found)
    }

    /// Whether a Host field says the same as `:authority` (RFC 9113 8.3.1), apart from case and a default port.
    private func agree(
        _ space: UnsafeRawBufferPointer, _ fields: [HTTPHeaders.Field], _ scheme: Range<Int>
    ) -> Bool {
        guard let authority, knownFields & KnownField.host.bit != 0 else { return true }
        let isSecure = scheme.count == 5
        let wanted = authorityWithoutDefaultPort(space.slice(authority), isSecure)
        for field in fields where field.known == .host {
            let host = authorityWithoutDefaultPort(space.slice(field.value), isSecure)
            guard host.isEqualIgnoringCase(to: wanted) else { return false }
        }
        return true
    }

    private func authorityWithoutDefaultPort(
        _ text: UnsafeRawBufferPointer, _ isSecure: Bool
    ) -> UnsafeRawBufferPointer {
        let port: StaticString = isSecure ? ":443" : ":80"
        let count = port.utf8CodeUnitCount
        guard text.count > count, text.slice(text.count - count..<text.count).isEqual(to: port)
        else { return text }
        return text.slice(0..<text.count - count)
    }

    /// From `:authority`, else from the Host field: one of them must be there and valid.
    private func host(_ space: UnsafeRawBufferPointer, _ fields: [HTTPHeaders.Field])
        throws(HTTP1Error) -> String
    {
        if let authority {
            var isSeen = false
            for field in fields where field.known == .host {
                guard !isSeen else { throw .repeatedHost }
                isSeen = true
            }
            return try HTTP1Host.parse(space.slice(authority))
        }
        return try HTTP1Host.validate(space, fields: fields, target: nil, version: .http2)
    }

    /// A client may cut its cookies apart (RFC 9113 8.2.3); handlers see them as one field again.
    private mutating func joinCookies() {
        guard cookieCount > 1 else { return }
        let start = bytes.count
        var kept: [HTTPHeaders.Field] = []
        kept.reserveCapacity(fields.count)
        var place: Int?
        for field in fields {
            guard field.known == .cookie else {
                kept.append(field)
                continue
            }
            if place == nil {
                place = kept.count
                kept.append(field)
            } else {
                bytes.append(0x3B)
                bytes.append(0x20)
            }
            bytes.append(contentsOf: bytes[field.value])
        }
        if let place {
            kept[place].valueStart = UInt32(start)
            kept[place].valueCount = UInt32(bytes.count - start)
        }
        fields = kept
    }
}
