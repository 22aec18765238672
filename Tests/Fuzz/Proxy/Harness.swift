import HCHTTP
import HCIO

/// What must hold for any bytes whatsoever.
enum ProxyFuzzHarness {
    // MARK: The PROXY protocol's header

    private enum Outcome: Equatable {
        case more
        case header(ProxyHeader)
        case failure(ProxyHeader.Failure)

        init(_ bytes: ArraySlice<UInt8>) {
            do throws(ProxyHeader.Failure) {
                let header = try bytes.withUnsafeBufferPointer {
                    input throws(ProxyHeader.Failure) in
                    try ProxyHeader(UnsafeRawBufferPointer(input))
                }
                self = header.map { .header($0) } ?? .more
            } catch {
                self = .failure(error)
            }
        }
    }

    /// - Precondition: what is said about the header is true; else the process ends here.
    static func checkHeader(_ bytes: [UInt8]) {
        let whole = Outcome(bytes[...])
        switch whole {
        case .more:
            precondition(bytes.count < ProxyHeader.Limits.bytesMax, "waits beyond its limit")
        case .header(let header):
            precondition(header.byteCount <= bytes.count, "longer than what there is")
            precondition(header.byteCount <= ProxyHeader.Limits.bytesMax, "longer than its limit")
            precondition(
                Outcome(bytes[..<header.byteCount]) == whole, "what follows changes the header")
        case .failure: break
        }
        // Fed in pieces it comes to the same, and to nothing before.
        for count in 0..<min(bytes.count, 300) {
            let part = Outcome(bytes[..<count])
            precondition(part == .more || part == whole, "cut after \(count) it is another")
            if case .header(let header) = whole, count < header.byteCount {
                precondition(part == .more, "complete before its end")
            }
        }
    }

    // MARK: Forwarded and X-Forwarded-*

    private static let proxy = SocketAddress.ipv4(address: 0x0A00_0001, port: 443)
    private static let client = SocketAddress.ipv4(address: 0xC000_024D, port: 0)
    private static let trusted = TrustedProxies([AddressBlock("10.0.0.0/8")].compactMap { $0 })

    /// Each line is one field: its first letter says which.
    static func checkFields(_ bytes: [UInt8]) {
        var headers = HTTPHeaders()
        var addressesOnly = HTTPHeaders()
        var forwardedOnly = HTTPHeaders()
        for line in bytes.split(separator: 0x0A).prefix(64) {
            let value = String(decoding: line.dropFirst(), as: UTF8.self)
            switch line.first {
            case UInt8(ascii: "F"):
                headers.append(.forwarded, value)
                forwardedOnly.append(.forwarded, value)
            case UInt8(ascii: "A"):
                headers.append(.xForwardedFor, value)
                addressesOnly.append(.xForwardedFor, value)
            case UInt8(ascii: "P"): headers.append(.xForwardedProto, value)
            default: headers.append(.xForwardedHost, value)
            }
        }
        // From a stranger the fields mean nothing.
        guard let fromStranger = origin(headers, from: client) else {
            preconditionFailure("a stranger's fields were looked at")
        }
        precondition(fromStranger.address == client, "a stranger chose an address")
        precondition(
            !fromStranger.isSecure && fromStranger.host == "front", "a stranger was believed")

        // From a proxy they mean something valid, or are refused.
        if let found = origin(headers, from: proxy) {
            precondition(found.address == found.address.unmapped, "two forms of one address")
            precondition(
                found.host.utf8.allSatisfy {
                    (0x21...0x7E).contains($0) && $0 != 0x2F && $0 != 0x40
                }
                    && !found.host.isEmpty, "no host")
        }

        // Whatever a client wrote: the address that our proxy adds to it is the client's.
        addressesOnly.append(.xForwardedFor, "192.0.2.77")
        precondition(
            origin(addressesOnly, from: proxy)?.address == client, "the left end was believed")
        let lines = bytes.split(separator: 0x0A)
        let text = lines.filter { $0.first == UInt8(ascii: "F") }.map {
            String(decoding: $0.dropFirst(), as: UTF8.self)
        }.joined(separator: ", ")
        var appended = HTTPHeaders()
        appended.append(.forwarded, text + ", for=\"192.0.2.77\";by=\"10.0.0.1\"")
        if let found = origin(appended, from: proxy) {
            precondition(found.address == client, "a quotation mark swallowed our proxy's word")
        }
    }

    private static func origin(_ headers: HTTPHeaders, from peer: SocketAddress) -> RequestOrigin? {
        do throws(ForwardedError) {
            return try RequestOrigin(
                headers, host: "front",
                on: ConnectionOrigin(peer, isSecure: false, trusted: trusted), trusted: trusted)
        } catch {
            return nil
        }
    }
}
