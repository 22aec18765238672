import CLinux
import Glibc
import HCCore
package import HCIO

extension Loop {
    /// Returns when the loop has asked the kernel for events after this call, and has told what there was: an event of
    /// our own came, behind those of before. For a test that says what does not happen, and has no event to wait for.
    @LoopActor package func lookAround() async throws {
        // What the first look set in motion is seen by the second.
        for _ in 0..<2 {
            let pair = try OwnedDescriptor.socketPair()
            let told = Waiter<Void>()
            let registration = try register(
                pair.first.rawValue, events: .readable, source: Mark { told.succeed(()) })
            defer { registration.deregister() }
            var byte: UInt8 = 1
            guard Glibc.write(pair.second.rawValue, &byte, 1) == 1 else {
                throw FixtureError("a socket pair takes no byte")
            }
            try await told.wait(until: .after(.seconds(20), from: Loop.now))
        }
    }

    /// Waits for what the loop's events make true, looking after each look at them.
    ///
    /// - Throws: `FixtureError` when it has not come true for a time that only a failing test waits.
    @LoopActor package func wait(for condition: () -> Bool) async throws {
        let deadline = Deadline.after(.seconds(20), from: Loop.now)
        while !condition() {
            guard !deadline.isExpired(at: Loop.now) else {
                throw FixtureError("it did not come to pass")
            }
            try await lookAround()
        }
    }
}

@LoopActor
private final class Mark: EventSource {
    private let action: () -> Void

    init(_ action: @escaping @LoopActor () -> Void) {
        self.action = action
    }

    func handle(_ events: IOEvents) { action() }
}
