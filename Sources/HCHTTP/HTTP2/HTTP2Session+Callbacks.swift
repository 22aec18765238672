internal import CNGHTTP2

/// nghttp2's callbacks and options, the same for all sessions: made once, never freed.
///
/// `@unchecked Sendable`: both are only read after this is made (nghttp2_session_server_new2 copies them).
final class HTTP2Library: @unchecked Sendable {
    static let shared = HTTP2Library()

    let callbacks: OpaquePointer
    let options: OpaquePointer

    private init() {
        callbacks = HTTP2Library.makeCallbacks()
        options = HTTP2Library.makeOptions()
    }

    private static func makeOptions() -> OpaquePointer {
        var made: OpaquePointer?
        guard nghttp2_option_new(&made) == 0, let made else { preconditionFailure("no memory") }
        // The window is opened when content was taken, not when it came.
        nghttp2_option_set_no_auto_window_update(made, 1)
        // The rules of requests are our own: `HTTP2HeaderBlock`.
        nghttp2_option_set_no_http_messaging(made, 1)
        nghttp2_option_set_no_closed_streams(made, 1)
        // Budgets of nghttp2 that come after ours: they end a session without a word, one reads the clock itself,
        // and CONTINUATION is counted by how the bytes are cut.
        nghttp2_option_set_max_continuations(made, Int.max)
        nghttp2_option_set_stream_reset_rate_limit(made, 1 << 40, 1 << 20)
        return made
    }

    private static func makeCallbacks() -> OpaquePointer {
        var made: OpaquePointer?
        guard nghttp2_session_callbacks_new(&made) == 0, let made else {
            preconditionFailure("no memory")
        }
        nghttp2_session_callbacks_set_on_begin_frame_callback(made) { _, head, owner in
            guard let head else { return 0 }
            HTTP2Library.session(owner).beganFrame(head.pointee.type)
            return 0
        }
        nghttp2_session_callbacks_set_on_begin_headers_callback(made) { _, frame, owner in
            guard let frame else { return 0 }
            HTTP2Library.session(owner).beganBlock(
                frame.pointee.hd.stream_id,
                isRequest: frame.pointee.headers.cat == NGHTTP2_HCAT_REQUEST)
            return 0
        }
        nghttp2_session_callbacks_set_on_header_callback(made) {
            _, _, name, nameCount, value, valueCount, _, owner in
            HTTP2Library.session(owner).received(
                name: UnsafeRawBufferPointer(start: name, count: nameCount),
                value: UnsafeRawBufferPointer(start: value, count: valueCount))
            return 0
        }
        nghttp2_session_callbacks_set_on_data_chunk_recv_callback(made) {
            _, _, streamID, data, count, owner in
            HTTP2Library.session(owner).received(
                streamID, UnsafeRawBufferPointer(start: data, count: count))
            return 0
        }
        nghttp2_session_callbacks_set_on_frame_recv_callback(made) { _, frame, owner in
            guard let frame else { return 0 }
            HTTP2Library.received(frame, HTTP2Library.session(owner))
            return 0
        }
        nghttp2_session_callbacks_set_on_frame_send_callback(made) { _, frame, owner in
            guard let frame else { return 0 }
            let head = frame.pointee.hd
            var code: UInt32 = 0
            if head.type == UInt8(NGHTTP2_GOAWAY.rawValue) {
                code = frame.pointee.goaway.error_code
            } else if head.type == UInt8(NGHTTP2_RST_STREAM.rawValue) {
                code = frame.pointee.rst_stream.error_code
            }
            HTTP2Library.session(owner).sent(
                type: head.type, streamID: head.stream_id, flags: head.flags, code: code)
            return 0
        }
        nghttp2_session_callbacks_set_on_frame_not_send_callback(made) { _, frame, _, owner in
            guard let frame else { return 0 }
            HTTP2Library.session(owner).notSent(
                type: frame.pointee.hd.type, streamID: frame.pointee.hd.stream_id)
            return 0
        }
        nghttp2_session_callbacks_set_on_stream_close_callback(made) { _, streamID, _, owner in
            HTTP2Library.session(owner).closed(streamID)
            return 0
        }
        nghttp2_session_callbacks_set_send_data_callback(made) {
            _, _, head, count, source, owner in
            guard let head, let source else { return 0 }
            let goesOn = HTTP2Library.session(owner).writeFrame(
                Int(source.pointee.fd), UnsafeRawBufferPointer(start: head, count: 9), count)
            return goesOn ? 0 : NGHTTP2_ERR_PAUSE.rawValue
        }
        return made
    }

    private static func received(_ frame: UnsafePointer<nghttp2_frame>, _ session: HTTP2Session) {
        let head = frame.pointee.hd
        let isAcknowledgement = head.flags & UInt8(NGHTTP2_FLAG_ACK.rawValue) != 0
        let endsStream = head.flags & UInt8(NGHTTP2_FLAG_END_STREAM.rawValue) != 0
        switch nghttp2_frame_type(UInt32(head.type)) {
        case NGHTTP2_HEADERS: session.completedBlock(head.stream_id, endsStream: endsStream)
        case NGHTTP2_DATA: if endsStream { session.endedData(head.stream_id) }
        case NGHTTP2_RST_STREAM: session.receivedReset(head.stream_id)
        case NGHTTP2_SETTINGS: session.receivedSettings(isAcknowledgement: isAcknowledgement)
        case NGHTTP2_PING:
            let opaque = withUnsafeBytes(of: frame.pointee.ping.opaque_data) {
                $0.loadUnaligned(as: UInt64.self)
            }
            session.receivedPing(isAcknowledgement: isAcknowledgement, opaque)
        case NGHTTP2_GOAWAY: session.receivedGoaway()
        default: break
        }
    }

    /// The pointer that a session gave to nghttp2 when it was made. The session is alive: callbacks come only from
    /// within its own calls.
    private static func session(_ owner: UnsafeMutableRawPointer?) -> HTTP2Session {
        guard let owner else { preconditionFailure("a callback without its session") }
        return Unmanaged<HTTP2Session>.fromOpaque(owner).takeUnretainedValue()
    }
}

/// Says how much content goes into the next DATA frame. The bytes are written by `send_data_callback`, straight
/// into the output (NGHTTP2_DATA_FLAG_NO_COPY).
let readHTTP2Content: nghttp2_data_source_read_callback = { _, _, _, max, flags, source, owner in
    guard let owner, let source, let flags else { return 0 }
    let session = Unmanaged<HTTP2Session>.fromOpaque(owner).takeUnretainedValue()
    guard let plan = session.plan(Int(source.pointee.fd), upTo: max) else {
        return Int(NGHTTP2_ERR_DEFERRED.rawValue)
    }
    flags.pointee |= UInt32(NGHTTP2_DATA_FLAG_NO_COPY.rawValue)
    if plan.isLast { flags.pointee |= UInt32(NGHTTP2_DATA_FLAG_EOF.rawValue) }
    if plan.isFollowed { flags.pointee |= UInt32(NGHTTP2_DATA_FLAG_NO_END_STREAM.rawValue) }
    return plan.count
}
