import HCCore
import HCHTTP

/// What must hold for any bytes whatsoever.
enum NegotiationFuzzHarness {
    /// A wish has an answer, which does not depend on how the field is split into lines, and a coding that is refused
    /// besides is never chosen.
    static func checkAcceptEncoding(_ bytes: [UInt8]) {
        // The parser of requests lets no control character into a field (RFC 9110 5.5).
        guard bytes.allSatisfy({ $0 >= 0x20 && $0 != 0x7F || $0 == 0x09 }) else { return }
        let text = String(decoding: bytes, as: UTF8.self)
        let parsed = AcceptEncoding(text)
        let lines = text.split(separator: ",", omittingEmptySubsequences: false).map {
            (HTTPFieldName.acceptEncoding, String($0))
        }
        precondition(AcceptEncoding(HTTPHeaders(lines)) == parsed, "lines are another list")
        for coding in ContentCoding.allCases {
            let refused = AcceptEncoding("\(text),\(coding.name);q=0")
            precondition(refused.choose(among: [coding]) == nil, "a refused coding is chosen")
            if let chosen = parsed.choose(among: [coding]) {
                precondition(chosen == coding, "a coding that was not offered")
            }
        }
        if parsed.choose() != nil {
            precondition(
                ContentCoding.allCases.contains { parsed.choose(among: [$0]) != nil },
                "chosen of all and of none")
        }
        precondition(
            AcceptEncoding("\(text),identity;q=0").refusesIdentity, "identity is not refused")
    }

    /// An origin that is read is written the same, and has nothing in it but scheme, host and port.
    static func checkOrigin(_ bytes: [UInt8]) {
        let text = String(decoding: bytes, as: UTF8.self)
        if let origin = WebOrigin(field: text) {
            precondition(origin.text == text, "an origin in another form")
            let allowed = Set("abcdefghijklmnopqrstuvwxyz0123456789.-:/[]".utf8)
            precondition(text.utf8.allSatisfy(allowed.contains), "a character of no origin")
        }
        guard let written = try? WebOrigin(written: text) else { return }
        precondition(WebOrigin(field: written.text) == written, "not in the one form")
        precondition(written.text.utf8.count <= WebOrigin.bytesMax, "longer than an origin")
    }

    /// Taking endings off changes nothing but quoted text, and what was put on comes off.
    static func checkTags(_ bytes: [UInt8]) {
        let text = String(decoding: bytes, as: UTF8.self)
        let uncoded = EntityTags.uncoded(text)
        precondition(uncoded.utf8.count <= text.utf8.count, "longer without endings")
        precondition(
            uncoded.utf8.count { $0 == 0x22 } == text.utf8.count { $0 == 0x22 }, "a quote is lost")
        for coding in ContentCoding.allCases {
            let tag = EntityTags.coded("\"v5\"", coding)
            precondition(EntityTags.uncoded(tag) == "\"v5\"", "an ending that does not come off")
            _ = EntityTags.isListed(tag, in: text)
        }
    }

    /// Parts lie in the content and apart from each other, whatever is asked for; each range of a list is in the parts of
    /// the list.
    static func checkRanges(_ bytes: [UInt8]) {
        guard let size = bytes.first.map({ Int($0) * 7 }) else { return }
        let text = String(decoding: bytes.dropFirst(), as: UTF8.self)
        guard case .parts(let parts) = ByteRanges.choose(text, of: size) else { return }
        precondition((1...ByteRanges.rangesMax).contains(parts.count), "too many parts")
        let sorted = parts.sorted { $0.lowerBound < $1.lowerBound }
        for part in sorted {
            precondition(!part.isEmpty, "a part of nothing")
            precondition(part.lowerBound >= 0 && part.upperBound <= size, "beyond the content")
        }
        for (one, next) in zip(sorted, sorted.dropFirst()) {
            precondition(
                next.lowerBound - one.upperBound > ByteRanges.gapBytesMax, "two parts in one place")
        }
        for element in text.dropFirst("bytes=".count).split(separator: ",") {
            guard case .parts(let alone) = ByteRanges.choose("bytes=\(element)", of: size) else {
                continue
            }
            precondition(
                alone.allSatisfy { range in
                    parts.contains { $0.clamped(to: range) == range }
                }, "a range that is asked for is missing")
        }
    }

    /// A trace that is taken is written as it came, but for flags that nobody knows.
    static func checkTrace(_ bytes: [UInt8]) {
        let text = String(decoding: bytes, as: UTF8.self)
        guard let trace = TraceContext(traceparent: text) else { return }
        let digits = Set("0123456789abcdef".utf8)
        for (id, count) in [(trace.traceID, 32), (trace.parentID, 16)] {
            precondition(id.utf8.count == count && id.utf8.allSatisfy(digits.contains), "no id")
            precondition(id.utf8.contains { $0 != 0x30 }, "an id that is invalid")
        }
        let written = "00-\(trace.traceID)-\(trace.parentID)-\(trace.isSampled ? "01" : "00")"
        precondition(TraceContext(traceparent: written) == trace, "another trace")
        precondition(
            text.dropFirst(3).hasPrefix(written.dropFirst(3).dropLast(2)), "other ids")
    }

    /// However long somebody tells us to wait, it can be added to the time.
    static func checkRetryAfter(_ bytes: [UInt8]) {
        let now = Timestamp(seconds: 1_900_000_000)
        let text = String(decoding: bytes, as: UTF8.self)
        guard let wait = RetryAfter.parse(text, now: now) else { return }
        precondition(wait >= .zero, "a wait into the past")
        precondition(now + wait <= .last + .seconds(1), "a wait beyond the calendar")
    }

    /// A head is as large as is allowed and no larger, and has no field that could not be sent on.
    static func checkHead(_ bytes: [UInt8]) {
        let bytesMax = 256
        var receiver = HeadReceiver(bytesMax: bytesMax)
        var given = 0
        for line in bytes.split(separator: 0x0A, omittingEmptySubsequences: false) {
            given += line.count + 1
            let head: OutboundHead?
            do throws(HTTPClientError) {
                head = try (Array(line) + [0x0A]).withUnsafeBufferPointer {
                    line throws(HTTPClientError) in
                    try receiver.receive(UnsafeRawBufferPointer(line))
                }
            } catch {
                return precondition(error != .tooLarge(.head) || given > bytesMax, "refused early")
            }
            precondition(given <= bytesMax, "larger than is allowed")
            guard let head else { continue }
            precondition((200...599).contains(head.status.code), "no status of an answer")
            for (name, value) in head.headers.pairs {
                precondition(HTTPFieldName(name) != nil, "a field without a proper name")
                precondition(!value.utf8.contains(0x0A), "a value of two lines")
            }
            return
        }
    }

    /// Whole or cut, the decoder comes to the same result, gives no piece above its bound, and, with a bound on the
    /// ratio, no more in all than that allows. (Exactly when that is passed depends on the cuts.)
    static func checkGzip(_ bytes: [UInt8], seed: UInt8) {
        var limits = ContentDecodingLimits()
        limits.pieceBytesMax = 512
        limits.ratioMax = 1 << 20
        let whole = decode([bytes], limits)
        let bytewise = decode(bytes.map { [$0] }, limits)
        precondition(whole == bytewise, "fed byte by byte, the result is another")
        var pieces: [[UInt8]] = []
        var rest = bytes[...]
        let step = 1 + Int(seed) % 61
        while !rest.isEmpty {
            pieces.append(Array(rest.prefix(step)))
            rest = rest.dropFirst(step)
        }
        precondition(decode(pieces, limits) == whole, "fed in pieces, the result is another")
        limits.ratioFreeBytes = 4096
        limits.ratioMax = 20
        _ = decode(pieces, limits)
    }

    private struct Outcome: Equatable {
        var content: [UInt8] = []
        var error: ContentDecodingError?
    }

    private static func decode(_ pieces: [[UInt8]], _ limits: ContentDecodingLimits) -> Outcome {
        var outcome = Outcome()
        var given = 0
        do throws(ContentDecodingError) {
            let decoder = try GzipDecoder(limits)
            for piece in pieces {
                decoder.receive(piece)
                given += piece.count
                while let made = try decoder.next() {
                    precondition(made.count <= limits.pieceBytesMax, "a piece above its bound")
                    outcome.content += made
                    precondition(
                        outcome.content.count <= limits.ratioFreeBytes
                            || outcome.content.count <= given * limits.ratioMax,
                        "more than the ratio allows")
                }
            }
            try decoder.finish()
        } catch {
            // How much came out before a refusal depends on the cuts; that it was refused does not.
            outcome.content = []
            outcome.error = error
        }
        return outcome
    }
}
