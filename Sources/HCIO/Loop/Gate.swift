package import HCCore

/// Something that happens once, for which any number of tasks may wait.
@LoopActor package final class Gate {
    private var waiters: [ObjectIdentifier: Waiter<Void>] = [:]
    private var patient: [UnsafeContinuation<Void, Never>] = []
    package private(set) var isOpen = false

    package nonisolated init() {}

    /// Lets all pass, those who come later too. Opening it again does nothing.
    package func open() {
        isOpen = true
        let waiting = waiters
        waiters = [:]
        for waiter in waiting.values { waiter.succeed(()) }
        let resumed = patient
        patient = []
        for continuation in resumed { continuation.resume() }
    }

    /// Waits however long it takes, even in a task that was cancelled.
    package func wait() async {
        if isOpen { return }
        await withUnsafeContinuation { patient.append($0) }
    }

    /// - Throws: DeadlineExceeded or CancellationError, unless it is open.
    package func wait(until deadline: Deadline) async throws {
        if isOpen { return }
        let waiter = Waiter<Void>()
        waiters[ObjectIdentifier(waiter)] = waiter
        defer { waiters[ObjectIdentifier(waiter)] = nil }
        try await waiter.wait(until: deadline)
    }
}
