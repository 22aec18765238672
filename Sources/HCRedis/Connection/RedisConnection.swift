import HCCore
import HCIO

/// A connection to Redis: the machine, its stream and its timers.
///
/// Commands of one tick are written together at the tick's end.
@LoopActor final class RedisConnection: ByteStreamDelegate {
    typealias Machine = RedisConnectionMachine<RedisTicket>

    /// Who is told. Neither call comes from within a call of the connection's methods but `close`.
    struct Observer {
        var isReady: @LoopActor () -> Void
        var isClosed: @LoopActor (Machine.Failure) -> Void
    }

    private let stream: any ByteStream
    private var machine: Machine
    private var observer: Observer?
    private var flushIsDue = false
    private var keepAliveTimer: Timer?

    init(stream: any ByteStream, configuration: RedisConfiguration, observer: Observer) {
        self.stream = stream
        self.observer = observer
        machine = Machine(configuration: configuration)
    }

    var inFlight: Int { machine.inFlight }

    /// Sends the handshake.
    func start() {
        stream.start(delegate: self, reading: true)
        machine.connected(at: Loop.now)
        flush()
    }

    // MARK: Commands

    /// - Throws: `.unavailable` or `.overloaded`, before anything is sent; later `.connectionLost`,
    ///   `.deadlineExceeded`, `.cancelled`.
    func send(
        _ commands: RedisCommands, deadline: Deadline
    ) async throws(RedisError) -> [RESPValue] {
        let ticket = RedisTicket(expected: commands.count)
        let offset: UInt64
        do throws(Machine.Refusal) {
            offset = try machine.submit(commands) { _ in ticket }
        } catch {
            throw error == .overloaded ? .overloaded : .unavailable
        }
        scheduleFlush()
        do {
            return try await ticket.wait(until: deadline)
        } catch let error as RedisError {
            throw error
        } catch is CancellationError {
            throw .cancelled(sent: machine.wasSent(offset))
        } catch {
            let sent = machine.wasSent(offset)
            if machine.didTimeOut(at: Loop.now) { close(.unresponsive) }
            throw .deadlineExceeded(sent: sent)
        }
    }

    private func scheduleFlush() {
        guard !flushIsDue else { return }
        flushIsDue = true
        Loop.shared.atEndOfTick {
            self.flushIsDue = false
            self.flush()
        }
    }

    private func flush() {
        while machine.state != .closed && !machine.output.isEmpty {
            switch machine.output.withUnsafeReadableBytes({ stream.write($0) }) {
            case .wrote(let count):
                machine.didWrite(count)
            case .wouldBlock:
                stream.setWriteInterest(true)
                return
            case .failed:
                close(.disconnected)
                return
            }
        }
        if machine.state != .closed { stream.setWriteInterest(false) }
    }

    // MARK: Stream

    func stream(_ stream: any ByteStream, didReceive bytes: UnsafeRawBufferPointer) {
        do throws(Machine.Failure) {
            try machine.receive(bytes, at: Loop.now)
            while let event = try machine.next() {
                switch event {
                case .reply(let ticket, let value):
                    ticket.receive(value)
                case .ready:
                    keepAlive()
                    observer?.isReady()
                }
            }
        } catch {
            close(error)
        }
    }

    func streamDidReachEnd(_ stream: any ByteStream) { close(.disconnected) }
    func streamIsWritable(_ stream: any ByteStream) { flush() }
    func stream(_ stream: any ByteStream, didFail error: SystemError) { close(.disconnected) }

    // MARK: Silence and end

    private func keepAlive() {
        let next: MonotonicTime
        switch machine.keepAlive(at: Loop.now) {
        case .idle(let until):
            next = until
        case .ping(let until):
            scheduleFlush()
            next = until
        case .unresponsive:
            close(.unresponsive)
            return
        }
        keepAliveTimer = Loop.shared.schedule(at: Deadline(next)) { self.keepAlive() }
    }

    /// Ends the connection; who still waits for a reply learns whether the command went out.
    func close(_ failure: Machine.Failure) {
        guard let observer else { return }
        self.observer = nil
        keepAliveTimer?.cancel()
        keepAliveTimer = nil
        stream.close()
        for lost in machine.close() {
            lost.ticket.fail(lost.wasSent ? .connectionLost : .unavailable)
        }
        observer.isClosed(failure)
    }
}
