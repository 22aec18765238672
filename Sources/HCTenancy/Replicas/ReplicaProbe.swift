import HCCore
import HCIO
import HCPostgres

/// One connection that asks one server again and again how far it is. Not one of a pool: who waits there would look
/// like lag.
@LoopActor
final class ReplicaProbe<Answer: Sendable> {
    typealias Ask = @LoopActor (PostgresConnection, Deadline) async throws -> Answer

    private let connect: @LoopActor (Deadline) async throws -> PostgresConnection
    private let ask: Ask
    private var connection: PostgresConnection?
    private(set) var isAsking = false
    private var isClosed = false

    init(
        connect: @escaping @LoopActor (Deadline) async throws -> PostgresConnection,
        ask: @escaping Ask
    ) {
        self.connect = connect
        self.ask = ask
    }

    /// Asks, unless the last question is still open.
    ///
    /// - Parameter done: gets the answer and the moment before it was asked for.
    func sample(
        timeout: Duration,
        _ done: @escaping @LoopActor (Result<Answer, any Error>, MonotonicTime) -> Void
    ) {
        guard !isAsking, !isClosed else { return }
        isAsking = true
        Loop.shared.spawn { [self] in
            let deadline = Deadline.after(timeout, from: Loop.now)
            var askedAt = Loop.now
            let result: Result<Answer, any Error>
            do {
                let connection = try await connected(deadline)
                askedAt = Loop.now
                result = .success(try await ask(connection, deadline))
            } catch {
                drop()
                result = .failure(error)
            }
            isAsking = false
            if isClosed { drop() } else { done(result, askedAt) }
        }
    }

    private func connected(_ deadline: Deadline) async throws -> PostgresConnection {
        if let connection, connection.isUsable { return connection }
        drop()
        let fresh = try await connect(deadline)
        connection = fresh
        return fresh
    }

    private func drop() {
        connection?.close()
        connection = nil
    }

    func close() {
        isClosed = true
        if !isAsking { drop() }
    }
}
