import HCCore
package import HCIO

/// A program need not wait for Redis to begin, nor stop without it: so there is nothing to prepare.
extension RedisClient: Service {
    package var serviceName: String { "redis" }

    /// Connects, and stays connected until it is shut down.
    ///
    /// - Throws: CancellationError; the client is closed then.
    package func run() async throws {
        if state == .idle { start() }
        guard state != .closed else { return }
        do throws(RedisError) {
            try await wait(for: .closed, deadline: .never)
        } catch {
            close()
            throw CancellationError()
        }
    }

    package func shutDown(_ running: RunningService) {
        let deadline = Deadline.after(configuration.drainTimeout, from: Loop.now)
        Loop.shared.spawn { await self.shutDown(deadline: deadline) }
    }
}
