import CLinux
import HCCore
import HCTesting
import Testing

@testable import HCIO

@Suite(.onLoop) @LoopActor struct SelectorTests {
    /// Two descriptors are ready in one wait. Whoever is told first closes the other and opens something new
    /// under the same number, as a busy server does all the time. The second event of that wait speaks of
    /// the old file, and the new owner of the number must not hear it.
    @Test("an event of a closed descriptor does not reach the next owner of its number")
    func recycledDescriptor() throws {
        let selector = try SelectorBox()
        let one = try OwnedDescriptor.socketPair()
        let two = try OwnedDescriptor.socketPair()
        let successor = try OwnedDescriptor.socketPair()
        let numbers = [one.first.rawValue, two.first.rawValue]
        let sources = numbers.map { _ in Source { _ in } }
        var generations: [UInt32] = []
        for (number, source) in zip(numbers, sources) {
            generations.append(
                try selector.register(number, interest: .readable, source: source))
        }
        poke(one.second.rawValue)
        poke(two.second.rawValue)
        #expect(selector.wait(timeout: .seconds(20)) == 2)
        let first = try #require(selector.source(at: 0))
        let told = try #require(sources.firstIndex { $0 === first })
        let other = 1 - told
        selector.deregister(numbers[other], generation: generations[other])
        // Closes the old file and gives its number to the new one, in one step.
        #expect(dup2(successor.first.rawValue, numbers[other]) == numbers[other])
        let newcomer = Source { _ in }
        _ = try selector.register(numbers[other], interest: .readable, source: newcomer)
        #expect(selector.source(at: 1) == nil)
        #expect(selector.staleEvents == 1)
        // The one that was told still has its byte; the newcomer has nothing to tell.
        #expect(selector.wait(timeout: .zero) == 1)
        #expect(selector.source(at: 0) === sources[told])
        // It is heard when it has something to say itself.
        selector.deregister(numbers[told], generation: generations[told])
        poke(successor.second.rawValue)
        #expect(selector.wait(timeout: .seconds(20)) == 1)
        #expect(selector.source(at: 0) === newcomer)
        // The old registration is over: it cannot end the new one.
        selector.deregister(numbers[other], generation: generations[other])
        #expect(selector.registeredCount == 1)
    }

    @Test("without epoll_pwait2 a wait is never shorter than asked, and events come all the same")
    func milliseconds() throws {
        let selector = try SelectorBox()
        selector.limitToMilliseconds()
        let begin = SteadyClock.read()
        #expect(selector.wait(timeout: .microseconds(1)) == 0)
        #expect(SteadyClock.read() - begin >= .microseconds(1))
        #expect(selector.wait(timeout: .zero) == 0)
        let pair = try OwnedDescriptor.socketPair()
        let source = Source { _ in }
        _ = try selector.register(pair.first.rawValue, interest: .readable, source: source)
        poke(pair.second.rawValue)
        #expect(selector.wait(timeout: nil) == 1)
        #expect(selector.source(at: 0) === source)
    }

    @Test("more events than the array holds are all told, and the array grows")
    func growth() async throws {
        let count = 200
        var mine: [Int32] = []
        var peers: [Int32] = []
        for _ in 0..<count {
            let pair = try OwnedDescriptor.socketPair()
            let (first, second) = pair.releaseBoth()
            mine.append(first)
            peers.append(second)
        }
        var registrations: [Registration] = []
        var told: Set<Int32> = []
        let done = Waiter<Void>()
        for number in mine {
            registrations.append(
                try Loop.shared.register(
                    number, events: .readable,
                    source: Source { _ in
                        told.insert(number)
                        if told.count == count { done.succeed(()) }
                    }))
        }
        for peer in peers { poke(peer) }
        try await done.wait(until: .soon)
        #expect(Loop.shared.selector.eventCapacity > 64)
        for registration in registrations { registration.deregister() }
        for number in mine + peers { close(number) }
    }

    @Test("only what is wanted is told, and changes cost a call only when something changes")
    func interest() async throws {
        let pair = try OwnedDescriptor.socketPair()
        var told: [IOEvents] = []
        let registration = try Loop.shared.register(
            pair.first.rawValue, events: [], source: Source { told.append($0) })
        poke(pair.second.rawValue)
        try await Loop.shared.lookAround()
        #expect(told.isEmpty)
        registration.setEvents(.writable)
        try await Loop.shared.wait { !told.isEmpty }
        #expect(told.allSatisfy { $0 == .writable })
        registration.setEvents([])
        registration.setEvents([])
        told = []
        try await Loop.shared.lookAround()
        #expect(told.isEmpty)
        registration.deregister()
        registration.deregister()
        #expect(!registration.isActive)
    }

    @Test("a source is kept alive until it is deregistered, and may deregister itself when told")
    func lifetime() async throws {
        let pair = try OwnedDescriptor.socketPair()
        weak var kept: Source?
        let done = Waiter<Void>()
        var registration: Registration?
        do {
            let source = Source { _ in
                registration?.deregister()
                done.succeed(())
            }
            kept = source
            registration = try Loop.shared.register(
                pair.first.rawValue, events: .readable, source: source)
        }
        #expect(kept != nil)
        poke(pair.second.rawValue)
        try await done.wait(until: .soon)
        #expect(kept == nil)
    }

    @Test("a file cannot be watched, and says so")
    func file() throws {
        let fd = hc_open("/proc/self/status", O_RDONLY | O_CLOEXEC, 0)
        let file = OwnedDescriptor(fd)
        #expect(throws: SystemError(errno: EPERM, call: "epoll_ctl")) {
            _ = try Loop.shared.register(
                file.rawValue, events: .readable, source: Source { _ in })
        }
    }

    @Test("a descriptor that its library closed already is deregistered without a word")
    func foreignClose() throws {
        let pair = try OwnedDescriptor.socketPair()
        let (first, second) = pair.releaseBoth()
        let registration = try Loop.shared.register(
            first, events: .readable, source: Source { _ in })
        close(first)
        registration.deregisterForeign()
        #expect(!registration.isActive)
        close(second)
    }

    @Test("a descriptor is closed with its owner, unless it was given away")
    func ownership() throws {
        let number: Int32
        do {
            let pipe = try OwnedDescriptor.pipe()
            number = try pipe.readEnd.duplicate(minimum: 700).take()
        }
        #expect(number >= 700)
        #expect(hc_fcntl(number, F_GETFD, 0) == FD_CLOEXEC)
        do {
            let owner = OwnedDescriptor(number)
            #expect(owner.rawValue == number)
        }
        #expect(hc_fcntl(number, F_GETFD, 0) == -1)
        #expect(hc_errno() == EBADF)
    }
}

/// The macros of the test library take only what can be copied.
@LoopActor private final class SelectorBox {
    private var selector: Selector

    init() throws { selector = try Selector() }

    func limitToMilliseconds() { selector.isLimitedToMilliseconds = true }

    var staleEvents: Int { selector.staleEvents }
    var registeredCount: Int { selector.registeredCount }

    func register(
        _ fd: Int32, interest: IOEvents, source: any EventSource
    ) throws -> UInt32 {
        try selector.register(fd, interest: interest, source: source)
    }

    func deregister(_ fd: Int32, generation: UInt32) {
        _ = selector.deregister(fd, generation: generation, mayBeClosed: false)
    }

    func wait(timeout: Duration?) -> Int { selector.wait(timeout: timeout) }

    func source(at index: Int) -> (any EventSource)? { selector.event(at: index)?.source }
}
