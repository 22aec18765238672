/// Frames that wait for the peer. Bounded by who fills it: `hasRoom`.
struct WebSocketSendQueue {
    private var frames: [[UInt8]] = []
    private var head = 0
    /// Bytes of the first frame that the peer's connection has taken.
    private var headSent = 0
    /// Frames at the front that go before messages and of which nothing is sent.
    private(set) var urgentCount = 0
    /// Bytes that were not taken.
    private(set) var byteCount = 0

    var count: Int { frames.count - head }
    var isEmpty: Bool { head == frames.count }

    func hasRoom(for size: Int, _ configuration: WebSocketConfiguration) -> Bool {
        guard count < configuration.queueMessagesMax else { return false }
        return isEmpty || byteCount + size <= configuration.queueBytesMax
    }

    mutating func append(_ frame: [UInt8]) {
        frames.append(frame)
        byteCount += frame.count
    }

    /// Puts a control frame before all messages of which nothing is sent (RFC 6455 5.4).
    mutating func appendUrgent(_ frame: [UInt8]) {
        frames.insert(frame, at: head + (headSent > 0 ? 1 : 0) + urgentCount)
        urgentCount += 1
        byteCount += frame.count
    }

    /// Drops what the peer has seen nothing of.
    mutating func dropWaiting() {
        let first = headSent > 0 && !isEmpty ? frames[head] : nil
        frames = first.map { [$0] } ?? []
        head = 0
        urgentCount = 0
        byteCount = first.map { $0.count - headSent } ?? 0
        if first == nil { headSent = 0 }
    }

    /// Gives what is to be sent next: a frame as it is, or several small ones in one piece.
    /// - Precondition: the queue is not empty.
    func withNext<Result>(
        gathering scratch: inout [UInt8], upTo max: Int, _ body: (UnsafeRawBufferPointer) -> Result
    ) -> Result {
        let first = frames[head]
        if count == 1 || first.count - headSent >= max {
            return first.withUnsafeBytes { body($0.slice(headSent..<$0.count)) }
        }
        scratch.removeAll(keepingCapacity: true)
        scratch.append(contentsOf: first[headSent...])
        var next = head + 1
        while next < frames.count, scratch.count + frames[next].count <= max {
            scratch.append(contentsOf: frames[next])
            next += 1
        }
        return scratch.withUnsafeBytes(body)
    }

    /// So many bytes were taken.
    mutating func advance(_ count: Int) {
        byteCount -= count
        var left = count
        while left > 0 {
            if headSent == 0, urgentCount > 0 { urgentCount -= 1 }
            let remaining = frames[head].count - headSent
            guard left >= remaining else {
                headSent += left
                break
            }
            left -= remaining
            headSent = 0
            frames[head] = []
            head += 1
        }
        if head == frames.count {
            // Nothing is kept of a large queue; a small array serves the next message.
            frames.removeAll(keepingCapacity: frames.capacity <= 8)
            head = 0
        } else if head >= 64, head * 2 > frames.count {
            frames.removeFirst(head)
            head = 0
        }
    }
}
