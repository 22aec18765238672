import HCCore
import HCCrypto
import HCHTTP
import HCIO

/// What a conformance client sent, as the server understood it:
///
///     {"method":…,"target":…,"version":…,"host":…,"headers":[[name,value],…],
///      "bodyBytes":n,"bodyEncoding":"utf-8" or "base64","body":…}
///
/// The content is read to its end before the answer begins, for a client need not read while it sends; the answer
/// is then written piece by piece. A client that accepts only application/octet-stream gets its content back as it
/// is, while it comes. Trailers come back as trailers; while content is passed on, those that were announced.
@LoopActor
enum ConformanceEcho {
    static let bodyBytesMax = 50 << 20
    /// Answers up to this size are written at once, with a Content-Length.
    static let wholeBytesMax = 64 << 10
    /// Names of trailers that are taken over from a `Trailer` field.
    private static let trailersMax = 32

    static func answer(_ request: HTTPRequest) async throws -> HTTPResponse {
        if request.headers[.accept] == "application/octet-stream" { return stream(request) }
        var pieces: [[UInt8]] = []
        var count = 0
        var text = UTF8Validator()
        var isText = true
        while let piece = try await request.body.nextChunk() {
            count += piece.count
            guard count <= bodyBytesMax else { throw Problem.contentTooLarge(max: bodyBytesMax) }
            isText = isText && piece.withUnsafeBytes { text.accept($0) }
            pieces.append(piece)
        }
        isText = isText && text.isComplete
        let head = head(of: request, count: count, isText: isText)
        let trailers = request.body.trailers
        guard count > wholeBytesMax || !trailers.isEmpty else {
            var whole = head
            var encoder = EchoEncoder(isText: isText)
            for piece in pieces { encoder.append(piece, to: &whole) }
            encoder.finish(&whole)
            var response = HTTPResponse(.ok, body: .bytes(whole))
            response.headers.append(.contentType, "application/json" as StaticString)
            return response
        }
        let content = pieces
        var response = HTTPResponse(
            .ok,
            body: .stream(
                ResponseStream(trailers: names(of: trailers)) { writer in
                    try await writer.write(head)
                    var encoder = EchoEncoder(isText: isText)
                    for piece in content {
                        var encoded: [UInt8] = []
                        encoder.append(piece, to: &encoded)
                        try await writer.write(encoded)
                    }
                    var end: [UInt8] = []
                    encoder.finish(&end)
                    try await writer.write(end)
                    return trailers
                }))
        response.headers.append(.contentType, "application/json" as StaticString)
        return response
    }

    private static func stream(_ request: HTTPRequest) -> HTTPResponse {
        var response = HTTPResponse(
            .ok,
            body: .stream(
                ResponseStream(
                    count: request.body.announcedCount, trailers: announced(by: request)
                ) { writer in
                    while let piece = try await request.body.nextChunk() {
                        try await writer.write(piece)
                    }
                    return request.body.trailers
                }))
        response.headers.append(.contentType, "application/octet-stream" as StaticString)
        return response
    }

    private static func names(of trailers: HTTPHeaders) -> [HTTPFieldName] {
        var names: [HTTPFieldName] = []
        for (name, _) in trailers.pairs {
            guard let name = HTTPFieldName(name), !names.contains(name) else { continue }
            names.append(name)
        }
        return names
    }

    /// The names in the request's `Trailer` fields (RFC 9110 6.6.2).
    private static func announced(by request: HTTPRequest) -> [HTTPFieldName] {
        request.headers.elements(.trailer).prefix(trailersMax).compactMap { HTTPFieldName($0) }
    }

    /// All of the document that comes before the content.
    private static func head(of request: HTTPRequest, count: Int, isText: Bool) -> [UInt8] {
        var json = JSONWriter()
        json.beginObject()
        json.key("method")
        json.string(request.method.name)
        json.key("target")
        json.string(request.path + (request.target.rawQuery.map { "?" + $0 } ?? ""))
        json.key("version")
        json.string(request.version.text)
        json.key("host")
        json.string(request.host)
        json.key("headers")
        json.beginArray()
        for (name, value) in request.headers.pairs {
            json.beginArray()
            json.string(name)
            json.string(value)
            json.endArray()
        }
        json.endArray()
        json.key("bodyBytes")
        json.integer(count)
        json.key("bodyEncoding")
        json.string(isText ? "utf-8" : "base64")
        json.key("body")
        var head = json.finish().bytes
        head.append(UInt8(ascii: "\""))
        return head
    }
}

/// Writes the inside of a JSON string and the end of the document, piece by piece.
private struct EchoEncoder {
    let isText: Bool
    /// Bytes that do not make a group of base64 yet: at most two.
    private var carried: [UInt8] = []

    init(isText: Bool) {
        self.isText = isText
    }

    mutating func append(_ piece: [UInt8], to output: inout [UInt8]) {
        output.reserveCapacity(output.count + piece.count * 4 / 3 + 8)
        guard isText else {
            let bytes = carried + piece
            let whole = bytes.count - bytes.count % 3
            carried = Array(bytes[whole...])
            bytes.withUnsafeBytes { bytes in
                output.append(
                    contentsOf: Base64.standard.encodedBytes(
                        UnsafeRawBufferPointer(rebasing: bytes[..<whole])))
            }
            return
        }
        for byte in piece {
            switch byte {
            case UInt8(ascii: "\""), UInt8(ascii: "\\"):
                output.append(UInt8(ascii: "\\"))
                output.append(byte)
            case 0x0A: output.append(contentsOf: "\\n".utf8)
            case 0x0D: output.append(contentsOf: "\\r".utf8)
            case 0x09: output.append(contentsOf: "\\t".utf8)
            case ..<0x20:
                output.append(contentsOf: "\\u00".utf8)
                output.append(contentsOf: Hex.encode([byte]).utf8)
            default: output.append(byte)
            }
        }
    }

    mutating func finish(_ output: inout [UInt8]) {
        if !carried.isEmpty {
            output.append(contentsOf: Base64.standard.encode(carried).utf8)
            output.append(contentsOf: String(repeating: "=", count: 3 - carried.count).utf8)
        }
        output.append(contentsOf: "\"}".utf8)
    }
}
