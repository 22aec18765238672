internal import COpenSSL
package import HCCore

/// TLS over another stream.
///
/// Life: `handshake` once, and when it has succeeded `start`, from when on it is a stream like any other. An
/// established and idle connection owns no buffer, see `TLSEngine`. Kept are, each only while it must be:
/// ciphertext that the socket did not take (at most one write's), and ciphertext that arrived after the owner had
/// stopped reading (at most one read's).
///
/// The ends of TLS and of TCP are told apart (RFC 8446 6.1). close_notify from the peer is a half-close, and we may
/// go on writing, in TLS 1.2 as well. The peer's FIN without it is a truncation: a failure, or an end where the
/// protocol above knows by itself whether something is missing (`toleratesTruncation`). `shutdownWrite` and `close`
/// send close_notify; `cut` does not, so that the peer cannot take what it has for the whole.
@LoopActor package final class TLSStream: ByteStream {
    package enum Limits {
        /// Plaintext that is encrypted before the socket is asked again.
        package static let plaintextPerWrite = 64 << 10
        /// Ciphertext that waits for the socket. One write makes half of it; the rest can only come of answers to key
        /// updates, so above it nothing is read. Were it less, two peers that write could wait for each other.
        package static let pendingBytesMax = 128 << 10
        /// Records without content one after the other: alerts, key updates, empty ones.
        package static let uselessRecordsMax = 32
        /// After a failure so much of the peer's input is thrown away, and of so many at a time, that our alert is
        /// not lost to a reset. For how long: `TLSEndTimeouts`.
        package static let lingerBytesMax = 64 << 10
        package static let lingeringMax = 256
    }

    private enum State {
        /// Can transition to: handshaking, closed.
        case fresh
        /// Can transition to: established, lingering, closed.
        case handshaking
        /// Can transition to: lingering, closing, closed.
        case established
        /// The owner has closed and the socket does not take the rest yet. Can transition to: closed.
        case closing
        /// Broken, and our alert is on its way. Can transition to: closed.
        case lingering
        case closed
    }

    let context: TLSContext
    private let lower: any ByteStream
    /// Nil once it is closed or broken.
    private var session: TLSSession?
    private var state = State.fresh
    private var completion: (@LoopActor (Result<TLSHandshake, TLSFailure>) -> Void)?
    private var delegate: (any ByteStreamDelegate)?

    /// What the client asked for, while the handshake lasts.
    var serverName: String?
    /// What the client gets, while the handshake lasts.
    var certificates: [TLSCertificate] = []

    /// Ciphertext that the socket did not take; from `sentCount` on.
    private var pending: [UInt8] = []
    private var sentCount = 0
    /// Ciphertext that arrived and was not to be read.
    private var held: [UInt8]
    private var isResuming = false
    private var wantsReading = false
    private var wantsWriting = false
    /// By close_notify, or what counts as such.
    private var peerHasEnded = false
    private var lowerHasEnded = false
    private var isWriteShut = false
    private var endsWhenSent = false
    private var uselessRecords = 0
    private var lingeredBytes = 0
    private var timer: Timer?

    /// Set by who frames messages itself: the end of the connection without close_notify is then told as its end.
    package var toleratesTruncation = false

    /// Streams that are closed but whose last bytes are not with the kernel yet.
    private static var closingCount = 0
    private static var closingWaiters: [Waiter<Void>] = []
    private static var lingeringCount = 0

    /// - Parameters:
    ///   - stream: connected and not started; from now on this stream's own.
    ///   - received: bytes that were read from it already.
    package init(over stream: any ByteStream, _ context: TLSContext, received: [UInt8] = []) {
        lower = stream
        self.context = context
        held = received
    }

    package var isClosed: Bool {
        switch state {
        case .fresh, .handshaking, .established: false
        case .closing, .lingering, .closed: true
        }
    }

    /// Ciphertext counts, though it need not be content.
    package var hasInput: Bool { !held.isEmpty || lower.hasInput }

    package var remoteAddress: SocketAddress? { lower.remoteAddress }
    package var localAddress: SocketAddress? { lower.localAddress }

    /// The SSL object, for tests that do what a peer of ours does not.
    var pointer: OpaquePointer? { session?.pointer }

    /// Ciphertext in memory, for tests of the bounds.
    var keptCount: Int { held.count + pending.count - sentCount }

    // MARK: Handshake

    /// Begins. `completion` is called once, on the loop and never from within this call, unless the stream is closed
    /// before. After a failure the stream is closed.
    package func handshake(
        _ completion: @escaping @LoopActor (Result<TLSHandshake, TLSFailure>) -> Void
    ) {
        guard case .fresh = state else { preconditionFailure("a handshake is made once") }
        state = .handshaking
        self.completion = completion
        session = context.makeSession(for: self)
        lower.start(delegate: self, reading: true)
        if session == nil || !context.isServer || !held.isEmpty {
            Loop.shared.atEndOfTick { self.beginHandshake() }
        }
    }

    private func beginHandshake() {
        guard case .handshaking = state else { return }
        guard session != nil else { return fail(TLSFailure.take(isServer: context.isServer)) }
        processHeld()
    }

    private func continueHandshake(_ rest: inout UnsafeRawBufferPointer) {
        guard let pointer = session?.pointer else { return }
        if context.isServer, let first = rest.first, SSL_in_before(pointer) == 1,
            (UInt8(ascii: "A")...UInt8(ascii: "Z")).contains(first)
        {
            // No TLS record begins like this (RFC 8446 5.1), and every HTTP request does.
            rest = UnsafeRawBufferPointer(rebasing: rest[rest.count...])
            pending = context.makePlaintextAnswer()
            return fail(TLSFailure(.plaintext))
        }
        let result = TLSEngine.run(&rest) { SSL_do_handshake(pointer) }
        let reason = result == 1 ? SSL_ERROR_NONE : SSL_get_error(pointer, result)
        switch reason {
        case SSL_ERROR_NONE: finishHandshake(pointer)
        case SSL_ERROR_WANT_READ: sendOutput()
        case SSL_ERROR_ZERO_RETURN:
            ERR_clear_error()
            fail(TLSFailure(.disconnected))
        default: fail(TLSFailure.take(isServer: context.isServer))
        }
    }

    private func finishHandshake(_ pointer: OpaquePointer) {
        sendOutput()
        guard case .handshaking = state else { return }
        // Sent, and it would stay for the connection's life.
        if context.isServer {
            _ = hc_ssl_set_ocsp_response(pointer, nil, 0)
        } else if SSL_version(pointer) == TLS1_2_VERSION, let session = SSL_get1_session(pointer) {
            // OpenSSL does not tell of a ticket that is renewed.
            context.keep(session)
        }
        let made = describeHandshake(pointer)
        state = .established
        serverName = nil
        certificates = []
        context.metrics?.completed(made.version, isResumed: made.isResumed)
        updateInterests()
        let completion = self.completion
        self.completion = nil
        completion?(.success(made))
    }

    private func describeHandshake(_ pointer: OpaquePointer) -> TLSHandshake {
        var name: UnsafePointer<UInt8>?
        var count: UInt32 = 0
        SSL_get0_alpn_selected(pointer, &name, &count)
        let selected = UnsafeBufferPointer(start: name, count: Int(count))
        let suite = SSL_get_current_cipher(pointer)
        return TLSHandshake(
            version: SSL_version(pointer) == TLS1_2_VERSION ? .tls12 : .tls13,
            cipher: SSL_CIPHER_get_name(suite).map { String(cString: $0) } ?? "",
            isResumed: SSL_session_reused(pointer) == 1,
            applicationProtocol: count > 0 ? String(decoding: selected, as: UTF8.self) : nil,
            serverName: serverName, peerSubject: TLSStream.peerSubject(pointer))
    }

    private static func peerSubject(_ pointer: OpaquePointer) -> String? {
        guard SSL_get_verify_result(pointer) == Int(X509_V_OK),
            let certificate = SSL_get0_peer_certificate(pointer),
            let name = X509_get_subject_name(certificate), let bio = BIO_new(BIO_s_mem())
        else { return nil }
        defer { BIO_free(bio) }
        guard X509_NAME_print_ex(bio, name, 0, hc_xn_flag_rfc2253()) >= 0 else { return nil }
        var text = [UInt8](repeating: 0, count: 512)
        let count = BIO_read(bio, &text, Int32(text.count))
        return count > 0 ? String(decoding: text[..<Int(count)], as: UTF8.self) : nil
    }

    // MARK: Interest

    package func start(delegate: any ByteStreamDelegate, reading: Bool) {
        guard case .established = state, self.delegate == nil else {
            preconditionFailure("a stream is started once, after its handshake")
        }
        self.delegate = delegate
        wantsReading = reading
        updateInterests()
    }

    package func setReading(_ isOn: Bool) {
        wantsReading = isOn
        updateInterests()
    }

    package func setWriteInterest(_ isOn: Bool) {
        wantsWriting = isOn
        updateInterests()
    }

    private func updateInterests() {
        switch state {
        case .fresh, .closed: return
        case .handshaking:
            // The handshake itself bounds what the peer may send, and what we answer.
            lower.setReading(true)
            lower.setWriteInterest(pendingCount > 0)
        case .established:
            let reads = wantsReading && delegate != nil && !peerHasEnded
            lower.setReading(reads && held.isEmpty && pendingCount <= Limits.pendingBytesMax)
            lower.setWriteInterest(pendingCount > 0 || (wantsWriting && delegate != nil))
            if reads, !held.isEmpty || lowerHasEnded, !isResuming,
                pendingCount <= Limits.pendingBytesMax
            {
                // Delegates are not called from within a call of the stream.
                isResuming = true
                Loop.shared.atEndOfTick { self.resumeReading() }
            }
        case .closing:
            lower.setReading(false)
            lower.setWriteInterest(pendingCount > 0)
        case .lingering:
            lower.setReading(true)
            lower.setWriteInterest(pendingCount > 0)
        }
    }

    // MARK: Reading

    private func resumeReading() {
        isResuming = false
        guard case .established = state, wantsReading else { return }
        processHeld()
    }

    private func processHeld() {
        let input = held
        held = []
        input.withUnsafeBytes { process($0) }
    }

    private func process(_ bytes: UnsafeRawBufferPointer) {
        var rest = bytes
        while case .handshaking = state {
            let before = rest.count
            continueHandshake(&rest)
            if rest.isEmpty || rest.count == before { break }
        }
        while case .established = state, wantsReading, delegate != nil, !peerHasEnded, !rest.isEmpty
        {
            readRecords(&rest)
        }
        switch state {
        case .handshaking, .established:
            if !rest.isEmpty, !peerHasEnded { held = Array(rest) }
            if lowerHasEnded { connectionEnded() }
            updateInterests()
        case .fresh, .closing, .lingering, .closed: break
        }
    }

    /// Decrypts what there is, up to the size of the shared memory, and hands it on in one piece.
    private func readRecords(_ rest: inout UnsafeRawBufferPointer) {
        TLSEngine.withPlaintext { buffer in
            var count = 0
            let failure = decrypt(&rest, into: buffer, count: &count)
            // If the socket takes nothing any more, reading tells so next.
            sendOutput()
            if count > 0 {
                delegate?.stream(
                    self, didReceive: UnsafeRawBufferPointer(rebasing: buffer[..<count]))
            }
            guard case .established = state else { return }
            if let failure { return fail(failure) }
            if peerHasEnded { delegate?.streamDidReachEnd(self) }
        }
    }

    /// - Returns: what broke the connection, after `count` good bytes.
    private func decrypt(
        _ rest: inout UnsafeRawBufferPointer, into buffer: UnsafeMutableRawBufferPointer,
        count: inout Int
    ) -> TLSFailure? {
        guard let pointer = session?.pointer, let base = buffer.baseAddress else { return nil }
        // A record that does not fit would stay in OpenSSL's memory.
        while buffer.count - count >= TLSEngine.recordBytesMax {
            var read = 0
            let room = buffer.count - count
            let result = TLSEngine.run(&rest) { SSL_read_ex(pointer, base + count, room, &read) }
            if result == 1 {
                count += read
                uselessRecords = 0
                continue
            }
            switch SSL_get_error(pointer, result) {
            case SSL_ERROR_WANT_READ:
                if TLSEngine.isStarved { return nil }
                uselessRecords += 1
                if uselessRecords > Limits.uselessRecordsMax { return TLSFailure(.uselessRecords) }
            case SSL_ERROR_ZERO_RETURN:
                // What comes after close_notify is ignored (RFC 8446 6.1).
                peerHasEnded = true
                wantsReading = false
                return nil
            default: return TLSFailure.take(isServer: context.isServer)
            }
        }
        return nil
    }

    // MARK: Writing

    package func write(_ bytes: UnsafeRawBufferPointer) -> StreamWrite {
        guard case .established = state, !isWriteShut, let pointer = session?.pointer else {
            return .failed(SystemError(errno: EPIPE, call: "SSL_write"))
        }
        guard let base = bytes.baseAddress, bytes.count > 0 else { return .wrote(0) }
        if pendingCount > 0 {
            if let error = sendPending() { return .failed(error) }
            if pendingCount > 0 { return .wouldBlock }
        }
        var taken = 0
        while taken < bytes.count, pendingCount == 0 {
            var written = 0
            let piece = min(Limits.plaintextPerWrite, bytes.count - taken)
            let result = TLSEngine.run { SSL_write_ex(pointer, base + taken, piece, &written) }
            guard result == 1, written > 0 else {
                let failure = TLSFailure.take(isServer: context.isServer)
                context.metrics?.broke(failure.reason)
                session = nil
                return .failed(failure.systemError)
            }
            taken += written
            if let error = sendOutput() { return .failed(error) }
        }
        return .wrote(taken)
    }

    private var pendingCount: Int { pending.count - sentCount }

    /// Hands what OpenSSL has written to the socket, and keeps what that does not take.
    /// - Returns: why the socket takes nothing any more.
    @discardableResult
    private func sendOutput() -> SystemError? {
        guard TLSEngine.hasOutput else { return nil }
        let output = TLSEngine.takeOutput()
        defer { TLSEngine.giveBack(output) }
        // After our close_notify and FIN nothing may follow, not even the answer to a key update.
        if isWriteShut { return nil }
        if pendingCount > 0 {
            pending.append(contentsOf: output)
            return nil
        }
        var sent = 0
        switch output.withUnsafeBytes({ lower.write($0) }) {
        case .wrote(let count): sent = count
        case .wouldBlock: break
        case .failed(let error): return error
        }
        if sent < output.count {
            pending = Array(output[sent...])
            sentCount = 0
            lower.setWriteInterest(true)
        }
        return nil
    }

    private func sendPending() -> SystemError? {
        guard pendingCount > 0 else { return nil }
        let taken = pending.withUnsafeBytes { bytes in
            lower.write(UnsafeRawBufferPointer(rebasing: bytes[sentCount...]))
        }
        switch taken {
        case .wrote(let count): sentCount += count
        case .wouldBlock: break
        case .failed(let error): return error
        }
        if pendingCount == 0 {
            pending = []
            sentCount = 0
        }
        return nil
    }

    // MARK: The end

    package func shutdownWrite() {
        guard case .established = state, !isWriteShut else { return }
        sendCloseNotify()
        isWriteShut = true
        if pendingCount == 0 { lower.shutdownWrite() } else { endsWhenSent = true }
        updateInterests()
    }

    private func sendCloseNotify() {
        guard let pointer = session?.pointer else { return }
        _ = TLSEngine.run { SSL_shutdown(pointer) }
        ERR_clear_error()
        sendOutput()
    }

    /// Ends the connection with close_notify. What `write` took and the socket did not is still sent, as the kernel
    /// would.
    package func close() {
        switch state {
        case .fresh, .handshaking: finish()
        case .closing, .lingering, .closed: return
        case .established:
            if !isWriteShut { sendCloseNotify() }
            guard pendingCount > 0 else { return finish() }
            let dropped = delegate
            delegate = nil
            session = nil
            held = []
            state = .closing
            TLSStream.closingCount += 1
            timer = Loop.shared.schedule(after: context.timeouts.closing) { self.finish() }
            updateInterests()
            withExtendedLifetime(dropped) {}
        }
    }

    /// Ends the connection so that the peer cannot take it for a regular end.
    package func cut() {
        switch state {
        case .fresh, .handshaking, .established: finish()
        case .closing, .lingering, .closed: return
        }
    }

    /// Lets go of everything.
    private func finish() {
        let wasClosing = if case .closing = state { true } else { false }
        if case .lingering = state { TLSStream.lingeringCount -= 1 }
        state = .closed
        timer?.cancel()
        timer = nil
        session = nil
        pending = []
        sentCount = 0
        held = []
        lower.close()
        let dropped = (delegate, completion)
        delegate = nil
        completion = nil
        withExtendedLifetime(dropped) {}
        guard wasClosing else { return }
        TLSStream.closingCount -= 1
        if TLSStream.closingCount == 0 {
            for waiter in TLSStream.closingWaiters { waiter.succeed(()) }
        }
    }

    /// Waits until the last bytes of all closed streams are with the kernel: before a process ends.
    package static func waitForClosing(until deadline: Deadline) async {
        guard closingCount > 0 else { return }
        let waiter = Waiter<Void>()
        closingWaiters.append(waiter)
        defer { closingWaiters.removeAll { $0 === waiter } }
        do {
            try await waiter.wait(until: deadline)
        } catch {
            // The deadline: their clients did not read.
        }
    }

    /// Breaks off: sends the alert that OpenSSL has written, and tells the owner.
    private func fail(_ failure: TLSFailure) {
        let (completion, delegate) = (completion, delegate)
        self.completion = nil
        self.delegate = nil
        if completion == nil {
            context.metrics?.broke(failure.reason)
        } else {
            context.metrics?.failed(failure.reason)
        }
        sendOutput()
        session = nil
        held = []
        if TLSStream.lingeringCount < Limits.lingeringMax, sendPending() == nil, !lower.isClosed {
            state = .lingering
            TLSStream.lingeringCount += 1
            timer = Loop.shared.schedule(after: context.timeouts.lingering) { self.finish() }
            if pendingCount == 0 { lower.shutdownWrite() } else { endsWhenSent = true }
            updateInterests()
        } else {
            finish()
        }
        completion?(.failure(failure))
        delegate?.stream(self, didFail: failure.systemError)
    }
}

extension TLSStream: ByteStreamDelegate {
    package func stream(_ stream: any ByteStream, didReceive bytes: UnsafeRawBufferPointer) {
        switch state {
        case .handshaking, .established:
            guard !held.isEmpty else { return process(bytes) }
            held.append(contentsOf: bytes)
            if case .established = state { return updateInterests() }
            processHeld()
        case .lingering:
            lingeredBytes += bytes.count
            if lingeredBytes > Limits.lingerBytesMax { finish() }
        case .fresh, .closing, .closed: break
        }
    }

    package func streamDidReachEnd(_ stream: any ByteStream) {
        switch state {
        case .handshaking:
            let completion = self.completion
            context.metrics?.failed(.disconnected)
            finish()
            completion?(.failure(TLSFailure(.disconnected)))
        case .established:
            lowerHasEnded = true
            connectionEnded()
        case .lingering: finish()
        case .fresh, .closing, .closed: break
        }
    }

    /// The connection is at its end; if close_notify was not read before, something may be missing.
    private func connectionEnded() {
        guard case .established = state, held.isEmpty, delegate != nil, !peerHasEnded else {
            return
        }
        context.metrics?.truncations.increment()
        guard toleratesTruncation else { return fail(TLSFailure(.truncated)) }
        peerHasEnded = true
        wantsReading = false
        updateInterests()
        delegate?.streamDidReachEnd(self)
    }

    package func streamIsWritable(_ stream: any ByteStream) {
        if let error = sendPending() {
            lower.close()
            return self.stream(stream, didFail: error)
        }
        guard pendingCount == 0 else { return }
        if endsWhenSent {
            endsWhenSent = false
            lower.shutdownWrite()
        }
        switch state {
        case .established:
            if wantsWriting, let delegate { delegate.streamIsWritable(self) }
            updateInterests()
        case .closing: finish()
        case .fresh, .handshaking, .lingering, .closed: updateInterests()
        }
    }

    package func stream(_ stream: any ByteStream, didFail error: SystemError) {
        let (completion, delegate) = (completion, delegate)
        if case .closed = state { return }
        if completion != nil { context.metrics?.failed(.disconnected) }
        finish()
        completion?(.failure(TLSFailure(.disconnected)))
        delegate?.stream(self, didFail: error)
    }
}
