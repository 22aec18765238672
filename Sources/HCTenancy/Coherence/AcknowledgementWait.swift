import HCCore
import HCIO

/// One void that waits for the processes that may have copies: until each has answered or its lease has run out.
@LoopActor
final class AcknowledgementWait {
    private var missing: [String: MonotonicTime] = [:]
    private var early: Set<String> = []
    private let end = HCIO.Gate()

    nonisolated init() {}

    func expect(_ process: String, until time: MonotonicTime) {
        if early.remove(process) == nil { missing[process] = time }
    }

    /// An answer may come before it is known that one is expected.
    func acknowledged(by process: String) {
        if missing.removeValue(forKey: process) == nil { early.insert(process) }
        if missing.isEmpty { end.open() }
    }

    /// Waits, in a task that is cancelled as well.
    /// - Returns: false if a lease had to run out.
    func finish() async -> Bool {
        guard let last = missing.values.max() else { return true }
        let timer = Loop.shared.schedule(at: Deadline(last)) { self.end.open() }
        defer { timer.cancel() }
        await end.wait()
        return missing.isEmpty
    }
}
