package import HCCore
package import HCIO

/// One Redis, over one connection that all commands share, and that is made again when it breaks.
///
/// Redis holds nothing that cannot be rebuilt, so this client never waits for it: while there is no
/// connection every command fails at once, and callers go on without. Commands of one tick leave in
/// one write. Blocking commands (BLPOP and the like) would hold up everybody else: they need a
/// client of their own, with a longer `keepAliveInterval` than they block.
@LoopActor package final class RedisClient {
    package enum State: Equatable, Sendable {
        /// Before `start`.
        case idle
        case connecting
        case ready
        /// Until the next attempt.
        case waiting
        /// For good.
        case closed
    }

    package private(set) var state = State.idle
    /// When the present connection became ready; nil while there is none.
    package private(set) var connectedSince: MonotonicTime?
    /// Why the last connection or attempt ended, as a word for logs and health reports.
    package private(set) var lastFailure: String?

    let configuration: RedisConfiguration
    private let connect: RedisConnector
    private let logger: Logger
    private let metrics: RedisMetrics
    private var random: SystemRandomNumberGenerator
    private(set) var backoff: Backoff
    private var connection: RedisConnection?
    private var timer: Timer?
    private var observers: [@LoopActor (State) -> Void] = []
    private var stateWaiters: [(wanted: State, waiter: Waiter<Void>)] = []
    private var drained: Waiter<Void>?
    private var waiting = 0
    private var isDraining = false

    package init(
        configuration: RedisConfiguration, connector: @escaping RedisConnector,
        logger: Logger = .silent, metrics: MetricsRegistry = .unread
    ) {
        self.configuration = configuration
        connect = connector
        self.logger = logger
        self.metrics = RedisMetrics(registry: metrics)
        random = SystemRandomNumberGenerator()
        backoff = Backoff(
            initial: configuration.backoffInitial, maximum: configuration.backoffMax)
    }

    // MARK: Life

    /// Begins to connect, and keeps connected until it is closed. Returns at once.
    package func start() {
        precondition(state == .idle, "a client is started once")
        attempt()
    }

    /// Calls `observer` at each change of state, from now on and for the client's life.
    package func observe(_ observer: @escaping @LoopActor (State) -> Void) {
        observers.append(observer)
    }

    /// Waits for a connection.
    ///
    /// - Throws: `.deadlineExceeded`, `.cancelled`, or `.unavailable` if the client is closed.
    package func waitUntilReady(deadline: Deadline) async throws(RedisError) {
        try await wait(for: .ready, deadline: deadline)
    }

    /// Waits until the client is in `wanted`.
    func wait(for wanted: State, deadline: Deadline) async throws(RedisError) {
        guard state != wanted else { return }
        guard state != .closed else { throw .unavailable }
        let waiter = Waiter<Void>()
        stateWaiters.append((wanted, waiter))
        defer { stateWaiters.removeAll { $0.waiter === waiter } }
        do {
            try await waiter.wait(until: deadline)
        } catch let error as RedisError {
            throw error
        } catch is CancellationError {
            throw .cancelled(sent: false)
        } catch {
            throw .deadlineExceeded(sent: false)
        }
    }

    /// Takes no more commands, waits until those under way have their reply or the deadline
    /// passes, and closes.
    package func shutDown(deadline: Deadline) async {
        guard state != .closed else { return }
        isDraining = true
        if waiting > 0 {
            let waiter = Waiter<Void>()
            drained = waiter
            do {
                try await waiter.wait(until: deadline)
            } catch {
                logger.warning(
                    "redis commands were under way when the client was closed",
                    [("count", .integer(waiting))])
            }
        }
        close()
    }

    /// Ends the connection and does not make another. Commands under way fail.
    package func close() {
        guard state != .closed else { return }
        timer?.cancel()
        timer = nil
        connectedSince = nil
        change(to: .closed)
        let connection = connection
        self.connection = nil
        connection?.close(.disconnected)
        metrics.connected.set(0)
    }

    private func change(to next: State) {
        guard state != next, state != .closed else { return }
        state = next
        for (wanted, waiter) in stateWaiters {
            if wanted == next {
                waiter.succeed(())
            } else if next == .closed {
                waiter.fail(RedisError.unavailable)
            }
        }
        for observer in observers { observer(next) }
    }

    // MARK: Connecting

    private func attempt() {
        timer = nil
        change(to: .connecting)
        let deadline = Deadline.after(configuration.connectTimeout, from: Loop.now)
        Loop.shared.spawn {
            do {
                let stream = try await self.connect(deadline)
                self.handshake(on: stream, deadline: deadline)
            } catch {
                self.attemptFailed("\(error)")
            }
        }
    }

    private func handshake(on stream: any ByteStream, deadline: Deadline) {
        guard state == .connecting else {
            stream.close()
            return
        }
        let observer = RedisConnection.Observer(
            isReady: { self.becameReady() },
            isClosed: { failure in self.connectionClosed(failure) })
        let connection = RedisConnection(
            stream: stream, configuration: configuration, observer: observer)
        self.connection = connection
        timer = Loop.shared.schedule(at: deadline) { connection.close(.unresponsive) }
        connection.start()
    }

    private func becameReady() {
        guard state == .connecting else { return }
        timer?.cancel()
        timer = nil
        lastFailure = nil
        connectedSince = Loop.now
        metrics.connects.increment()
        metrics.connected.set(1)
        logger.info("redis is connected")
        change(to: .ready)
    }

    private func connectionClosed(_ failure: RedisConnection.Machine.Failure) {
        if let connectedSince, Loop.now - connectedSince >= configuration.steadyAfter {
            backoff.reset()
        }
        connection = nil
        connectedSince = nil
        metrics.connected.set(0)
        attemptFailed(failure.text)
    }

    private func attemptFailed(_ reason: String) {
        guard state != .closed else { return }
        timer?.cancel()
        lastFailure = reason
        if state == .connecting { metrics.connectFailures.increment() }
        let pause = backoff.next(using: &random)
        // Once for each outage, not for each attempt.
        logger.log(
            backoff.failures == 1 ? .warning : .debug, "redis is not connected",
            [("reason", .string(reason)), ("failures", .integer(backoff.failures))])
        timer = Loop.shared.schedule(at: .after(pause, from: Loop.now)) { self.attempt() }
        change(to: .waiting)
    }

    // MARK: Commands

    /// Sends a command and waits for its reply.
    ///
    /// - Throws: `.server` for an error reply; else see `RedisError`.
    package func send(
        _ command: [RedisArgument], deadline: Deadline
    ) async throws(RedisError) -> RESPValue {
        let replies = try await pipeline([command], deadline: deadline)
        if case .error(let error) = replies[0] { throw .server(error) }
        return replies[0]
    }

    /// Sends several commands together: one round trip. Other clients' commands may run between
    /// them; a script or MULTI makes them one step.
    ///
    /// - Returns: one reply for each command; an error reply is a value here.
    package func pipeline(
        _ commands: [[RedisArgument]], deadline: Deadline
    ) async throws(RedisError) -> [RESPValue] {
        try await pipeline(of: RedisCommands(commands), deadline: deadline)
    }

    /// As above, of commands that are written already.
    package func pipeline(
        of commands: RedisCommands, deadline: Deadline
    ) async throws(RedisError) -> [RESPValue] {
        guard !commands.isEmpty else { return [] }
        guard state == .ready, !isDraining, let connection else {
            metrics.unavailable.increment()
            throw .unavailable
        }
        let begin = Loop.now
        guard !deadline.isExpired(at: begin) else { throw .deadlineExceeded(sent: false) }
        waiting += 1
        metrics.commands.increment(by: commands.count)
        metrics.inFlight.add(commands.count)
        defer {
            waiting -= 1
            metrics.inFlight.add(-commands.count)
            if waiting == 0 { drained?.succeed(()) }
        }
        do throws(RedisError) {
            let replies = try await connection.send(commands, deadline: deadline)
            metrics.latency.observe(Loop.now - begin)
            return replies
        } catch {
            count(error)
            throw error
        }
    }

    private func count(_ error: RedisError) {
        switch error {
        case .unavailable: metrics.unavailable.increment()
        case .overloaded: metrics.overloaded.increment()
        case .connectionLost: metrics.lost.increment()
        case .deadlineExceeded: metrics.timeouts.increment()
        case .cancelled, .server, .unexpectedReply: break
        }
    }

    /// Runs a script by its digest; where Redis does not have it (it was restarted, or its scripts
    /// were flushed) the script is loaded and run again, once, in one more round trip.
    ///
    /// - Throws: `.server` for an error of the script; else see `RedisError`.
    package func evaluate(
        _ script: RedisScript, keys: [RedisArgument], arguments: [RedisArgument],
        deadline: Deadline
    ) async throws(RedisError) -> RESPValue {
        let call = RedisScriptCall(keys: keys, arguments: arguments)
        let reply = try await evaluate(script, [call], deadline: deadline)[0]
        if case .error(let error) = reply { throw .server(error) }
        return reply
    }

    /// Runs a script several times in one round trip, and in two more if Redis does not have it.
    ///
    /// - Returns: one reply for each call; an error reply is a value here.
    package func evaluate(
        _ script: RedisScript, _ calls: [RedisScriptCall], deadline: Deadline
    ) async throws(RedisError) -> [RESPValue] {
        var runs = RedisCommands()
        for call in calls { runs.append(call, of: script) }
        return try await evaluate(script, runs: runs, deadline: deadline)
    }

    /// As above, of runs that are written already: all of this script.
    package func evaluate(
        _ script: RedisScript, runs: RedisCommands, deadline: Deadline
    ) async throws(RedisError) -> [RESPValue] {
        var replies = try await pipeline(of: runs, deadline: deadline)
        let missing = replies.indices.filter { replies[$0].asError?.code == "NOSCRIPT" }
        guard !missing.isEmpty else { return replies }
        metrics.scriptLoads.increment()
        var again: RedisCommands = [["SCRIPT", "LOAD", .name(script.source)]]
        for index in missing { again.append(index, of: runs) }
        let second = try await pipeline(of: again, deadline: deadline)
        if case .error(let error) = second[0] { throw .server(error) }
        for (index, reply) in zip(missing, second.dropFirst()) { replies[index] = reply }
        return replies
    }
}

/// The keys and arguments of one run of a script.
package struct RedisScriptCall: Sendable {
    let keys: [RedisArgument]
    let arguments: [RedisArgument]

    package init(keys: [RedisArgument], arguments: [RedisArgument]) {
        self.keys = keys
        self.arguments = arguments
    }
}

extension RedisConnectionMachine.Failure {
    fileprivate var text: String {
        switch self {
        case .refused(let error): "refused: \(error.code)"
        case .malformedReply: "malformed reply"
        case .replyTooLarge: "reply too large"
        case .unsolicitedReply: "unsolicited reply"
        case .disconnected: "disconnected"
        case .unresponsive: "unresponsive"
        }
    }
}
