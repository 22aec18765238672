@testable import HCHTTP

/// What the parser makes of bytes, in a form that does not depend on how they were cut.
struct ParserTranscript: Equatable, CustomStringConvertible {
    var events: [String] = []
    var error: HTTP1Error?
    /// The most that had to be kept between two pieces.
    var keptBytesMax = 0

    var description: String { "\(events) \(error.map(\.rawValue) ?? "ok")" }

    static func == (left: ParserTranscript, right: ParserTranscript) -> Bool {
        left.events == right.events && left.error == right.error
    }

    /// Feeds `bytes` cut at `cuts`, as a connection does: what is not consumed is given again.
    init(_ bytes: [UInt8], cuts: [Int] = [], limits: HTTP1Limits = HTTP1Limits()) {
        var parser = HTTP1Parser(limits: limits)
        var kept: [UInt8] = []
        var content: [UInt8] = []
        var start = 0
        for cut in cuts.sorted() + [bytes.count] {
            kept.append(contentsOf: bytes[start..<cut])
            start = cut
            var consumed = 0
            let more = kept.withUnsafeBytes { input in
                take(&parser, input, &consumed, &content)
            }
            kept.removeFirst(consumed)
            keptBytesMax = max(keptBytesMax, kept.count)
            if !more { return }
        }
        if !content.isEmpty { events.append("content \(String(decoding: content, as: UTF8.self))") }
    }

    init(_ text: String, cuts: [Int] = [], limits: HTTP1Limits = HTTP1Limits()) {
        self.init(Array(text.utf8), cuts: cuts, limits: limits)
    }

    private mutating func take(
        _ parser: inout HTTP1Parser, _ input: UnsafeRawBufferPointer, _ consumed: inout Int,
        _ content: inout [UInt8]
    ) -> Bool {
        do throws(HTTP1Error) {
            while true {
                switch try parser.next(input, consumed: &consumed) {
                case .needMore: return true
                case .head(let head):
                    let lines = head.headers.pairs.map { "\($0.name)=\($0.value)" }
                    let query = head.target.rawQuery.map { "?" + $0 } ?? ""
                    events.append(
                        "\(head.method.name) \(head.host) \(head.target.path)\(query) "
                            + "\(head.version.text) \(lines.joined(separator: "|"))"
                            + (head.keepAlive ? "" : " close")
                            + (head.expectsContinue ? " expects" : ""))
                case .content(let range): content.append(contentsOf: input[range])
                case .end(let trailers):
                    if !content.isEmpty {
                        events.append("content \(String(decoding: content, as: UTF8.self))")
                        content = []
                    }
                    let lines = trailers.pairs.map { "\($0.name)=\($0.value)" }
                    events.append("end \(lines.joined(separator: "|"))")
                }
            }
        } catch {
            self.error = error
            return false
        }
    }
}
