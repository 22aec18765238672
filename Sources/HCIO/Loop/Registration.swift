/// A descriptor's place on the loop: eight bytes, freely copied; the loop holds the rest.
///
/// The loop keeps the source alive until `deregister()`. A registration of which the descriptor has been
/// deregistered is over for ever, even when the number is used again.
package struct Registration: Sendable {
    package let descriptor: Int32
    let generation: UInt32

    /// False after `deregister()`.
    @LoopActor package var isActive: Bool {
        Loop.shared.selector.isRegistered(descriptor, generation)
    }

    @LoopActor var isMuted: Bool {
        Loop.shared.selector.isMuted(descriptor, generation)
    }

    /// Costs one system call if `events` differ from the last, else none.
    @LoopActor package func setEvents(_ events: IOEvents) {
        Loop.shared.selector.setInterest(events, of: descriptor, generation: generation)
    }

    /// Not even hangup and error are told until the next `setEvents`.
    @LoopActor package func mute() {
        Loop.shared.selector.mute(descriptor, generation: generation)
    }

    /// To be called before the descriptor is closed. Calling it again does nothing.
    @LoopActor package func deregister() {
        let source = Loop.shared.selector.deregister(
            descriptor, generation: generation, mayBeClosed: false)
        withExtendedLifetime(source) {}
    }

    /// As `deregister()`, for a descriptor that a C library owns and may have closed already.
    @LoopActor package func deregisterForeign() {
        let source = Loop.shared.selector.deregister(
            descriptor, generation: generation, mayBeClosed: true)
        withExtendedLifetime(source) {}
    }
}
