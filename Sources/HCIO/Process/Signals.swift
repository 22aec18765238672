internal import CLinux

/// Signals as events of the loop.
package enum Signals {
    /// Blocks the signals in the loop's thread and tells of them from now on (man signalfd).
    ///
    /// No other thread of ours takes signals: they are started with all of them blocked.
    ///
    /// - Returns: the watch, which the loop keeps alive until its `close()`.
    @discardableResult
    @LoopActor package static func watch(
        _ signals: [Int32], _ action: @escaping @LoopActor (Int32) -> Void
    ) throws(SystemError) -> SignalWatch {
        SignalMask.block(signals)
        var set = SignalMask.makeSet(signals)
        let descriptor = OwnedDescriptor(
            try SystemCall.make("signalfd") {
                signalfd(-1, &set, Int32(SFD_CLOEXEC) | Int32(SFD_NONBLOCK))
            })
        return try SignalWatch(descriptor, action)
    }
}

@LoopActor package final class SignalWatch: EventSource {
    private var descriptor: OwnedDescriptor?
    private var registration: Registration?
    private let action: @LoopActor (Int32) -> Void

    init(
        _ descriptor: consuming OwnedDescriptor, _ action: @escaping @LoopActor (Int32) -> Void
    ) throws(SystemError) {
        let fd = descriptor.rawValue
        self.descriptor = consume descriptor
        self.action = action
        registration = try Loop.shared.register(fd, events: .readable, source: self)
    }

    /// The signals stay blocked: what arrives later waits for another watch.
    package func close() {
        registration?.deregister()
        registration = nil
        descriptor = nil
    }

    package func handle(_ events: IOEvents) {
        var information = signalfd_siginfo()
        let size = MemoryLayout<signalfd_siginfo>.size
        // The action may close the watch.
        while let fd = descriptor?.rawValue {
            do {
                let count = try SystemCall.makeNonBlocking("read(signalfd)") {
                    read(fd, &information, size)
                }
                guard count != nil else { return }
                action(Int32(information.ssi_signo))
            } catch {
                preconditionFailure("a signalfd of our own: \(error)")
            }
        }
    }
}
