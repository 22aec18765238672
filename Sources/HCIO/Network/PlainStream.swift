internal import CLinux

/// A connected stream socket without encryption: TCP or Unix.
@LoopActor package final class PlainStream: ByteStream, EventSource {
    private var descriptor: OwnedDescriptor?
    private var delegate: (any ByteStreamDelegate)?
    private var registration: Registration?
    private var interest: IOEvents = []
    private var hasEnded = false
    /// Beside the descriptor, and not seen from outside: it is asked several times for each request, and each look at what
    /// others might be changing asks the runtime whether they are.
    private var isShut = false

    /// Takes over a connected, non-blocking socket.
    package init(_ descriptor: consuming OwnedDescriptor) {
        self.descriptor = consume descriptor
    }

    // A stream that is dropped unstarted closes its descriptor with the owner's deinit; a started one
    // cannot be dropped, for the loop holds it.

    package var isClosed: Bool { isShut }

    package var hasInput: Bool {
        guard let fd = descriptorNumber, !hasEnded else { return false }
        var byte: UInt8 = 0
        return recv(fd, &byte, 1, Int32(MSG_PEEK | MSG_DONTWAIT)) > 0
    }

    package var remoteAddress: SocketAddress? { address(SocketAddress.peer) }
    package var localAddress: SocketAddress? { address(SocketAddress.local) }

    private func address(
        _ ask: (Int32) throws(SystemError) -> SocketAddress?
    ) -> SocketAddress? {
        guard let fd = descriptorNumber else { return nil }
        // ENOTCONN: the peer has gone since. It has no address any more, as the documentation says.
        do { return try ask(fd) } catch { return nil }
    }

    /// Whether the kernel was told to say nothing of this connection.
    var isMuted: Bool { registration?.isMuted ?? false }

    var descriptorNumber: Int32? { descriptor?.rawValue }

    // MARK: Interest

    package func start(delegate: any ByteStreamDelegate, reading: Bool) {
        precondition(self.delegate == nil && registration == nil, "a stream is started once")
        guard let fd = descriptorNumber else { preconditionFailure("the stream is closed") }
        self.delegate = delegate
        interest = reading ? .readable : []
        do {
            registration = try Loop.shared.register(fd, events: interest, source: self)
        } catch {
            // ENOSPC or ENOMEM: the kernel has no room to watch one more. Told like a broken connection,
            // and after the caller has returned.
            Loop.shared.atEndOfTick { self.fail(error) }
        }
    }

    package func setReading(_ isOn: Bool) {
        setInterest(.readable, isOn && !hasEnded)
    }

    package func setWriteInterest(_ isOn: Bool) {
        setInterest(.writable, isOn)
    }

    private func setInterest(_ event: IOEvents, _ isOn: Bool) {
        guard let registration, interest.contains(event) != isOn else { return }
        if isOn { interest.insert(event) } else { interest.remove(event) }
        registration.setEvents(interest)
    }

    // MARK: Writing

    package func write(_ bytes: UnsafeRawBufferPointer) -> StreamWrite {
        guard let fd = descriptorNumber else {
            return .failed(SystemError(errno: EPIPE, call: "send"))
        }
        guard bytes.count > 0 else { return .wrote(0) }
        do {
            let count = try SystemCall.makeNonBlocking("send") {
                send(fd, bytes.baseAddress, bytes.count, Int32(MSG_NOSIGNAL))
            }
            guard let count else { return .wouldBlock }
            return .wrote(count)
        } catch {
            return .failed(error)
        }
    }

    package func shutdownWrite() {
        guard let fd = descriptorNumber else { return }
        // ENOTCONN: the peer has gone already, and the next read tells so.
        _ = CLinux.shutdown(fd, Int32(SHUT_WR))
    }

    /// Closes without saying good-bye: the peer gets a reset, and what was not sent is thrown away.
    package func abort() throws(SystemError) {
        guard let fd = descriptorNumber else { return }
        var lingering = linger(l_onoff: 1, l_linger: 0)
        try SystemCall.make("setsockopt(SO_LINGER)") {
            setsockopt(fd, SOL_SOCKET, SO_LINGER, &lingering, socklen_t(MemoryLayout<linger>.size))
        }
        close()
    }

    package func close() {
        guard !isShut else { return }
        isShut = true
        registration?.deregister()
        registration = nil
        interest = []
        descriptor = nil
        let dropped = delegate
        delegate = nil
        withExtendedLifetime(dropped) {}
    }

    // MARK: Events

    package func handle(_ events: IOEvents) {
        if interest.contains(.readable) {
            // A read tells the end and the error of a connection better than the event does.
            read()
        } else if events.contains(.error) {
            fail(takeError())
            return
        } else if events.contains(.hangup), !interest.contains(.writable) {
            // Both directions are over, but unread bytes may be left and nobody wants them now. The event
            // would be told for ever: not until somebody reads or writes.
            registration?.mute()
            return
        }
        guard interest.contains(.writable), !events.isDisjoint(with: [.writable, .hangup, .error])
        else { return }
        delegate?.streamIsWritable(self)
    }

    private func read() {
        guard let fd = descriptorNumber else { return }
        let buffer = Loop.shared.readBuffer
        do {
            let count = try SystemCall.makeNonBlocking("recv") {
                recv(fd, buffer.baseAddress, buffer.count, 0)
            }
            guard let count else { return }
            guard count > 0 else {
                hasEnded = true
                setReading(false)
                delegate?.streamDidReachEnd(self)
                return
            }
            delegate?.stream(self, didReceive: UnsafeRawBufferPointer(rebasing: buffer[..<count]))
        } catch {
            fail(error)
        }
    }

    private func takeError() -> SystemError {
        let unknown = SystemError(errno: ECONNRESET, call: "recv")
        guard let fd = descriptorNumber else { return unknown }
        return Socket.takeError(fd, "recv") ?? unknown
    }

    private func fail(_ error: SystemError) {
        guard let delegate else { return }
        close()
        delegate.stream(self, didFail: error)
    }
}
