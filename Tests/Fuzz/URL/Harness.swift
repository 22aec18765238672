import CCurl
import CLinux
import HCHTTP
import HCIO

/// What must hold for any text whatsoever.
enum URLFuzzHarness {
    private static let guarded = GuardRules(
        ports: Set(1...UInt16.max), allowsPlainHTTP: true, exceptions: [])

    /// - Precondition: what is said about the parser and the guard is true; else the process ends here.
    static func check(_ text: String, location: String?) {
        guard let url = accepted(text) else { return }
        check(url)
        // Whoever reads the text itself must not come to another place.
        if let lenient = LenientURL(text) {
            precondition(lenient.agrees(with: url), "curl reads the text in another way")
        }
        guard let location else { return }
        do {
            check(try url.resolving(location: location))
        } catch {
            return
        }
    }

    private static func accepted(_ text: String) -> OutboundURL? {
        do { return try OutboundURL(text) } catch { return nil }
    }

    private static func check(_ url: OutboundURL) {
        precondition(url.text.utf8.allSatisfy { (0x21...0x7E).contains($0) }, "not printable")
        precondition(accepted(url.text) == url, "the one spelling is not the one spelling")
        guard let lenient = LenientURL(url.text) else {
            preconditionFailure("curl does not take the one spelling")
        }
        precondition(lenient.agrees(with: url), "curl reads the one spelling in another way")
        precondition(lenient.path == url.path && lenient.query == url.query, "another target")

        let host = lenient.host
        switch url.host {
        case .name:
            var address = in_addr()
            precondition(inet_aton(host, &address) == 0, "the C library reads an address")
        case .address: break
        }
        do {
            try guarded.check(url)
        } catch {
            return
        }
        if case .address = url.host {
            precondition(IndependentJudge.isPublic(host), "the guard lets through \(host)")
        }
    }
}

/// A URL as libcurl reads it (curl_url).
private struct LenientURL {
    let scheme: String
    let host: String
    let port: String
    let path: String
    let query: String?

    init?(_ text: String) {
        guard let handle = curl_url() else { preconditionFailure("out of memory") }
        defer { curl_url_cleanup(handle) }
        let flags = UInt32(CURLU_PATH_AS_IS | CURLU_DISALLOW_USER)
        guard curl_url_set(handle, CURLUPART_URL, text, flags) == CURLUE_OK,
            let scheme = LenientURL.part(handle, CURLUPART_SCHEME),
            let host = LenientURL.part(handle, CURLUPART_HOST),
            let port = LenientURL.part(handle, CURLUPART_PORT, UInt32(CURLU_DEFAULT_PORT)),
            let path = LenientURL.part(handle, CURLUPART_PATH)
        else { return nil }
        self.scheme = scheme
        self.host = host
        self.port = port
        self.path = path
        query = LenientURL.part(handle, CURLUPART_QUERY)
    }

    private static func part(
        _ handle: OpaquePointer, _ part: CURLUPart, _ flags: UInt32 = 0
    ) -> String? {
        var text: UnsafeMutablePointer<CChar>?
        guard curl_url_get(handle, part, &text, flags) == CURLUE_OK, let text else { return nil }
        defer { curl_free(text) }
        return String(cString: text)
    }

    func agrees(with url: OutboundURL) -> Bool {
        guard scheme.lowercased() == url.scheme.rawValue, port == String(url.port) else {
            return false
        }
        // An IPv6 address has many spellings: they are compared as numbers.
        guard host.hasPrefix("[") else { return host.lowercased() == url.hostText }
        return IndependentJudge.octets(host) == IndependentJudge.octets(url.hostText)
    }
}

/// Tells public addresses from all others, from the octets and by nothing that the guard uses.
private enum IndependentJudge {
    static func octets(_ host: String) -> [UInt8] {
        let text = host.hasPrefix("[") ? String(host.dropFirst().dropLast()) : host
        var octets = [UInt8](repeating: 0, count: 16)
        if inet_pton(AF_INET6, text, &octets) == 1 { return octets }
        var address = in_addr()
        // The lenient reader, so that no odd spelling passes for something else.
        guard inet_aton(text, &address) != 0 else { return [] }
        return withUnsafeBytes(of: address.s_addr) { Array($0) }
    }

    static func isPublic(_ host: String) -> Bool {
        let octets = octets(host)
        return octets.count == 4 ? isPublic4(octets[...]) : octets.count == 16 && isPublic6(octets)
    }

    private static func isPublic4(_ o: ArraySlice<UInt8>) -> Bool {
        let (a, b, c) = (o[o.startIndex], o[o.startIndex + 1], o[o.startIndex + 2])
        if a == 0 || a == 10 || a == 127 || a >= 224 { return false }
        if a == 100 { return b < 64 || b > 127 }
        if a == 169 { return b != 254 }
        if a == 172 { return b < 16 || b > 31 }
        if a == 192 { return b != 168 && !(b == 0 && (c == 0 || c == 2)) && !(b == 88 && c == 99) }
        if a == 198 { return b != 18 && b != 19 && !(b == 51 && c == 100) }
        if a == 203 { return !(b == 0 && c == 113) }
        return true
    }

    private static func isPublic6(_ o: [UInt8]) -> Bool {
        if o.starts(with: [0, 0x64, 0xFF, 0x9B, 0, 0, 0, 0, 0, 0, 0, 0]) {
            return isPublic4(o[12...])
        }
        if o[0] & 0xE0 != 0x20 { return false }
        if o[0] == 0x20, o[1] == 0x01 {
            if o[2] < 2 { return false }
            if o[2] == 0x0D, o[3] == 0xB8 { return false }
        }
        if o[0] == 0x20, o[1] == 0x02 { return false }
        if o[0] == 0x3F, o[1] == 0xFF, o[2] < 0x10 { return false }
        // An interface identifier of ISATAP.
        if o[8] & 0xFD == 0, o[9] == 0, o[10] == 0x5E, o[11] == 0xFE { return isPublic4(o[12...]) }
        return true
    }
}
