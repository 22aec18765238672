internal import CLinux
internal import HCCore

/// The epoll instance and who is registered with it.
///
/// An event carries the descriptor and the generation of its registration. A callback may close descriptor
/// 7 and a new connection may get the number 7 while old events of 7 are still in the array: they carry the
/// old generation and are dropped.
struct Selector: ~Copyable {
    private struct Slot {
        var source: (any EventSource)?
        var generation: UInt32 = 0
        var interest: IOEvents = []
        /// Whether the kernel knows the descriptor: not while it is muted.
        var isInKernel = false
    }

    private let epoll: OwnedDescriptor
    private var slots: [Slot] = []
    private var generation: UInt32 = 0
    private var events: UnsafeMutableBufferPointer<epoll_event>
    private(set) var registeredCount = 0
    /// Events that were dropped because their descriptor had been given to somebody else.
    private(set) var staleEvents = 0

    init() throws(SystemError) {
        epoll = OwnedDescriptor(
            try SystemCall.make("epoll_create1") { epoll_create1(Int32(EPOLL_CLOEXEC)) })
        events = .allocate(capacity: 64)
    }

    deinit {
        events.deallocate()
    }

    var eventCapacity: Int { events.count }

    // MARK: Who is registered

    /// - Throws: SystemError for what cannot be polled (EPERM: a file) or is too much (ENOSPC, ENOMEM).
    mutating func register(
        _ fd: Int32, interest: IOEvents, source: any EventSource
    ) throws(SystemError) -> UInt32 {
        precondition(fd >= 0, "no descriptor has a negative number")
        let index = Int(fd)
        while slots.count <= index { slots.append(Slot()) }
        precondition(slots[index].source == nil, "descriptor \(fd) is registered already")
        generation &+= 1
        try control(EPOLL_CTL_ADD, fd, interest, generation)
        slots[index] = Slot(
            source: source, generation: generation, interest: interest, isInKernel: true)
        registeredCount += 1
        return generation
    }

    /// One system call if the interest changes or the descriptor was muted, else none.
    mutating func setInterest(_ interest: IOEvents, of fd: Int32, generation: UInt32) {
        let index = Int(fd)
        precondition(isRegistered(fd, generation), "the registration of \(fd) is over")
        guard slots[index].interest != interest || !slots[index].isInKernel else { return }
        let operation = slots[index].isInKernel ? EPOLL_CTL_MOD : EPOLL_CTL_ADD
        slots[index].interest = interest
        slots[index].isInKernel = true
        mustControl(operation, fd, interest, generation)
    }

    /// Takes the descriptor out of the kernel's set until the next `setInterest`: the only way not to
    /// hear of a hangup again and again.
    mutating func mute(_ fd: Int32, generation: UInt32) {
        let index = Int(fd)
        precondition(isRegistered(fd, generation), "the registration of \(fd) is over")
        guard slots[index].isInKernel else { return }
        slots[index].interest = []
        slots[index].isInKernel = false
        mustControl(EPOLL_CTL_DEL, fd, [], generation)
    }

    /// - Parameter mayBeClosed: the descriptor belongs to a C library that may have closed it already.
    /// - Returns: the source, so that its end, if this was the last reference, comes after this call and
    ///   may use the selector itself.
    mutating func deregister(
        _ fd: Int32, generation: UInt32, mayBeClosed: Bool
    ) -> (any EventSource)? {
        guard isRegistered(fd, generation) else { return nil }
        let index = Int(fd)
        let wasInKernel = slots[index].isInKernel
        let source = slots[index].source
        slots[index] = Slot()
        registeredCount -= 1
        guard wasInKernel else { return source }
        if mayBeClosed {
            var event = hc_epoll_event(0, 0)
            // EBADF and ENOENT are as good as done: a closed descriptor has left the set by itself.
            // Nobody else can have registered its number, for the slot was taken until now.
            _ = epoll_ctl(epoll.rawValue, EPOLL_CTL_DEL, fd, &event)
        } else {
            mustControl(EPOLL_CTL_DEL, fd, [], generation)
        }
        return source
    }

    func isRegistered(_ fd: Int32, _ generation: UInt32) -> Bool {
        let index = Int(fd)
        return index < slots.count && slots[index].generation == generation
            && slots[index].source != nil
    }

    func isMuted(_ fd: Int32, _ generation: UInt32) -> Bool {
        isRegistered(fd, generation) && !slots[Int(fd)].isInKernel
    }

    // MARK: What happened

    /// Set when the kernel (before 5.11) or a sandbox does not know epoll_pwait2.
    var isLimitedToMilliseconds = false

    /// Waits for events.
    ///
    /// - Parameter timeout: nil waits for ever; nanosecond precision where the kernel has it (man
    ///   epoll_pwait2), else rounded up to milliseconds.
    /// - Returns: how many events can be looked at with `event(at:)`.
    mutating func wait(timeout: Duration?) -> Int {
        if isLimitedToMilliseconds { return waitMilliseconds(timeout: timeout) }
        let nanoseconds = max(0, timeout?.inNanoseconds ?? 0)
        var time = timespec(
            tv_sec: Int(nanoseconds / 1_000_000_000), tv_nsec: Int(nanoseconds % 1_000_000_000))
        let hasTimeout = timeout != nil
        let fd = epoll.rawValue
        let answer = withUnsafePointer(to: &time) { time in
            epoll_pwait2(
                fd, events.baseAddress, Int32(events.count), hasTimeout ? time : nil, nil)
        }
        if answer >= 0 { return Int(answer) }
        let code = hc_errno()
        if code == ENOSYS || code == EPERM {
            isLimitedToMilliseconds = true
            return waitMilliseconds(timeout: timeout)
        }
        // An interrupted wait is a tick without events; the timeout is computed anew.
        precondition(code == EINTR, "epoll_pwait2: errno \(code)")
        return 0
    }

    private func waitMilliseconds(timeout: Duration?) -> Int {
        var milliseconds: Int32 = -1
        if let timeout {
            let nanoseconds = max(0, timeout.inNanoseconds)
            let roundedUp = nanoseconds / 1_000_000 + (nanoseconds % 1_000_000 == 0 ? 0 : 1)
            milliseconds = Int32(clamping: roundedUp)
        }
        let answer = epoll_wait(
            epoll.rawValue, events.baseAddress, Int32(events.count), milliseconds)
        if answer >= 0 { return Int(answer) }
        precondition(hc_errno() == EINTR, "epoll_wait: errno \(hc_errno())")
        return 0
    }

    /// Who wants to hear of the event, and what. Nil for a stale event or one nobody asked for any more.
    mutating func event(at index: Int) -> (source: any EventSource, events: IOEvents)? {
        let event = events[index]
        let data = withUnsafePointer(to: event) { hc_epoll_data($0) }
        let slot = Int(data & 0xffff_ffff)
        let generation = UInt32(data >> 32)
        guard slots[slot].generation == generation, let source = slots[slot].source else {
            staleEvents += 1
            return nil
        }
        let wanted = IOEvents(rawValue: event.events)
            .intersection(slots[slot].interest.union(.unasked))
        return wanted.isEmpty ? nil : (source, wanted)
    }

    /// A full array means that more is ready than was asked for: ask for twice as much next time.
    mutating func growIfFull(_ count: Int) {
        guard count == events.count, events.count < 4096 else { return }
        let capacity = events.count * 2
        events.deallocate()
        events = .allocate(capacity: capacity)
    }

    // MARK: The system call

    private func control(
        _ operation: Int32, _ fd: Int32, _ interest: IOEvents, _ generation: UInt32
    ) throws(SystemError) {
        let data = UInt64(generation) << 32 | UInt64(UInt32(bitPattern: fd))
        var event = hc_epoll_event(interest.rawValue, data)
        let epoll = epoll.rawValue
        try SystemCall.make("epoll_ctl") { epoll_ctl(epoll, operation, fd, &event) }
    }

    /// For what only our own bug or an exhausted kernel can make fail.
    private func mustControl(
        _ operation: Int32, _ fd: Int32, _ interest: IOEvents, _ generation: UInt32
    ) {
        do {
            try control(operation, fd, interest, generation)
        } catch {
            preconditionFailure("operation \(operation) on descriptor \(fd): \(error)")
        }
    }
}
