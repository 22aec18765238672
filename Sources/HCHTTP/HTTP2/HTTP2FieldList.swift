internal import CNGHTTP2
import HCCore

/// The header fields of one answer in the form that nghttp2 takes them (nghttp2_nv), without a copy of anything:
/// names are constants or lie in the scratch memory, values stay where they are. One list serves all connections:
/// an answer's fields are encoded before the next answer is begun.
final class HTTP2FieldList {
    /// Fields that only the connection can know, or that HTTP/2 does not have (RFC 9113 8.2.2).
    private static let ownFields =
        KnownField.contentLength.bit | KnownField.transferEncoding.bit | KnownField.connection.bit
        | KnownField.keepAlive.bit | KnownField.date.bit | KnownField.xRequestId.bit
        | KnownField.upgrade.bit | KnownField.te.bit | KnownField.trailer.bit

    private static let names = LowerCaseNames()

    private var list: [nghttp2_nv] = []
    /// Status, length, request id and names that are not known: written once per answer, never moved meanwhile.
    private var scratch = UnsafeMutableRawBufferPointer.allocate(byteCount: 1024, alignment: 1)
    private var used = 0

    init() {
        list.reserveCapacity(32)
    }

    deinit {
        scratch.deallocate()
    }

    /// Lends the fields of an interim answer without fields of its own.
    func withInterim(_ status: Int, _ body: (UnsafePointer<nghttp2_nv>, Int) -> Void) {
        reset(reserving: 0)
        add(status)
        list.withUnsafeBufferPointer { list in
            if let base = list.baseAddress { body(base, list.count) }
        }
    }

    /// Lends the fields of an answer: they are good only until `body` returns.
    ///
    /// - Parameters:
    ///   - length: of the content, if the answer is to tell it.
    ///   - common: fields of every answer; what the answer has itself goes first.
    ///   - trailers: the names of the fields that may follow the content.
    func withFields(
        of response: HTTPResponse, status: Int, length: Int?, id: RequestID?, date: DateLine,
        common: HTTPHeaders, trailers: [HTTPFieldName] = [],
        _ body: (UnsafePointer<nghttp2_nv>, Int) -> Void
    ) {
        let headers = response.headers
        var otherBytes = otherNameBytes(headers) + otherNameBytes(common)
        for name in trailers { otherBytes += name.text.utf8.count + 2 }
        reset(reserving: otherBytes)
        headers.bytes.withUnsafeBytes { own in
            common.bytes.withUnsafeBytes { shared in
                date.withText { date in
                    add(status)
                    add(Self.names[.date], date)
                    for field in headers.fields where field.known.bit & Self.ownFields == 0 {
                        add(field, in: own)
                    }
                    if !trailers.isEmpty { add(trailers) }
                    if let length { add(length: length) }
                    if let id { add(id) }
                    let isApart = common.knownFields & headers.knownFields == 0
                    for (index, field) in common.fields.enumerated() {
                        guard isApart && field.known != .other || !headers.has(common, index) else {
                            continue
                        }
                        add(field, in: shared)
                    }
                    list.withUnsafeBufferPointer { list in
                        if let base = list.baseAddress { body(base, list.count) }
                    }
                }
            }
        }
    }

    /// Lends the fields of a trailer section.
    func withTrailers(_ trailers: HTTPHeaders, _ body: (UnsafePointer<nghttp2_nv>, Int) -> Void) {
        reset(reserving: otherNameBytes(trailers))
        trailers.bytes.withUnsafeBytes { bytes in
            for field in trailers.fields { add(field, in: bytes, isLent: false) }
            list.withUnsafeBufferPointer { list in
                if let base = list.baseAddress { body(base, list.count) }
            }
        }
    }

    // MARK: Details

    private func reset(reserving otherBytes: Int) {
        list.removeAll(keepingCapacity: true)
        used = 0
        let needed = otherBytes + 3 + 20 + RequestID.receivedBytesMax
        if scratch.count < needed {
            scratch.deallocate()
            scratch = .allocate(byteCount: needed, alignment: 1)
        }
    }

    private func otherNameBytes(_ headers: HTTPHeaders) -> Int {
        var count = 0
        for field in headers.fields where field.known == .other { count += Int(field.nameCount) }
        return count
    }

    private func add(_ status: Int) {
        let start = used
        put(decimal: status)
        add(Self.names.status, UnsafeRawBufferPointer(rebasing: scratch[start..<used]))
    }

    private func add(length: Int) {
        let start = used
        put(decimal: length)
        add(
            Self.names[.contentLength], UnsafeRawBufferPointer(rebasing: scratch[start..<used]))
    }

    private func add(_ id: RequestID) {
        let start = used
        used += id.write(to: UnsafeMutableRawBufferPointer(rebasing: scratch[start...]))
        // Another for each answer: it would only drive others out of the table of the encoder.
        add(
            Self.names[.xRequestId], UnsafeRawBufferPointer(rebasing: scratch[start..<used]),
            isIndexed: false)
    }

    private func add(
        _ field: HTTPHeaders.Field, in bytes: UnsafeRawBufferPointer, isLent: Bool = true
    ) {
        let value = bytes.slice(field.value)
        guard field.known == .other else {
            // A value of one user is not kept beside those of another (RFC 7541 7.1.3).
            return add(
                Self.names[field.known], value, isIndexed: field.known != .setCookie,
                isLent: isLent)
        }
        let start = used
        for byte in bytes.slice(field.name) {
            scratch[used] = ByteClass.lower(byte)
            used += 1
        }
        add(UnsafeRawBufferPointer(rebasing: scratch[start..<used]), value, isLent: isLent)
    }

    /// The names of the fields that follow the content.
    private func add(_ trailers: [HTTPFieldName]) {
        let start = used
        for (index, name) in trailers.enumerated() {
            if index > 0 { put(", ") }
            put(name.text)
        }
        add(Self.names[.trailer], UnsafeRawBufferPointer(rebasing: scratch[start..<used]))
    }

    /// - Parameter isLent: whether name and value stay where they are until they are encoded.
    private func add(
        _ name: UnsafeRawBufferPointer, _ value: UnsafeRawBufferPointer, isIndexed: Bool = true,
        isLent: Bool = true
    ) {
        var flags: UInt32 =
            isLent
            ? NGHTTP2_NV_FLAG_NO_COPY_NAME.rawValue | NGHTTP2_NV_FLAG_NO_COPY_VALUE.rawValue : 0
        if !isIndexed { flags |= NGHTTP2_NV_FLAG_NO_INDEX.rawValue }
        // nghttp2 reads only, whatever its types say.
        list.append(
            nghttp2_nv(
                name: UnsafeMutablePointer(
                    mutating: name.baseAddress?.assumingMemoryBound(to: UInt8.self)),
                value: UnsafeMutablePointer(
                    mutating: value.baseAddress?.assumingMemoryBound(to: UInt8.self)),
                namelen: name.count, valuelen: value.count, flags: UInt8(flags)))
    }

    private func put(_ text: String) {
        for byte in text.utf8 {
            scratch[used] = byte
            used += 1
        }
    }

    private func put(decimal value: Int) {
        var divisor = 1
        while value / divisor >= 10 { divisor *= 10 }
        while divisor > 0 {
            scratch[used] = 0x30 + UInt8(value / divisor % 10)
            used += 1
            divisor /= 10
        }
    }
}

/// The names of known fields as HTTP/2 spells them, in one piece of memory that is never freed.
///
/// `@unchecked Sendable`: written before anybody else can see it, and only read afterwards.
private final class LowerCaseNames: @unchecked Sendable {
    private let memory: UnsafeRawBufferPointer
    private let places: [Range<Int>]
    private let statusPlace: Range<Int>

    init() {
        var text: [UInt8] = []
        var places: [Range<Int>] = []
        for field in KnownField.allCases {
            let start = text.count
            let name = UnsafeBufferPointer(
                start: field.text.utf8Start, count: field.text.utf8CodeUnitCount)
            text.append(contentsOf: name.lazy.map { ByteClass.lower($0) })
            places.append(start..<text.count)
        }
        statusPlace = text.count..<text.count + 7
        text.append(contentsOf: ":status".utf8)
        let memory = UnsafeMutableRawBufferPointer.allocate(byteCount: text.count, alignment: 1)
        memory.copyBytes(from: text)
        self.memory = UnsafeRawBufferPointer(memory)
        self.places = places
    }

    subscript(_ field: KnownField) -> UnsafeRawBufferPointer {
        memory.slice(places[Int(field.rawValue)])
    }

    var status: UnsafeRawBufferPointer { memory.slice(statusPlace) }
}
