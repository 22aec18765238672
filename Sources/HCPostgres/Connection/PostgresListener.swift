package import HCCore
package import HCIO

/// Listens on channels for as long as it runs, over connections of its own, one after the other.
///
/// A notification is a hint: those sent while no connection was there are lost. So the owner is told of every new
/// connection too, and looks for itself what it has missed.
@LoopActor
package final class PostgresListener: Service {
    package enum Event: Sendable {
        /// LISTEN is in effect: from now on nothing is missed. Read again what the notifications are about.
        case connected
        case notification(PostgresNotification)
        /// Notifications are being missed until the next `connected`.
        case disconnected(PostgresError)
    }

    package struct Configuration: Sendable {
        package var connectTimeout: Duration = .seconds(5)
        /// How often a connection on which nothing happens is asked whether it is still there.
        package var probeInterval: Duration = .seconds(15)
        package var probeTimeout: Duration = .seconds(5)
        package var backoff = Backoff(initial: .milliseconds(100), maximum: .seconds(5))

        package init() {}
    }

    private let postgres: PostgresConfiguration
    private let channels: [String]
    private let configuration: Configuration
    private let onEvent: @LoopActor (Event) -> Void
    private var generator = SystemRandomNumberGenerator()

    /// - Parameter channels: names as `NOTIFY` has them; at least one.
    package init(
        _ postgres: PostgresConfiguration, channels: [String],
        configuration: Configuration = Configuration(),
        onEvent: @escaping @LoopActor (Event) -> Void
    ) {
        precondition(!channels.isEmpty, "a listener listens to something")
        self.postgres = postgres
        self.channels = channels
        self.configuration = configuration
        self.onEvent = onEvent
    }

    package var serviceName: String { "listener \(channels.joined(separator: ","))" }

    /// Until the task is cancelled.
    package func run() async throws {
        var backoff = configuration.backoff
        while true {
            do throws(PostgresError) {
                try await listen { backoff.reset() }
            } catch {
                if Task.isCancelled { return }
                postgres.logger?.warning(
                    "the listener lost its connection", [("error", .string("\(error)"))])
                onEvent(.disconnected(error))
            }
            do {
                try await Loop.shared.sleep(for: backoff.next(using: &generator))
            } catch {
                return
            }
        }
    }

    /// Over one connection, until it ends: never returns without an error.
    private func listen(
        _ onConnected: () -> Void
    ) async throws(PostgresError) -> Never {
        let connection = try await PostgresConnection.connect(
            postgres, deadline: deadline(configuration.connectTimeout))
        defer { connection.close() }
        let end = ConnectionEnd()
        connection.onClose = { end.happen() }
        connection.onNotification = { [onEvent] in onEvent(.notification($0)) }
        var listens: [Query] = []
        for channel in channels {
            guard let name = Query.quotedIdentifier(channel) else {
                throw PostgresError(.misuse("a channel has the form of a name"))
            }
            listens.append(.unsafeSQL("LISTEN \(name)"))
        }
        _ = try await connection.execute(
            listens, deadline: deadline(configuration.connectTimeout))
        onConnected()
        onEvent(.connected)
        while true {
            try await end.wait(until: deadline(configuration.probeInterval))
            _ = try await connection.execute(
                Query("SELECT"), deadline: deadline(configuration.probeTimeout))
        }
    }

    private func deadline(_ duration: Duration) -> Deadline {
        .after(duration, from: Loop.now)
    }
}

/// Lets a task wait again and again for the end of one connection.
@LoopActor
private final class ConnectionEnd {
    private var hasHappened = false
    private var waiter: Waiter<Void>?

    func happen() {
        hasHappened = true
        waiter?.succeed(())
    }

    /// Returns at the deadline. Throws when the connection has ended, or the task was cancelled.
    func wait(until deadline: Deadline) async throws(PostgresError) {
        guard !hasHappened else { throw .connectionLost }
        let waiter = Waiter<Void>()
        self.waiter = waiter
        do {
            try await waiter.wait(until: deadline)
        } catch is DeadlineExceeded {
            return
        } catch {
            throw .cancelled
        }
        throw .connectionLost
    }
}
