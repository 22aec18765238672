import HCCore

/// One connection to Redis without its socket: bytes and commands in, bytes and replies out.
///
/// Redis answers in the order of the commands, so a queue of tickets is all that is needed to give
/// each reply to who waits for it. A ticket whose owner has stopped waiting stays in its place, and
/// its reply is dropped by the owner.
///
/// A ticket is what the shell waits with; the machine only hands it back.
struct RedisConnectionMachine<Ticket>: ~Copyable {
    enum State: Equatable {
        /// Before the stream is there. Can transition to: handshaking, ready, closed.
        case idle
        /// So many replies of the handshake are to come. Can transition to: ready, closed.
        case handshaking(missing: Int)
        /// Commands are taken. Can transition to: closed.
        case ready
        /// For good.
        case closed
    }

    /// Why a connection is given up.
    enum Failure: Error, Equatable {
        case refused(RedisServerError)
        case malformedReply
        case replyTooLarge
        /// A reply that nobody asked for.
        case unsolicitedReply
        /// The peer hung up, or the stream broke.
        case disconnected
        case unresponsive
    }

    enum Refusal: Error, Equatable {
        case unavailable
        case overloaded
    }

    enum Event {
        /// The handshake is done. Once.
        case ready
        case reply(Ticket, RESPValue)
    }

    enum KeepAlive: Equatable {
        /// Nothing to do before this time.
        case idle(until: MonotonicTime)
        /// A PING is in `output`, to be flushed; look again at this time.
        case ping(until: MonotonicTime)
        case unresponsive
    }

    struct Lost {
        var ticket: Ticket
        /// Whether a byte of the command went out.
        var wasSent: Bool
    }

    private enum Expectation {
        case handshake
        case ping
        case command(Ticket, offset: UInt64)
    }

    private let configuration: RedisConfiguration
    private var reader: RESPReader
    private var expectations: RingBuffer<Expectation>
    private(set) var state = State.idle
    /// Bytes for the stream to take.
    private(set) var output = ByteBuffer()
    /// Bytes that were ever put into `output`, and those of them that the stream took.
    private var bytesMade: UInt64 = 0
    private var bytesTaken: UInt64 = 0
    private var heardAt = MonotonicTime.zero
    private var pingedAt: MonotonicTime?
    private var timeouts = 0

    /// Room beyond `inFlightMax` for the handshake and a PING.
    private static var reserve: Int { 8 }

    init(configuration: RedisConfiguration) {
        self.configuration = configuration
        reader = RESPReader(limits: RESPLimits(replyBytesMax: configuration.replyBytesMax))
        expectations = RingBuffer(capacityMax: configuration.inFlightMax + Self.reserve)
    }

    /// Commands and PINGs whose reply has not come.
    var inFlight: Int { expectations.count }

    // MARK: Opening

    /// The stream is there: AUTH, SELECT and CLIENT SETNAME are put into `output`.
    mutating func connected(at now: MonotonicTime) {
        precondition(state == .idle)
        heardAt = now
        var commands: [[RedisArgument]] = []
        if let password = configuration.password {
            let user = configuration.username.map { [RedisArgument.text($0)] } ?? []
            commands.append(["AUTH"] + user + [.text(password.reveal())])
        }
        if configuration.database != 0 {
            commands.append(["SELECT", .integer(configuration.database)])
        }
        commands.append(["CLIENT", "SETNAME", .text(configuration.clientName)])
        write(RedisCommands(commands))
        for _ in commands { expectations.append(.handshake) }
        state = .handshaking(missing: commands.count)
    }

    // MARK: Commands

    /// Takes commands, all or none, each with a ticket of its own.
    ///
    /// - Returns: the offset of their first byte in the stream, for `wasSent(_:)`.
    mutating func submit(
        _ commands: RedisCommands, _ ticket: (Int) -> Ticket
    ) throws(Refusal) -> UInt64 {
        guard state == .ready else { throw .unavailable }
        guard expectations.count + commands.count <= configuration.inFlightMax,
            output.readableCount <= configuration.unsentBytesMax
        else { throw .overloaded }
        let first = bytesMade
        for index in 0..<commands.count {
            expectations.append(.command(ticket(index), offset: bytesMade))
            bytesMade = first + UInt64(commands.ends[index])
        }
        output.append(commands.buffer)
        return first
    }

    /// Whether the stream took the byte at this offset.
    func wasSent(_ offset: UInt64) -> Bool { offset < bytesTaken }

    private mutating func write(_ commands: RedisCommands) {
        output.append(commands.buffer)
        bytesMade += UInt64(commands.buffer.readableCount)
    }

    /// The stream took so many bytes of `output`.
    mutating func didWrite(_ count: Int) {
        output.consume(count)
        bytesTaken += UInt64(count)
        if output.isEmpty { output.clear(keepingCapacityUpTo: 64 << 10) }
    }

    // MARK: Replies

    /// Bytes came. What they mean is told by `next()`, which is to be called until it returns nil.
    mutating func receive(
        _ bytes: UnsafeRawBufferPointer, at now: MonotonicTime
    ) throws(Failure) {
        guard state != .closed else { return }
        heardAt = now
        pingedAt = nil
        timeouts = 0
        do throws(RESPError) {
            try reader.feed(bytes)
        } catch {
            throw .replyTooLarge
        }
    }

    mutating func next() throws(Failure) -> Event? {
        while state != .closed {
            let value: RESPValue
            do throws(RESPError) {
                guard let parsed = try reader.next() else { return nil }
                value = parsed
            } catch {
                throw error == .tooLarge ? .replyTooLarge : .malformedReply
            }
            guard let expectation = expectations.popFirst() else { throw .unsolicitedReply }
            switch expectation {
            case .command(let ticket, _):
                return .reply(ticket, value)
            case .handshake:
                if case .error(let error) = value { throw .refused(error) }
                if handshakeAdvanced() { return .ready }
            case .ping:
                break
            }
        }
        return nil
    }

    private mutating func handshakeAdvanced() -> Bool {
        guard case .handshaking(let missing) = state else { return false }
        state = missing > 1 ? .handshaking(missing: missing - 1) : .ready
        return state == .ready
    }

    // MARK: Silence

    /// A command's deadline passed without a reply.
    ///
    /// - Returns: whether the connection should be given up for it.
    mutating func didTimeOut(at now: MonotonicTime) -> Bool {
        guard state == .ready else { return false }
        timeouts += 1
        return timeouts >= configuration.timeoutsMax && now - heardAt >= configuration.silenceMin
    }

    /// To be called at the time it names, beginning when the connection is ready.
    mutating func keepAlive(at now: MonotonicTime) -> KeepAlive {
        if let pingedAt {
            let end = pingedAt + configuration.keepAliveTimeout
            return now < end ? .idle(until: end) : .unresponsive
        }
        let due = heardAt + configuration.keepAliveInterval
        guard now >= due, state == .ready else {
            return .idle(until: max(due, now + .milliseconds(1)))
        }
        write([["PING"]])
        expectations.append(.ping)
        pingedAt = now
        return .ping(until: now + configuration.keepAliveTimeout)
    }

    // MARK: End

    /// Ends the connection. - Returns: the tickets whose reply will never come, in order.
    mutating func close() -> [Lost] {
        state = .closed
        var lost: [Lost] = []
        while let expectation = expectations.popFirst() {
            if case .command(let ticket, let offset) = expectation {
                lost.append(Lost(ticket: ticket, wasSent: wasSent(offset)))
            }
        }
        output = ByteBuffer()
        return lost
    }
}
