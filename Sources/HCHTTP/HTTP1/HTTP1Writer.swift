import HCCore

/// Writes the heads of answers and the frames of chunks (RFC 9112 4, 7.1).
enum HTTP1Writer {
    static let continueHead: StaticString = "HTTP/1.1 100 Continue\r\n\r\n"
    private static let lastChunk: StaticString = "0\r\n"

    /// Fields that only the connection can know; a handler's are not sent.
    private static let ownFields =
        KnownField.contentLength.bit | KnownField.transferEncoding.bit | KnownField.connection.bit
        | KnownField.keepAlive.bit | KnownField.date.bit | KnownField.xRequestId.bit
        | KnownField.upgrade.bit | KnownField.te.bit | KnownField.trailer.bit

    /// - Parameters:
    ///   - trailers: the names of the fields that may follow the content.
    static func writeHead(
        _ response: HTTPResponse, _ plan: HTTP1ConnectionMachine.AnswerPlan,
        trailers: [HTTPFieldName], id: RequestID?, date: DateLine, common: HTTPHeaders,
        into output: inout [UInt8]
    ) {
        // The closures below know the status only: one that refers to the answer has a copy of it made.
        let status = response.status
        let reason = status.reason
        output.append(addingCapacity: reason.utf8CodeUnitCount + 32) { line in
            line.append("HTTP/1.1 ")
            line.append(decimal: status.code)
            line.append(0x20)
            line.append(reason)
            line.append("\r\n")
        }
        date.withLine { output.append(contentsOf: $0) }
        if response.headers.knownFields & ownFields == 0 {
            response.headers.write(into: &output)
        } else {
            withoutOwnFields(response.headers).write(into: &output)
        }
        if !trailers.isEmpty {
            output.append("Trailer: ")
            output.append(
                contentsOf: trailers.map(\.text).joined(separator: ", ").utf8)
            output.append("\r\n")
        }
        output.append(addingCapacity: ownBytesMax) { lines in
            write(plan, isUpgradeRequired: status == .upgradeRequired, to: &lines)
            if let id {
                lines.append("X-Request-Id: ")
                lines.append(upTo: RequestID.receivedBytesMax) { id.write(to: $0) }
                lines.append("\r\n")
            }
        }
        common.write(into: &output, unlessIn: response.headers)
        output.append("\r\n")
    }

    /// The longest of each of the lines that are written together: framing, connection, protocol and id.
    private static let ownBytesMax = 40 + 32 + 24 + 16 + RequestID.receivedBytesMax

    private static func write(
        _ plan: HTTP1ConnectionMachine.AnswerPlan, isUpgradeRequired: Bool,
        to lines: inout OutputSpan<UInt8>
    ) {
        switch plan.framing {
        case .none, .untilClose: break
        case .length(let count):
            lines.append("Content-Length: ")
            lines.append(decimal: count)
            lines.append("\r\n")
        case .chunked: lines.append("Transfer-Encoding: chunked\r\n")
        }
        // 426 names what it asks for (RFC 9110 15.5.22), and there is one protocol that we switch to.
        switch plan.connectionField {
        case .none: if isUpgradeRequired { lines.append("Connection: Upgrade\r\n") }
        case .close:
            lines.append(
                isUpgradeRequired ? "Connection: Upgrade, close\r\n" : "Connection: close\r\n")
        case .keepAlive: lines.append("Connection: keep-alive\r\n")
        case .upgrade: lines.append("Connection: Upgrade\r\n")
        }
        if isUpgradeRequired || plan.connectionField == .upgrade {
            lines.append("Upgrade: websocket\r\n")
        }
    }

    private static func withoutOwnFields(_ headers: HTTPHeaders) -> HTTPHeaders {
        var headers = headers
        for name in [
            HTTPFieldName.contentLength, .transferEncoding, .connection, .keepAlive, .date,
            .xRequestId, .upgrade, .te, .trailer,
        ] {
            headers.remove(name)
        }
        return headers
    }

    /// "size CRLF bytes CRLF"; nothing for no bytes, which would end the content.
    static func writeChunk(_ bytes: [UInt8], into output: inout [UInt8]) {
        guard !bytes.isEmpty else { return }
        output.append(hex: bytes.count)
        output.append("\r\n")
        output.append(contentsOf: bytes)
        output.append("\r\n")
    }

    /// The chunk of size 0 and the trailer section (RFC 9112 7.1.2).
    static func writeLastChunk(_ trailers: HTTPHeaders, into output: inout [UInt8]) {
        output.append(lastChunk)
        trailers.write(into: &output)
        output.append("\r\n")
    }
}

extension [UInt8] {
    /// As `append(contentsOf:)`, which is given an array to keep and so has it counted.
    mutating func append(bytes: [UInt8]) {
        bytes.withUnsafeBytes { append(contentsOf: $0) }
    }

    mutating func append(_ text: StaticString) {
        append(
            contentsOf: UnsafeBufferPointer(start: text.utf8Start, count: text.utf8CodeUnitCount))
    }

    mutating func append(hex value: Int) {
        precondition(value >= 0, "a chunk size")
        var shift = Swift.max(0, (UInt64.bitWidth - 1 - UInt64(value).leadingZeroBitCount) / 4 * 4)
        if value == 0 { shift = 0 }
        while shift >= 0 {
            let digit = UInt8(truncatingIfNeeded: value >> shift) & 15
            append(digit < 10 ? 0x30 + digit : 0x57 + digit)
            shift -= 4
        }
    }
}
