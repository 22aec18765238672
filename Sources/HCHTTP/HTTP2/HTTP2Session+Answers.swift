internal import CNGHTTP2
import HCCore

/// Answers, and bytes out.
extension HTTP2Session {
    // MARK: Answers

    /// Sends 100 (Continue).
    func answerContinue(_ slot: Int, _ list: HTTP2FieldList) {
        guard !hasFailed, slots[slot].isOpen, !slots[slot].isReset else { return }
        list.withInterim(100) { fields, count in
            let result = nghttp2_submit_headers(
                session, 0, slots[slot].streamID, nil, fields, count, nil)
            precondition(result >= 0, "nghttp2_submit_headers: \(result)")
            pullControl()
        }
    }

    /// Sends the head of an answer, and its content unless that is `open`.
    ///
    /// - Precondition: the stream is open and was not answered.
    func answer(
        _ slot: Int, _ response: HTTPResponse, status: Int, content: Content, length: Int?,
        id: RequestID?, date: DateLine, common: HTTPHeaders, _ list: HTTP2FieldList
    ) {
        guard !hasFailed, slots[slot].isOpen, !slots[slot].isReset else { return }
        var hasContent = true
        var trailers: [HTTPFieldName] = []
        switch content {
        case .none: hasContent = false
        case .whole(let body): slots[slot].output.set(body)
        case .open:
            slots[slot].output.isComplete = false
            if case .stream(let stream) = response.body { trailers = stream.trailers }
        }
        list.withFields(
            of: response, status: status, length: length, id: id, date: date, common: common,
            trailers: trailers
        ) { fields, count in
            // nghttp2 keeps a pointer to the fields until they are encoded: `pullControl` sees to that before
            // they go away.
            if hasContent {
                var provider = nghttp2_data_provider(
                    source: nghttp2_data_source(fd: Int32(slot)), read_callback: readHTTP2Content)
                check(
                    nghttp2_submit_response(
                        session, slots[slot].streamID, fields, count, &provider))
            } else {
                check(nghttp2_submit_response(session, slots[slot].streamID, fields, count, nil))
            }
            pullControl()
        }
    }

    /// Adds to the content of an open answer.
    package func write(_ slot: Int, _ bytes: [UInt8]) {
        guard !hasFailed, slots[slot].isOpen, !slots[slot].isReset, !bytes.isEmpty else { return }
        slots[slot].output.append(bytes)
        resume(slot)
    }

    package func write(_ slot: Int, _ bytes: UnsafeRawBufferPointer) {
        guard !hasFailed, slots[slot].isOpen, !slots[slot].isReset, !bytes.isEmpty else { return }
        slots[slot].output.append(bytes)
        resume(slot)
    }

    /// Ends the content of an open answer. With trailers, they are what ends the stream (RFC 9113 8.1).
    package func finish(_ slot: Int, trailers: HTTPHeaders = HTTPHeaders()) {
        guard !hasFailed, slots[slot].isOpen, !slots[slot].isReset else { return }
        slots[slot].output.isComplete = true
        slots[slot].output.trailers = trailers
        resume(slot)
    }

    /// Bytes of an answer that wait to be sent.
    package func waitingCount(_ slot: Int) -> Int { slots[slot].output.count }

    /// Bytes of an answer that went into frames.
    package func sentContentCount(_ slot: Int) -> Int { slots[slot].sentCount }

    private func resume(_ slot: Int) {
        guard slots[slot].output.isDeferred, !hasFailed else { return }
        slots[slot].output.isDeferred = false
        check(nghttp2_session_resume_data(session, slots[slot].streamID))
    }

    /// nghttp2 asks how much of a content goes into the next DATA frame.
    func plan(_ slot: Int, upTo max: Int) -> (count: Int, isLast: Bool, isFollowed: Bool)? {
        let count = min(max, slots[slot].output.count)
        if count == 0, !slots[slot].output.isComplete {
            slots[slot].output.isDeferred = true
            return nil
        }
        let isLast = slots[slot].output.isComplete && count == slots[slot].output.count
        return (count, isLast, isLast && submitTrailers(slot))
    }

    /// To be called while nghttp2 asks for the last content, as it wants it (nghttp2_submit_trailer). It copies the
    /// fields.
    /// - Returns: whether there are any.
    private func submitTrailers(_ slot: Int) -> Bool {
        let trailers = slots[slot].output.trailers
        guard !trailers.isEmpty else { return false }
        slots[slot].output.trailers = HTTPHeaders()
        HTTP2FieldList().withTrailers(trailers) { fields, count in
            check(nghttp2_submit_trailer(session, slots[slot].streamID, fields, count))
        }
        return true
    }

    /// nghttp2 has made the head of a DATA frame.
    /// - Returns: whether nghttp2 may go on with further frames.
    func writeFrame(_ slot: Int, _ head: UnsafeRawBufferPointer, _ count: Int) -> Bool {
        output.append(contentsOf: head)
        let before = slots[slot].output.count
        slots[slot].output.move(count, to: &output)
        slots[slot].sentCount += count
        windowUpdates.earn(limits.windowUpdatesPerDataFrame, limits.windowUpdates)
        let mark = limits.streamOutputBytesMax / 2
        if !slots[slot].output.isComplete, before > mark, before - count <= mark {
            events.append(.roomToWrite(slot: slot))
        }
        return pendingCount < pullMax
    }

    // MARK: Output

    /// Bytes that are to be sent.
    package var pendingCount: Int { output.count - sentCount }

    /// Whether something is to be sent that is not in `output` yet.
    private var hasControlFrames: Bool { nghttp2_session_get_outbound_queue_size(session) > 0 }

    /// Takes over all frames but DATA: nghttp2 gives them first, so it never keeps any, and what waits is seen
    /// in `pendingCount`.
    func pullControl() {
        guard !hasFailed else { return }
        pullMax = 0
        while hasControlFrames, !hasFailed, pullFrame() {}
    }

    /// Takes over frames while fewer than `bytesMax` bytes wait.
    package func pull(upTo bytesMax: Int) {
        guard !hasFailed else { return }
        pullControl()
        pullMax = bytesMax
        while pendingCount < bytesMax, !hasFailed, pullFrame() {}
    }

    /// - Returns: false if there is none for now.
    private func pullFrame() -> Bool {
        let before = output.count
        var bytes: UnsafePointer<UInt8>?
        let count = nghttp2_session_mem_send(session, &bytes)
        precondition(count >= 0, "nghttp2_session_mem_send: \(count)")
        guard count > 0, let bytes else { return output.count > before }
        output.append(contentsOf: UnsafeBufferPointer(start: bytes, count: count))
        if !hasPatchedSettings { patchSettings() }
        return true
    }

    /// So many bytes of `output` are sent.
    package func sent(_ count: Int) {
        sentCount += count
        if sentCount == output.count {
            output.removeAll(keepingCapacity: true)
            sentCount = 0
        }
    }

    /// Takes a buffer to write into, or gives it back: then all memory that only requests need is let go of.
    func exchangeOutput(_ buffer: inout [UInt8]) {
        precondition(output.isEmpty, "output that would be lost")
        swap(&output, &buffer)
        if streamCount == 0, events.isEmpty { events = [] }
    }
}
