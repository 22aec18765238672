internal import CLinux

/// A POSIX semaphore (man sem_overview): the one blocking wait of this room, never used on the loop.
final class ThreadSemaphore: @unchecked Sendable {
    // A sem_t is made to be shared by threads; its address is stable because it is allocated.
    private let semaphore: UnsafeMutablePointer<sem_t>

    init() {
        semaphore = .allocate(capacity: 1)
        semaphore.initialize(to: sem_t())
        let answer = sem_init(semaphore, 0, 0)
        precondition(answer == 0, "sem_init: errno \(hc_errno())")
    }

    deinit {
        sem_destroy(semaphore)
        semaphore.deallocate()
    }

    func signal() {
        sem_post(semaphore)
    }

    func wait() {
        while sem_wait(semaphore) != 0 {
            precondition(hc_errno() == EINTR, "sem_wait: errno \(hc_errno())")
        }
    }
}

private final class ThreadBody {
    let run: @Sendable () -> Void
    init(_ run: @escaping @Sendable () -> Void) { self.run = run }
}

/// Starts a thread that nobody joins, with all signals blocked: signals belong to the loop's thread.
func startDetachedThread(stackBytes: Int, _ body: @escaping @Sendable () -> Void) {
    var attributes = pthread_attr_t()
    pthread_attr_init(&attributes)
    defer { pthread_attr_destroy(&attributes) }
    pthread_attr_setdetachstate(&attributes, Int32(PTHREAD_CREATE_DETACHED))
    pthread_attr_setstacksize(&attributes, stackBytes)
    let previous = SignalMask.blockAll()
    defer { SignalMask.restore(previous) }
    // The new thread takes the reference over.
    let argument = Unmanaged.passRetained(ThreadBody(body)).toOpaque()
    var thread = pthread_t()
    let code = pthread_create(
        &thread, &attributes,
        { argument in
            guard let argument else { return nil }
            Unmanaged<ThreadBody>.fromOpaque(argument).takeRetainedValue().run()
            return nil
        }, argument)
    precondition(code == 0, "pthread_create: errno \(code)")
}

/// The set of signals that a thread does not take (man pthread_sigmask).
enum SignalMask {
    static func block(_ signals: [Int32]) {
        guard !signals.isEmpty else { return }
        var set = makeSet(signals)
        pthread_sigmask(SIG_BLOCK, &set, nil)
    }

    static func unblock(_ signals: [Int32]) {
        var set = makeSet(signals)
        pthread_sigmask(SIG_UNBLOCK, &set, nil)
    }

    /// Blocks everything for the caller and for the threads it starts until `restore`.
    static func blockAll() -> sigset_t {
        var all = sigset_t()
        sigfillset(&all)
        var previous = sigset_t()
        pthread_sigmask(SIG_SETMASK, &all, &previous)
        return previous
    }

    static func restore(_ mask: sigset_t) {
        var mask = mask
        pthread_sigmask(SIG_SETMASK, &mask, nil)
    }

    static func makeSet(_ signals: [Int32]) -> sigset_t {
        var set = sigset_t()
        sigemptyset(&set)
        for signal in signals { sigaddset(&set, signal) }
        return set
    }
}
