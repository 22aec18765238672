internal import CNGHTTP2
import HCCore

/// What nghttp2 tells of the client's frames and of ours, and what becomes of it.
extension HTTP2Session {
    func beganFrame(_ type: UInt8) {
        if type == FrameType.settings {
            queuedBeforeSettings = nghttp2_session_get_outbound_queue_size(session)
        }
    }

    func beganBlock(_ streamID: Int32, isRequest: Bool) {
        guard isRequest else {
            blockSlot = slot(of: streamID)
            block.begin(trailers: true)
            return
        }
        guard streamCount < limits.concurrentStreamsMax else {
            blockSlot = nil
            events.append(.fault(.tooManyStreams))
            check(
                nghttp2_submit_rst_stream(
                    session, 0, streamID, HTTP2ErrorCode.refusedStream.rawValue))
            spendReset()
            return
        }
        blockSlot = open(streamID)
        block.begin(trailers: false)
    }

    func received(
        name: UnsafeRawBufferPointer, value: UnsafeRawBufferPointer
    ) {
        guard blockSlot != nil, !hasSubmittedGoaway else { return }
        block.add(name: name, value: value)
        if block.isBomb { submitFailure(.headerBomb) }
    }

    func completedBlock(_ streamID: Int32, endsStream: Bool) {
        guard let slot = blockSlot else { return }
        blockSlot = nil
        guard !hasSubmittedGoaway else { return }
        if block.isTrailers { return completedTrailers(slot, endsStream) }
        slots[slot].isInputComplete = endsStream
        switch block.finish(isComplete: endsStream) {
        case .request(let head):
            slots[slot].announcedCount = head.announcedCount
            slots[slot].isTunnel = head.upgrade != nil
            events.append(.request(slot: slot, head))
        case .refused(let error):
            slots[slot].isContentDropped = true
            events.append(.refused(slot: slot, error, isHead: block.isHead))
        case .malformed: reset(slot, .malformedRequest)
        }
    }

    private func completedTrailers(_ slot: Int, _ endsStream: Bool) {
        // RFC 9113 8.1: trailers end the request, and have no pseudo-header fields.
        guard endsStream, !block.isMalformed, !slots[slot].isTunnel else {
            return reset(slot, .malformedRequest)
        }
        guard !block.areTrailersTooLarge else { return reset(slot, .trailersTooLarge) }
        completedInput(slot, trailers: block.trailers)
    }

    func received(_ streamID: Int32, _ data: UnsafeRawBufferPointer) {
        guard let slot = slot(of: streamID) else {
            check(nghttp2_session_consume_connection(session, data.count))
            return
        }
        slots[slot].unconsumedCount += data.count
        guard !slots[slot].isReset, !slots[slot].isContentDropped, let inputBase,
            let start = data.baseAddress
        else { return consume(slot) }
        if !slots[slot].isTunnel {
            slots[slot].receivedCount += data.count
            let count = slots[slot].receivedCount
            if let announced = slots[slot].announcedCount, count > announced {
                return reset(slot, .contentLengthMismatch)
            }
            guard count <= common.bodyBytesMax else {
                slots[slot].isContentDropped = true
                events.append(.contentTooLarge(slot: slot))
                return consume(slot)
            }
        }
        let place = start - inputBase
        events.append(.content(slot: slot, place..<place + data.count))
    }

    func endedData(_ streamID: Int32) {
        guard let slot = slot(of: streamID) else { return }
        completedInput(slot)
    }

    private func completedInput(_ slot: Int, trailers: HTTPHeaders = HTTPHeaders()) {
        slots[slot].isInputComplete = true
        guard !slots[slot].isReset, !slots[slot].isContentDropped else { return }
        if let announced = slots[slot].announcedCount, slots[slot].receivedCount != announced {
            return reset(slot, .contentLengthMismatch)
        }
        events.append(.contentEnd(slot: slot, trailers: trailers))
    }

    func receivedReset(_ streamID: Int32) {
        if let slot = slot(of: streamID) { slots[slot].isResetByPeer = true }
    }

    func receivedSettings(isAcknowledgement: Bool) {
        isEstablished = true
        guard !isAcknowledgement else { return }
        // The acknowledgement is one. More than that are streams that nghttp2 resets because the new window
        // is too large for them: an error of the connection (RFC 9113 6.9.2).
        if nghttp2_session_get_outbound_queue_size(session) > queuedBeforeSettings + 1 {
            submitFailure(.flowControl)
        }
    }

    func receivedPing(isAcknowledgement: Bool, _ opaque: UInt64) {
        let mine = Self.drainPing.withUnsafeBytes { $0.loadUnaligned(as: UInt64.self) }
        if isAcknowledgement, opaque == mine { events.append(.pingAcknowledged) }
    }

    func receivedGoaway() {
        events.append(.clientLeaves)
    }

    func closed(_ streamID: Int32) {
        guard let slot = slot(of: streamID) else { return remember(streamID, .resetByUs) }
        slots[slot].isOpen = false
        slots[slot].output = HTTP2Output()
        remember(
            streamID,
            slots[slot].isResetByPeer
                ? .resetByPeer : slots[slot].isReset ? .resetByUs : .complete)
        events.append(.closed(slot: slot, isResetByClient: slots[slot].isResetByPeer))
    }

    func sent(type: UInt8, streamID: Int32, flags: UInt8, code: UInt32) {
        switch type {
        case FrameType.data, FrameType.headers:
            guard flags & Flag.endStream != 0, let slot = slot(of: streamID) else { return }
            slots[slot].isOutputSent = true
            refuseRest(slot)
        case FrameType.resetStream:
            guard let slot = slot(of: streamID), !slots[slot].isReset else { return }
            // nghttp2's own: a window of this stream overflowed.
            slots[slot].isReset = true
            events.append(.fault(.streamFlowControl))
            spendReset()
        case FrameType.goaway:
            events.append(.goawaySent)
            guard code != HTTP2ErrorCode.noError.rawValue, !hasFailed else { return }
            hasFailed = true
            if !hasSubmittedGoaway {
                events.append(.fault(HTTP2Fault(connectionError: code)))
            }
        default: break
        }
    }

    /// The answer is complete and the request is not: its rest is not wanted (RFC 9113 8.1). A tunnel goes on in
    /// the other direction.
    ///
    /// The stream is not reset at once: clients that are still sending have been seen to take that for a failure
    /// and to throw the answer away.
    private func refuseRest(_ slot: Int) {
        guard slots[slot].isOutputSent, !slots[slot].isInputComplete, !slots[slot].isTunnel,
            !slots[slot].isReset
        else { return }
        slots[slot].isContentDropped = true
        consume(slot)
        events.append(.answeredEarly(slot: slot))
    }

    /// Nobody reads what comes on a tunnel any more: it ends when what we have to say is sent.
    func abandonInput(_ slot: Int) {
        guard !hasFailed, slots[slot].isOpen, !slots[slot].isReset else { return }
        slots[slot].isContentDropped = true
        slots[slot].isTunnel = false
        consume(slot)
        refuseRest(slot)
        pullControl()
    }

    func notSent(type: UInt8, streamID: Int32) {
        guard type == FrameType.headers, let slot = slot(of: streamID), !slots[slot].isReset else {
            return
        }
        reset(slot, .answerTooLarge)
    }
}
