internal import CNGHTTP2
package import HCCore

/// Bytes in: each frame's head is looked at before nghttp2 sees it.
extension HTTP2Session {
    // MARK: Input

    /// Reads what the client sent. `content` events speak of places in `input`.
    package func receive(_ input: UnsafeRawBufferPointer, at now: MonotonicTime) {
        guard !hasFailed, let base = input.baseAddress else { return }
        self.now = now
        inputBase = base
        defer { inputBase = nil }
        // What comes before `given` is nghttp2's; what comes before `index` was looked at.
        var given = 0
        var index = 0
        while index < input.count, !hasFailed {
            switch scan {
            case .preface(let left):
                let count = min(left, input.count - index)
                index += count
                scan = left == count ? .head : .preface(left - count)
            case .payload(let left, let isGiven):
                let count = min(left, input.count - index)
                index += count
                scan = left == count ? .head : .payload(left - count, isGiven: isGiven)
                // One frame at a time: what is said of the next may depend on it.
                if isGiven, left == count { give(input, given, index) }
                if !isGiven || left == count { given = index }
            case .head: scanHead(input, &index, &given)
            }
        }
        give(input, given, index)
    }

    private func scanHead(
        _ input: UnsafeRawBufferPointer, _ index: inout Int, _ given: inout Int
    ) {
        let rest = input.slice(index..<input.count)
        if held.isEmpty, rest.count >= FrameHead.bytes {
            let wanted = headBytes(rest)
            if rest.count >= wanted {
                let head = FrameHead(rest)
                let verdict = judge(head, rest)
                if case .give = verdict {
                    index += FrameHead.bytes
                    scan = next(head.length, isGiven: true)
                    guard head.length == 0 else { return }
                    give(input, given, index)
                    given = index
                    return
                }
                index += wanted
                given = index
                apply(verdict, head, wanted)
                return
            }
        }
        // A head that is cut: it is kept until it is whole, and nghttp2 has to wait for it too. But for the end of
        // the preface nothing is left to give.
        give(input, given, index)
        while index < input.count, held.count < FrameHead.bytes || held.count < heldWanted {
            held.append(input[index])
            index += 1
        }
        given = index
        guard !hasFailed, held.count >= FrameHead.bytes, held.count >= heldWanted else { return }
        let bytes = held
        held.removeAll(keepingCapacity: true)
        bytes.withUnsafeBytes { bytes in
            let head = FrameHead(bytes)
            let verdict = judge(head, bytes)
            if case .give = verdict {
                give(bytes, 0, bytes.count)
                scan = next(head.length, isGiven: true)
            } else {
                apply(verdict, head, bytes.count)
            }
        }
    }

    private var heldWanted: Int {
        held.count < FrameHead.bytes ? FrameHead.bytes : held.withUnsafeBytes { headBytes($0) }
    }

    /// How many bytes must be there to judge a frame: PRIORITY is judged by its payload, which nghttp2 does not
    /// get to see.
    private func headBytes(_ bytes: UnsafeRawBufferPointer) -> Int {
        let isWholePriority =
            bytes[3] == FrameType.priority && bytes[0] == 0 && bytes[1] == 0 && bytes[2] == 5
            && openBlock == nil && hasSeenFrame
        return isWholePriority ? FrameHead.bytes + 5 : FrameHead.bytes
    }

    func next(_ length: Int, isGiven: Bool) -> Scan {
        length == 0 ? .head : .payload(length, isGiven: isGiven)
    }

    private func apply(_ verdict: Verdict, _ head: FrameHead, _ seen: Int) {
        switch verdict {
        case .give: break
        case .skip: scan = next(head.length - (seen - FrameHead.bytes), isGiven: false)
        case .fail(let fault): fail(fault)
        }
    }

    func give(_ input: UnsafeRawBufferPointer, _ start: Int, _ end: Int) {
        guard start < end, !hasFailed, let base = input.baseAddress else { return }
        let bytes = (base + start).assumingMemoryBound(to: UInt8.self)
        let taken = nghttp2_session_mem_recv(session, bytes, end - start)
        if taken < 0 {
            giveUp(
                taken == Int(NGHTTP2_ERR_BAD_CLIENT_MAGIC.rawValue) ? .badPreface : .internalError)
        } else {
            pullControl()
        }
    }

    // MARK: Judging frames

    private func judge(_ head: FrameHead, _ bytes: UnsafeRawBufferPointer) -> Verdict {
        // The first frame is SETTINGS, and nghttp2 sees to it.
        guard hasSeenFrame else {
            hasSeenFrame = true
            return .give
        }
        // RFC 9113 4.2. nghttp2 takes a CONTINUATION of any length.
        guard head.length <= Self.maxFrameBytes else { return .fail(.frameSize) }
        if let openBlock { return judgeInsideBlock(head, openBlock) }
        switch head.type {
        case FrameType.headers: return judgeHeaders(head)
        case FrameType.data: return judgeData(head)
        case FrameType.priority: return judgePriority(head, bytes)
        case FrameType.resetStream:
            return resets.spend(limits.resets, at: now) ? .give : .fail(.resetFlood)
        case FrameType.settings:
            if head.flags & Flag.acknowledgement != 0 { return .give }
            return settings.spend(limits.settings, at: now) ? .give : .fail(.settingsFlood)
        case FrameType.ping: return pings.spend(limits.pings, at: now) ? .give : .fail(.pingFlood)
        case FrameType.windowUpdate:
            return windowUpdates.spend(limits.windowUpdates, at: now)
                ? .give : .fail(.windowUpdateFlood)
        case FrameType.goaway:
            return unknownFrames.spend(limits.unknownFrames, at: now)
                ? .give : .fail(.unknownFrameFlood)
        case FrameType.pushPromise, FrameType.continuation: return .give
        case FrameType.priorityUpdate:
            // RFC 9218 2.1: who does not use the signals of priority ignores them.
            return priorities.spend(limits.priorities, at: now) ? .skip : .fail(.priorityFlood)
        default:
            // RFC 9113 5.5: unknown types are ignored.
            return unknownFrames.spend(limits.unknownFrames, at: now)
                ? .skip : .fail(.unknownFrameFlood)
        }
    }

    /// Only CONTINUATION of the same stream may come here; of others nghttp2 says what they are.
    private func judgeInsideBlock(_ head: FrameHead, _ streamID: Int32) -> Verdict {
        guard head.type == FrameType.continuation, head.streamID == streamID else { return .give }
        continuationCount += 1
        blockBytes += head.length
        guard continuationCount <= limits.continuationsMax else { return .fail(.continuationFlood) }
        guard blockBytes <= limits.headerBlockBytesMax else { return .fail(.headerBlockTooLarge) }
        if head.flags & Flag.endHeaders != 0 {
            openBlock = nil
        } else if head.length == 0, !emptyFrames.spend(limits.emptyFrames, at: now) {
            return .fail(.emptyFrameFlood)
        }
        return .give
    }

    private func judgeHeaders(_ head: FrameHead) -> Verdict {
        blockBytes = head.length
        continuationCount = 0
        guard blockBytes <= limits.headerBlockBytesMax else { return .fail(.headerBlockTooLarge) }
        if head.flags & Flag.endHeaders == 0 {
            openBlock = head.streamID
            if head.length == 0, !emptyFrames.spend(limits.emptyFrames, at: now) {
                return .fail(.emptyFrameFlood)
            }
        }
        // A number of the server's own is nghttp2's affair.
        guard head.streamID & 1 == 1 else { return .give }
        if head.streamID > lastStreamID {
            if head.streamID > lastStreamID + 2, gaps.count < Self.gapCountMax {
                gaps.append(lastStreamID + 1...head.streamID - 1)
            }
            lastStreamID = head.streamID
            return .give
        }
        guard slot(of: head.streamID) == nil else { return .give }
        // RFC 9113 5.1.1: numbers that were left out cannot be used any more.
        if gaps.contains(where: { $0.contains(head.streamID) }) { return .fail(.streamNumber) }
        switch ending(of: head.streamID) {
        case .complete: return .fail(.streamClosed)
        case .resetByPeer: return resetClosed(head.streamID)
        case .resetByUs, nil: return .give
        }
    }

    private func judgeData(_ head: FrameHead) -> Verdict {
        if head.length == 0, head.flags & Flag.endStream == 0,
            !emptyFrames.spend(limits.emptyFrames, at: now)
        {
            return .fail(.emptyFrameFlood)
        }
        guard head.streamID & 1 == 1, head.streamID <= lastStreamID,
            slot(of: head.streamID) == nil
        else { return .give }
        // RFC 9113 6.1. nghttp2 counts the bytes against the connection's window and drops them.
        let isUnused = gaps.contains { $0.contains(head.streamID) }
        switch ending(of: head.streamID) {
        case .complete, .resetByPeer: return resetClosed(head.streamID)
        case .resetByUs: return .give
        case nil: return isUnused ? resetClosed(head.streamID) : .give
        }
    }

    private func resetClosed(_ streamID: Int32) -> Verdict {
        guard resets.spend(limits.resets, at: now) else { return .fail(.resetFlood) }
        events.append(.fault(.closedStream))
        check(
            nghttp2_submit_rst_stream(
                session, 0, streamID, HTTP2ErrorCode.streamClosed.rawValue))
        remember(streamID, .resetByUs)
        return .give
    }

    /// PRIORITY has no effect here (RFC 9113 5.3.2), but has a form (6.3). A stream that depends on itself was an
    /// error while dependencies meant something (RFC 7540 5.3.1), and nobody may send it: still one.
    private func judgePriority(_ head: FrameHead, _ bytes: UnsafeRawBufferPointer) -> Verdict {
        guard priorities.spend(limits.priorities, at: now) else { return .fail(.priorityFlood) }
        guard head.length == 5 else { return .fail(.frameSize) }
        guard head.streamID != 0 else { return .fail(.protocolError) }
        let dependency = FrameHead.number(bytes, FrameHead.bytes)
        return dependency == head.streamID ? .fail(.protocolError) : .skip
    }
}
