internal import CLinux

/// What a descriptor is ready for, or what somebody wants to hear about it (man epoll_ctl).
package struct IOEvents: OptionSet, Sendable {
    package let rawValue: UInt32

    package init(rawValue: UInt32) {
        self.rawValue = rawValue
    }

    package static let readable = IOEvents(rawValue: EPOLLIN.rawValue)
    package static let writable = IOEvents(rawValue: EPOLLOUT.rawValue)
    /// The peer will send no more (EPOLLRDHUP). Reported only if asked for.
    package static let peerClosed = IOEvents(rawValue: EPOLLRDHUP.rawValue)
    /// Both directions are over (EPOLLHUP). Always reported.
    package static let hangup = IOEvents(rawValue: EPOLLHUP.rawValue)
    /// The descriptor has an error to tell (EPOLLERR). Always reported.
    package static let error = IOEvents(rawValue: EPOLLERR.rawValue)

    /// What epoll reports whether it was asked to or not.
    static let unasked: IOEvents = [.hangup, .error]
}

/// Something that wants to hear about a descriptor.
@LoopActor package protocol EventSource: AnyObject {
    /// Called on the loop with what is ready: only events of the current interest, and hangup and error.
    ///
    /// Level-triggered: what is not dealt with is told again in the next tick.
    func handle(_ events: IOEvents)
}
