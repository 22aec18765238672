import CCurl
import CLinux
import HCCore
import HCIO

/// What curl is to do, all decided.
struct TransferPlan {
    var url: OutboundURL
    var method: HTTPMethod
    /// Each attempt's own fields among them.
    var headers: HTTPHeaders
    var content: OutboundRequest.Content
    /// Of the URL's name; curl resolves nothing itself.
    var addresses: [SocketAddress]
    /// Whether the answer's content is read in pieces.
    var isStreamed: Bool
    /// Whether the server may get it twice, should a kept connection turn out to be dead.
    var isRepeatable: Bool
    var responseBytesMax: Int
    /// Asked for every address that a socket is opened for, and for every one that a request is sent to.
    var rules: GuardRules?
}

package struct OutboundHead: Sendable {
    package var status: HTTPStatus
    package var headers: HTTPHeaders
}

/// One transfer: an easy handle from its options to its end, with what it received and what it has to send.
///
/// There is one reader and one writer at most. Whoever waits does so here; curl's callbacks wake them.
@LoopActor
final class CurlTransfer {
    private let plan: TransferPlan
    private let multi: CurlMulti
    private let headBytesMax: Int
    private let bufferBytesMax: Int
    private var easy: CurlEasy?

    private enum State {
        case running
        case ended(HTTPClientError?)
    }

    private var state = State.running
    /// How often a request was begun on a connection: 0 means that nothing has left.
    private(set) var sends = 0
    private var refusal: HTTPClientError?
    /// Sockets opened for it, until the request goes out.
    private var connecting: [CurlConnections.Opened] = []

    private var receiver: HeadReceiver
    private(set) var head: OutboundHead?
    private var received: [UInt8] = []
    private var receivedCount = 0
    private var isReceivePaused = false
    private var reader: Waiter<Void>?
    /// The most that waited for the reader at a time.
    private(set) var receivedPeak = 0

    private var upload = Upload()
    private var writer: Waiter<Void>?
    private var producer: Task<Void, Never>?

    private struct Upload {
        var bytes: [UInt8] = []
        var start = 0
        var acceptedCount = 0
        var handedCount = 0
        var isComplete = false
        var isPaused = false
    }

    init(_ plan: TransferPlan, _ configuration: HTTPClientConfiguration, on multi: CurlMulti) {
        self.plan = plan
        self.multi = multi
        headBytesMax = configuration.headBytesMax
        bufferBytesMax = configuration.bufferBytesMax
        receiver = HeadReceiver(bytesMax: configuration.headBytesMax)
        guard var easy = CurlEasy() else { preconditionFailure("libcurl cannot be initialised") }
        plan.apply(to: &easy, configuration)
        listen(&easy)
        self.easy = consume easy
    }

    /// Whether anything was or may have been sent.
    var wasSent: Bool { sends > 0 }

    /// Why it ended, if it ended badly.
    var failure: HTTPClientError? {
        if case .ended(let error) = state { error } else { nil }
    }

    // MARK: The caller's side

    func start() {
        guard let pointer = easy?.pointer else { return }
        multi.add(self, pointer)
        guard case .stream(let stream) = plan.content else { return }
        producer = Loop.shared.spawn { await self.produce(stream) }
    }

    /// The answer's head.
    func awaitHead(until deadline: Deadline) async throws(HTTPClientError) -> OutboundHead {
        while true {
            if let head { return head }
            if case .ended(let error) = state { throw error ?? .malformed("no answer") }
            try await wait(enlistReader(), until: deadline)
        }
    }

    /// The answer's whole content; for a transfer that is not streamed.
    func awaitContent(until deadline: Deadline) async throws(HTTPClientError) -> [UInt8] {
        while true {
            if case .ended(let error) = state {
                if let error { throw error }
                return received
            }
            try await wait(enlistReader(), until: deadline)
        }
    }

    /// The next piece of the content, nil at its end.
    func nextChunk(until deadline: Deadline) async throws(HTTPClientError) -> [UInt8]? {
        while true {
            if !received.isEmpty {
                let chunk = received
                received = []
                goOnReceiving()
                return chunk
            }
            if case .ended(let error) = state {
                if let error { throw error }
                return nil
            }
            try await wait(enlistReader(), until: deadline)
        }
    }

    /// Ends the transfer, if it has not ended: its connection goes, or the HTTP/2 stream.
    func end(_ error: HTTPClientError?) {
        guard case .running = state else { return }
        state = .ended(error)
        if let pointer = easy?.pointer { multi.remove(pointer) }
        easy = nil
        for socket in connecting { multi.connections.forget(socket) }
        upload = Upload()
        producer?.cancel()
        producer = nil
        wakeReader()
        wakeWriter()
    }

    /// What a deadline that passes now would be waiting for.
    private var stage: HTTPClientError.Stage {
        if sends == 0 { return .connecting }
        return head == nil ? .answer : .content
    }

    /// In the same stretch as the look at what there is: an `await` may let curl's callbacks run.
    private func enlistReader() -> Waiter<Void> {
        precondition(reader == nil, "a transfer has one reader at a time")
        let waiter = Waiter<Void>()
        reader = waiter
        return waiter
    }

    private func wait(
        _ waiter: Waiter<Void>, until deadline: Deadline
    ) async throws(HTTPClientError) {
        defer {
            if reader === waiter { reader = nil }
            if writer === waiter { writer = nil }
        }
        do {
            try await waiter.wait(until: deadline)
        } catch is DeadlineExceeded {
            let error = HTTPClientError.timeout(stage)
            end(error)
            throw error
        } catch {
            end(.cancelled)
            throw .cancelled
        }
    }

    private func wakeReader() { reader?.succeed(()) }
    private func wakeWriter() { writer?.succeed(()) }

    private func goOnReceiving() {
        guard isReceivePaused, received.count < bufferBytesMax / 2 else { return }
        isReceivePaused = false
        unpause()
    }

    /// curl calls the callbacks from here: nobody holds this object's state meanwhile.
    private func unpause() {
        guard let pointer = easy?.pointer else { return }
        let paused =
            (isReceivePaused ? CURLPAUSE_RECV : 0) | (upload.isPaused ? CURLPAUSE_SEND : 0)
        // A failure ends the transfer by itself, with a message.
        _ = curl_easy_pause(pointer, paused)
    }

    // MARK: Content of the request

    private func produce(_ stream: OutboundContentStream) async {
        do {
            try await stream.write(TransferContentWriter(self, count: stream.count))
            guard case .running = state else { return }
            guard stream.count == nil || stream.count == upload.acceptedCount else {
                return end(.contentFailed)
            }
            upload.isComplete = true
            goOnSending()
        } catch {
            end(.contentFailed)
        }
    }

    fileprivate func write(_ bytes: [UInt8], count: Int?) async throws(HTTPClientError) {
        if case .ended(let error) = state { throw error ?? .disconnected }
        upload.acceptedCount += bytes.count
        guard upload.acceptedCount <= count ?? Int.max else {
            end(.contentFailed)
            throw .contentFailed
        }
        upload.bytes.append(contentsOf: bytes)
        goOnSending()
        while upload.bytes.count - upload.start >= bufferBytesMax, case .running = state {
            precondition(writer == nil, "a transfer has one writer at a time")
            let waiter = Waiter<Void>()
            writer = waiter
            // The reader's deadline ends the transfer, and so this wait.
            try await wait(waiter, until: .never)
        }
        if case .ended(let error) = state { throw error ?? .disconnected }
    }

    private func goOnSending() {
        guard upload.isPaused else { return }
        upload.isPaused = false
        unpause()
    }

    // MARK: curl's side

    /// The transfer is over, as curl sees it.
    func curlEnded(_ code: CURLcode) {
        if let refusal {
            end(refusal)
        } else if code == CURLE_OK {
            // curl is content with a head that has no end.
            end(head == nil ? .disconnected : nil)
        } else {
            end(CurlFailure.error(code, wasSent: wasSent))
        }
    }

    /// The callbacks get `self` unretained: the multi handle keeps it as long as the easy handle is with it, and
    /// calls nobody before or after.
    private func listen(_ easy: inout CurlEasy) {
        let handle = easy.pointer
        let context = Unmanaged.passUnretained(self).toOpaque()
        easy.set(CURLOPT_WRITEDATA, context)
        easy.set(CURLOPT_HEADERDATA, context)
        easy.set(CURLOPT_READDATA, context)
        easy.set(CURLOPT_OPENSOCKETDATA, context)
        easy.set(CURLOPT_PREREQDATA, context)
        // A connection outlives its transfer: its closing is told to what the multi handle owns.
        easy.set(
            CURLOPT_CLOSESOCKETDATA, Unmanaged.passUnretained(multi.connections).toOpaque())
        hc_curl_set_callback(handle, CURLOPT_WRITEFUNCTION) { data, size, count, context in
            guard let data, let transfer = CurlTransfer.find(context) else { return 0 }
            let bytes = Passed(UnsafeRawBufferPointer(start: data, count: size * count))
            return LoopActor.assumeIsolated { transfer.receive(content: bytes.value) }
        }
        hc_curl_set_callback(handle, CURLOPT_HEADERFUNCTION) { data, size, count, context in
            guard let data, let transfer = CurlTransfer.find(context) else { return 0 }
            let bytes = Passed(UnsafeRawBufferPointer(start: data, count: size * count))
            return LoopActor.assumeIsolated { transfer.receive(line: bytes.value) }
        }
        hc_curl_set_callback(handle, CURLOPT_READFUNCTION) { data, size, count, context in
            guard let data, let transfer = CurlTransfer.find(context) else {
                return Int(CURL_READFUNC_ABORT)
            }
            let space = Passed(UnsafeMutableRawBufferPointer(start: data, count: size * count))
            return LoopActor.assumeIsolated { transfer.give(into: space.value) }
        }
        hc_curl_set_open_socket(handle) { context, _, address in
            guard let address, let transfer = CurlTransfer.find(context) else { return -1 }
            let wanted = Passed(UnsafePointer(address))
            return LoopActor.assumeIsolated { transfer.openSocket(wanted.value) }
        }
        hc_curl_set_close_socket(handle) { context, fd in
            guard let context else { return -1 }
            return Unmanaged<CurlConnections>.fromOpaque(context).takeUnretainedValue().close(fd)
        }
        hc_curl_set_before_request(handle) { context, remote, _, port, _ in
            guard let remote, let transfer = CurlTransfer.find(context) else { return 1 }
            let host = String(cString: remote)
            return LoopActor.assumeIsolated { transfer.mayBegin(at: host, port) ? 0 : 1 }
        }
    }

    private nonisolated static func find(_ context: UnsafeMutableRawPointer?) -> CurlTransfer? {
        context.map { Unmanaged<CurlTransfer>.fromOpaque($0).takeUnretainedValue() }
    }

    /// The last word on where a connection goes: what curl wants to connect to is judged again.
    private func openSocket(_ wanted: UnsafePointer<curl_sockaddr>) -> Int32 {
        let address = wanted.pointee
        guard let target = CurlTransfer.address(of: wanted) else { return -1 }
        do {
            try plan.rules?.check(target)
        } catch {
            refusal = .refusedAddress(error)
            return -1
        }
        let opened = multi.connections.open(
            family: address.family, kind: address.socktype, wire: address.`protocol`)
        guard let opened else { return -1 }
        connecting.append(opened)
        return opened.fd
    }

    private static func address(of wanted: UnsafePointer<curl_sockaddr>) -> SocketAddress? {
        guard let bytes = hc_curl_address(wanted) else { return nil }
        let storage = bytes.assumingMemoryBound(to: sockaddr_storage.self)
        switch wanted.pointee.family {
        case AF_INET:
            return .ipv4(address: hc_address_in_host(storage), port: hc_address_port(storage))
        case AF_INET6:
            var octets = [UInt8](repeating: 0, count: 16)
            hc_address_in6_host(storage, &octets)
            func word(_ octets: ArraySlice<UInt8>) -> UInt64 {
                octets.reduce(0) { $0 << 8 | UInt64($1) }
            }
            return .ipv6(
                high: word(octets[..<8]), low: word(octets[8...]),
                scope: hc_address_in6_scope(storage), port: hc_address_port(storage))
        default: return nil
        }
    }

    /// Called when a connection is there, new or kept, and the request is about to be sent on it.
    ///
    /// curl sends a request again, whatever its method, when a kept connection ends without an answer: it cannot
    /// know that the server did not do its work. Here only what is repeatable is sent twice (RFC 9112 9.3.1).
    private func mayBegin(at host: String, _ port: Int32) -> Bool {
        if let rules = plan.rules {
            guard let address = SocketAddress(host: host, port: UInt16(clamping: port)) else {
                refusal = .refusedAddress(.address(.local))
                return false
            }
            do {
                try rules.check(address)
            } catch {
                refusal = .refusedAddress(error)
                return false
            }
        }
        guard sends == 0 || (plan.isRepeatable && upload.handedCount == 0) else {
            refusal = .disconnected
            return false
        }
        sends += 1
        connecting = []
        return true
    }

    private func receive(line: UnsafeRawBufferPointer) -> Int {
        // Trailers come the same way; nobody asked for them.
        guard head == nil else { return line.count }
        do throws(HTTPClientError) {
            guard let complete = try receiver.receive(line) else { return line.count }
            if plan.method != .head, complete.status.allowsContent,
                let announced = complete.headers.contentCount,
                announced > plan.responseBytesMax
            {
                throw HTTPClientError.tooLarge(.content)
            }
            head = complete
            wakeReaderIfStreamed()
            return line.count
        } catch {
            refusal = error
            return 0
        }
    }

    private func receive(content bytes: UnsafeRawBufferPointer) -> Int {
        guard !bytes.isEmpty else { return 0 }
        guard receivedCount + bytes.count <= plan.responseBytesMax else {
            refusal = .tooLarge(.content)
            return 0
        }
        if plan.isStreamed, received.count >= bufferBytesMax {
            // curl keeps these bytes and gives them again.
            isReceivePaused = true
            return Int(CURL_WRITEFUNC_PAUSE)
        }
        received.append(contentsOf: bytes)
        receivedCount += bytes.count
        receivedPeak = max(receivedPeak, received.count)
        wakeReaderIfStreamed()
        return bytes.count
    }

    private func wakeReaderIfStreamed() {
        if plan.isStreamed { wakeReader() }
    }

    private func give(into space: UnsafeMutableRawBufferPointer) -> Int {
        let left = upload.bytes.count - upload.start
        if left == 0 {
            if upload.isComplete { return 0 }
            upload.isPaused = true
            return Int(CURL_READFUNC_PAUSE)
        }
        let count = min(left, space.count)
        upload.bytes.withUnsafeBytes { bytes in
            space.copyMemory(from: bytes.slice(upload.start..<upload.start + count))
        }
        upload.start += count
        upload.handedCount += count
        if upload.start == upload.bytes.count {
            upload.bytes.removeAll(keepingCapacity: true)
            upload.start = 0
        }
        if upload.bytes.count - upload.start < bufferBytesMax / 2 { wakeWriter() }
        return count
    }
}

/// Carries what curl lent to a callback into the loop's isolation.
///
/// Sendable because it goes nowhere: the callback runs on the loop's thread, within a call that the loop made, and
/// the value is not used after it.
private struct Passed<Value>: @unchecked Sendable {
    let value: Value

    init(_ value: Value) {
        self.value = value
    }
}

@LoopActor
private final class TransferContentWriter: OutboundContentWriter {
    private let transfer: CurlTransfer
    private let count: Int?

    init(_ transfer: CurlTransfer, count: Int?) {
        self.transfer = transfer
        self.count = count
    }

    func write(_ bytes: [UInt8]) async throws { try await transfer.write(bytes, count: count) }
}
