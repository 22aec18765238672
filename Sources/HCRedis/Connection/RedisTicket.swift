import HCCore
import HCIO

/// Who waits for the replies of a command, or of several that were sent together.
@LoopActor final class RedisTicket {
    private let expected: Int
    private var replies: [RESPValue] = []
    private let waiter = Waiter<[RESPValue]>()

    init(expected: Int) {
        self.expected = expected
        replies.reserveCapacity(expected)
    }

    func receive(_ reply: RESPValue) {
        replies.append(reply)
        // Nobody takes it if the wait is over: so the reply of an expired command is dropped.
        if replies.count == expected { waiter.succeed(replies) }
    }

    func fail(_ error: RedisError) {
        waiter.fail(error)
    }

    /// - Throws: RedisError, DeadlineExceeded, CancellationError.
    func wait(until deadline: Deadline) async throws -> [RESPValue] {
        try await waiter.wait(until: deadline)
    }
}
