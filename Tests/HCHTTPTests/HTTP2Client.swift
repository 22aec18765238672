import CNGHTTP2
import HCCore
import HCIO

@testable import HCHTTP

/// A client that sends exactly the frames it is told to, over a real socket.
@LoopActor
final class HTTP2Client {
    let raw: RawClient

    struct Answer {
        var interim: [String] = []
        var fields: [(String, String)] = []
        var content: [UInt8] = []
        var trailers: [(String, String)] = []
        var isComplete = false
        var resetCode: HTTP2ErrorCode?

        var status: String? { value(":status") }
        var text: String { String(decoding: content, as: UTF8.self) }
        func value(_ name: String) -> String? { fields.first { $0.0 == name }?.1 }
    }

    private init(_ raw: RawClient) {
        self.raw = raw
    }

    static func connect(_ fixture: ServerFixture, _ opening: FrameBuilder = .opening) async throws
        -> HTTP2Client
    {
        let client = HTTP2Client(try await fixture.connect())
        client.send(opening)
        return client
    }

    func send(_ builder: FrameBuilder) { raw.send(builder.bytes) }

    func send(_ write: (inout FrameBuilder) -> Void) {
        var builder = FrameBuilder()
        write(&builder)
        send(builder)
    }

    var frames: [Frame] { Frame.parse(raw.received) }

    func wait(_ isMet: @escaping @LoopActor ([Frame]) -> Bool) async throws {
        try await raw.wait { isMet(Frame.parse($0.received)) }
    }

    /// Waits until so many streams were ended by the server, and gives what each got.
    @discardableResult
    func answers(_ count: Int = 1) async throws -> [UInt32: Answer] {
        try await wait { frames in
            Set(frames.filter { $0.endsStream || $0.type == 3 }.map(\.stream)).count >= count
        }
        return answers
    }

    func answer(_ stream: UInt32 = 1) async throws -> Answer {
        try await wait { frames in
            frames.contains { $0.stream == stream && ($0.endsStream || $0.type == 3) }
        }
        return answers[stream] ?? Answer()
    }

    /// What every stream has got so far. All blocks are decoded in order, for they share a table.
    var answers: [UInt32: Answer] {
        let decoder = FieldDecoder()
        var found: [UInt32: Answer] = [:]
        for frame in frames {
            switch frame.type {
            case 0: found[frame.stream, default: Answer()].content += frame.payload
            case 1:
                let fields = decoder.decode(frame.payload)
                let status = fields.first?.1 ?? ""
                if found[frame.stream]?.fields.isEmpty == false {
                    found[frame.stream]?.trailers = fields
                } else if status.hasPrefix("1") {
                    found[frame.stream, default: Answer()].interim.append(status)
                } else {
                    found[frame.stream, default: Answer()].fields = fields
                }
            case 3:
                found[frame.stream, default: Answer()].resetCode = HTTP2ErrorCode(
                    rawValue: frame.resetCode)
            default: break
            }
            if frame.endsStream { found[frame.stream, default: Answer()].isComplete = true }
        }
        return found
    }

    var goaways: [Frame] { frames.filter { $0.type == 7 } }
    func close() { raw.close() }
}

/// HPACK as nghttp2 decodes it.
final class FieldDecoder {
    private let inflater: OpaquePointer

    init() {
        var made: OpaquePointer?
        guard nghttp2_hd_inflate_new(&made) == 0, let made else { preconditionFailure("memory") }
        inflater = made
    }

    deinit { nghttp2_hd_inflate_del(inflater) }

    func decode(_ block: [UInt8]) -> [(String, String)] {
        var found: [(String, String)] = []
        var rest = block[...]
        while true {
            var field = nghttp2_nv()
            var flags: Int32 = 0
            let used = rest.withUnsafeBufferPointer {
                nghttp2_hd_inflate_hd2(inflater, &field, &flags, $0.baseAddress, $0.count, 1)
            }
            precondition(used >= 0, "the server's own fields cannot be decoded")
            rest = rest.dropFirst(used)
            if flags & Int32(NGHTTP2_HD_INFLATE_EMIT.rawValue) != 0 {
                found.append(
                    (
                        String(
                            decoding: UnsafeBufferPointer(start: field.name, count: field.namelen),
                            as: UTF8.self),
                        String(
                            decoding: UnsafeBufferPointer(
                                start: field.value, count: field.valuelen), as: UTF8.self)
                    ))
            }
            if flags & Int32(NGHTTP2_HD_INFLATE_FINAL.rawValue) != 0 {
                nghttp2_hd_inflate_end_headers(inflater)
                return found
            }
            if rest.isEmpty, flags & Int32(NGHTTP2_HD_INFLATE_EMIT.rawValue) == 0 { return found }
        }
    }
}
