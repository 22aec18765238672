internal import CLinux
package import HCCore
internal import Synchronization

/// The event loop of this process, and the executor of the tasks that run on it.
///
/// One thread waits in epoll and does everything: callbacks, timers and the jobs of Swift tasks. A tick is:
/// wait; callbacks of ready descriptors; work posted by other threads; due timers; jobs; the end-of-tick
/// hooks, where backends write once what the whole tick gave them.
///
/// A program adopts its main thread with `adopt()` and calls `run()`; tests give the loop a thread of its
/// own with `startThread()`.
///
/// `@unchecked Sendable`: the plain stored properties are touched on the loop's thread only. `enqueue`
/// compares threads before it does, the other ways in are isolated to `LoopActor`, whose executor this
/// is, or check with `precondition(isOnThread)`. What other threads touch is a Mutex or an Atomic.
package final class Loop: SerialExecutor, TaskExecutor, @unchecked Sendable {
    package static let shared = Loop()

    /// Bounds of one tick.
    package enum Limits {
        /// A wait that was shorter did not wait: its events were there before it began.
        static let noWait: Duration = .microseconds(200)
        /// Jobs run before I/O gets its turn again.
        package static let jobsPerTick = 4096
        /// Bytes that one read of a stream can give.
        package static let readBufferBytes = 65_536
    }

    /// `pthread_self()` of the loop's thread; 0 until it is adopted.
    private let thread = Atomic<UInt>(0)
    private let isStopping = Atomic<Bool>(false)
    private let foreignJobCount = Atomic<Int>(0)
    private let postCount = Atomic<Int>(0)
    private let inbox = Mutex(Inbox())
    private let wakeup: OwnedDescriptor

    var selector: Selector
    var timers = TimerQueue()
    private var jobs = JobQueue()
    private var endOfTick: [@LoopActor () -> Void] = []
    private var time: MonotonicTime
    private var backlog: Duration = .zero
    private var counts = LoopStatistics()
    private var isRunning = false
    /// Whether every task of the process runs here: see `takeAllTasks`.
    private var isGlobalExecutor = false

    /// Set by the program that wants ticks observed.
    @LoopActor package var metrics: LoopMetrics?

    /// See `runAtOnce`.
    private var isHoldingNextJob = false
    private var heldJob: UnownedJob?

    /// One buffer for the reads of all streams: an idle connection owns none.
    let readBuffer: UnsafeMutableRawBufferPointer

    private struct Inbox {
        var jobs: [UnownedJob] = []
        var actions: [@LoopActor () -> Void] = []
        /// The eventfd is written once per batch, not once per arrival.
        var isSignalled = false
    }

    private init() {
        do {
            selector = try Selector()
            wakeup = OwnedDescriptor(
                try SystemCall.make("eventfd") {
                    eventfd(0, Int32(EFD_CLOEXEC) | Int32(EFD_NONBLOCK))
                })
        } catch {
            preconditionFailure("a process without an event loop cannot do anything: \(error)")
        }
        time = SteadyClock.read()
        readBuffer = .allocate(byteCount: Limits.readBufferBytes, alignment: 64)
    }

    // MARK: Life

    /// Makes the calling thread the loop's. To be called once, before anything else of this room.
    ///
    /// A write to a closed connection becomes an error instead of SIGPIPE, for the whole process.
    ///
    /// - Parameter signals: are blocked in this thread and in those that it starts, so that they wait for
    ///   `Signals.watch` instead of ending the process during start-up.
    package func adopt(blocking signals: [Int32] = []) {
        let (exchanged, _) = thread.compareExchange(
            expected: 0, desired: UInt(pthread_self()), ordering: .sequentiallyConsistent)
        precondition(exchanged, "the loop has a thread already")
        hc_ignore_signal(SIGPIPE)
        SignalMask.block(signals)
        time = SteadyClock.read()
        LoopActor.assumeIsolated {
            do {
                _ = try register(
                    wakeup.rawValue, events: .readable, source: Wakeup(descriptor: wakeup.rawValue))
            } catch {
                preconditionFailure("the loop's own eventfd: \(error)")
            }
        }
    }

    /// Makes this loop the executor of every task of the process, also of those that say nothing about where they
    /// run. To be called after `adopt()`, before the first task. A task then needs no executor preference, which
    /// the runtime would look up at each switch: 5 to 10 % of a worker's time.
    ///
    /// The hook is exported by the runtime and not documented: `proveAllTasksRunHere` tells whether it works.
    @LoopActor package func takeAllTasks() {
        hc_take_global_executor()
        isGlobalExecutor = true
    }

    /// Ends the process if a task that says nothing about where it runs does not run here.
    @LoopActor package func proveAllTasksRunHere() async {
        let before = foreignJobs
        let isHere = await Loop.makePlainTask().value
        precondition(
            isHere && foreignJobs == before, "this Swift runtime runs tasks on threads of its own")
    }

    /// Outside of any isolation, so that the task has none either.
    private static func makePlainTask() -> Task<Bool, Never> { Task { Loop.shared.isOnThread } }

    /// Gives the loop a thread of its own, for tests and tools: the first call starts it, the others do
    /// nothing.
    package func startThread() { _ = Loop.ownThread }

    /// Lazy and once, by the rules of static properties.
    private static let ownThread: Void = {
        let isAdopted = ThreadSemaphore()
        startDetachedThread(stackBytes: 8 << 20) {
            Loop.shared.adopt()
            isAdopted.signal()
            LoopActor.assumeIsolated { Loop.shared.run() }
        }
        isAdopted.wait()
    }()

    /// Runs until `stop()`. What is still queued then stays queued: `run()` may be called again.
    @LoopActor package func run() {
        precondition(!isRunning, "the loop runs already")
        isRunning = true
        defer { isRunning = false }
        // What the program did before it came here was no tick.
        time = SteadyClock.read()
        while !isStopping.exchange(false, ordering: .acquiringAndReleasing) { tick() }
    }

    /// Lets `run()` return at the end of the current tick. From any thread.
    package func stop() {
        isStopping.store(true, ordering: .releasing)
        if !isOnThread { wake() }
    }

    // MARK: One tick

    @LoopActor private func tick() {
        finishTick()
        let tickEnd = time + counts.lastTick
        let arrived = selector.wait(timeout: waitTimeout())
        time = SteadyClock.read()
        backlog = time - tickEnd < Limits.noWait ? counts.lastTick : .zero
        counts.ticks &+= 1
        counts.events &+= arrived
        for index in 0..<arrived {
            guard let (source, events) = selector.event(at: index) else { continue }
            source.handle(events)
        }
        selector.growIfFull(arrived)
        fireTimers()
        runJobs()
    }

    /// The hooks of the tick that ends, and of a start: they may add jobs and timers, but what hooks they
    /// add run in the next tick.
    @LoopActor private func finishTick() {
        if !endOfTick.isEmpty {
            var hooks: [@LoopActor () -> Void] = []
            swap(&hooks, &endOfTick)
            for hook in hooks { hook() }
        }
        let length = SteadyClock.read() - time
        counts.lastTick = length
        counts.longestTick = max(counts.longestTick, length)
        counts.busy += length
        metrics?.tickLength.observe(length)
    }

    @LoopActor private func waitTimeout() -> Duration? {
        if !jobs.isEmpty || !endOfTick.isEmpty || isStopping.load(ordering: .acquiring) {
            return .zero
        }
        guard let first = timers.nextDeadline() else { return nil }
        // `time` is of the tick's beginning: the clock is read again, or the wait would be too long.
        return first.remaining(at: SteadyClock.read())
    }

    @LoopActor private func fireTimers() {
        let last = timers.sequence
        timers.floor = Deadline(time)
        defer { timers.floor = nil }
        while let timer = timers.popDue(at: time, upTo: last) {
            let lateness = time - timer.deadline.time
            counts.timersFired &+= 1
            counts.longestTimerLateness = max(counts.longestTimerLateness, lateness)
            timer.fire()
        }
    }

    @LoopActor private func runJobs() {
        var left = Limits.jobsPerTick
        while left > 0, let job = jobs.popFirst() {
            run(job)
            left -= 1
        }
        counts.jobs &+= Limits.jobsPerTick - left
    }

    @LoopActor private func run(_ job: UnownedJob) {
        if isGlobalExecutor {
            job.runSynchronously(on: asUnownedSerialExecutor())
        } else {
            job.runSynchronously(
                isolatedTo: asUnownedSerialExecutor(), taskExecutor: asUnownedTaskExecutor())
        }
    }

    /// A root task: with this loop as its preference, unless all tasks are this loop's anyway.
    package func makeTask<Success: Sendable>(
        _ body: @escaping @LoopActor () async throws -> Success
    ) -> Task<Success, any Error> {
        isGlobalExecutor ? Task(operation: body) : Task(executorPreference: self, operation: body)
    }

    package func makeTask(_ body: @escaping @LoopActor () async -> Void) -> Task<Void, Never> {
        isGlobalExecutor ? Task(operation: body) : Task(executorPreference: self, operation: body)
    }

    // MARK: Executor

    /// One function for both protocols: a job with this loop as preference and one isolated to
    /// `LoopActor` wait in the same queue.
    package func enqueue(_ job: consuming ExecutorJob) {
        accept(UnownedJob(job))
    }

    fileprivate func accept(_ job: UnownedJob) {
        if isOnThread {
            if isHoldingNextJob {
                isHoldingNextJob = false
                heldJob = job
            } else {
                jobs.append(job)
            }
        } else {
            foreignJobCount.add(1, ordering: .relaxed)
            arrive { $0.jobs.append(job) }
        }
    }

    /// Runs the first stretch of a task that `make` creates, up to its first suspension, before it returns:
    /// a handler that does not wait answers inside the callback that started it.
    ///
    /// `Task.immediate` would not do: it starts a task without telling the runtime which task executor it
    /// is on, so the first hop to `LoopActor` finds a difference and goes through the queue after all
    /// (swift_task_immediate against swift_task_switch, Swift 6.3). Here the job that the task's
    /// creation enqueues is kept out of the queue and run as the queue would run it.
    @LoopActor func runAtOnce<Success, Failure>(
        _ make: () -> Task<Success, Failure>
    ) -> Task<Success, Failure> {
        isHoldingNextJob = true
        let task = make()
        isHoldingNextJob = false
        if let job = heldJob {
            heldJob = nil
            counts.jobs &+= 1
            run(job)
        }
        return task
    }

    package func isIsolatingCurrentContext() -> Bool? { isOnThread }

    package func checkIsolated() {
        precondition(isOnThread, "code of the loop was called from another thread")
    }

    package var isOnThread: Bool {
        thread.load(ordering: .relaxed) == UInt(pthread_self())
    }

    // MARK: Other threads

    /// Jobs that other threads enqueued since the start. 0 under load in a worker: anything else means
    /// that a task left the loop (`Task.detached`, `Task.sleep`, a bare `Task`).
    package var foreignJobs: Int { foreignJobCount.load(ordering: .relaxed) }

    /// Calls of `post` from other threads since the start: results of the blocking pool.
    package var posts: Int { postCount.load(ordering: .relaxed) }

    /// Runs an action on the loop in its next tick; the way of a foreign thread to hand something over.
    package func post(_ action: @escaping @LoopActor () -> Void) {
        postCount.add(1, ordering: .relaxed)
        arrive { $0.actions.append(action) }
    }

    /// Runs an action now if this is the loop's thread, else in the loop's next tick.
    package func runOrPost(_ action: @escaping @LoopActor () -> Void) {
        if isOnThread {
            LoopActor.assumeIsolated { action() }
        } else {
            post(action)
        }
    }

    private func arrive(_ append: (inout sending Inbox) -> Void) {
        let mustSignal = inbox.withLock { inbox in
            append(&inbox)
            defer { inbox.isSignalled = true }
            return !inbox.isSignalled
        }
        if mustSignal { wake() }
    }

    private func wake() {
        var one: UInt64 = 1
        let fd = wakeup.rawValue
        // EAGAIN means that the counter is full, and so that the loop is being woken already.
        do {
            _ = try SystemCall.makeNonBlocking("write(eventfd)") { write(fd, &one, 8) }
        } catch {
            preconditionFailure("the loop cannot be woken: \(error)")
        }
    }

    @LoopActor fileprivate func takeInbox() {
        var taken = Inbox()
        inbox.withLock { swap(&$0, &taken) }
        for job in taken.jobs { jobs.append(job) }
        for action in taken.actions { action() }
    }

    // MARK: What the loop offers to its own code

    /// When the current tick began, read once per tick: free to ask, and the same for all of a tick.
    ///
    /// Asked of the type: another room that asks the object keeps it alive for the question, which costs more than the answer.
    @LoopActor package static var now: MonotonicTime { shared.time }

    /// How long an event of this tick may have waited before the tick began: the length of the tick before, or
    /// nothing if the loop was waiting for events. The measure of a loop that has too much to do.
    @LoopActor package static var eventDelay: Duration { shared.backlog }

    /// Begins to watch a descriptor, which has to be non-blocking. The source is kept alive until
    /// `Registration.deregister()`.
    @LoopActor package func register(
        _ fd: Int32, events: IOEvents, source: any EventSource
    ) throws(SystemError) -> Registration {
        let generation = try selector.register(fd, interest: events, source: source)
        return Registration(descriptor: fd, generation: generation)
    }

    /// Does something once, in the first tick at or after `deadline`. Never for `Deadline.never`.
    @discardableResult
    @LoopActor package func schedule(
        at deadline: Deadline, _ action: @escaping @LoopActor () -> Void
    ) -> Timer {
        let timer = Timer(deadline: deadline, action: action)
        if deadline != .never { timers.insert(timer) }
        return timer
    }

    /// Does something once, `delay` after the beginning of this tick.
    @discardableResult
    @LoopActor package func schedule(
        after delay: Duration, _ action: @escaping @LoopActor () -> Void
    ) -> Timer {
        schedule(at: .after(delay, from: time), action)
    }

    /// Does something once, after the jobs of this tick and before the next wait.
    @LoopActor package func atEndOfTick(_ action: @escaping @LoopActor () -> Void) {
        endOfTick.append(action)
    }

    @LoopActor package var statistics: LoopStatistics {
        var statistics = counts
        statistics.foreignJobs = foreignJobs
        statistics.posts = posts
        statistics.staleEvents = selector.staleEvents
        statistics.registrations = selector.registeredCount
        statistics.timers = timers.count
        return statistics
    }

    /// The longest tick and timer lateness since the last call: what a heartbeat reports.
    @LoopActor package func takeLag() -> (longestTick: Duration, timerLateness: Duration) {
        let lag = (counts.longestTick, counts.longestTimerLateness)
        counts.longestTick = .zero
        counts.longestTimerLateness = .zero
        return lag
    }
}

/// What the loop counted since it started.
package struct LoopStatistics: Sendable {
    package var ticks = 0
    package var events = 0
    package var jobs = 0
    package var timersFired = 0
    package var foreignJobs = 0
    package var posts = 0
    package var staleEvents = 0
    /// Descriptors being watched, now.
    package var registrations = 0
    /// Timers to run, now.
    package var timers = 0
    /// Time spent in ticks; the rest was waiting.
    package var busy: Duration = .zero
    package var lastTick: Duration = .zero
    /// Since the last `takeLag()`: how long everything else had to wait.
    package var longestTick: Duration = .zero
    package var longestTimerLateness: Duration = .zero
}

/// The source of the loop's eventfd.
@LoopActor private final class Wakeup: EventSource {
    private let descriptor: Int32

    init(descriptor: Int32) {
        self.descriptor = descriptor
    }

    func handle(_ events: IOEvents) {
        var count: UInt64 = 0
        // The counter goes to 0 before the inbox is emptied: what arrives in between signals again.
        let fd = descriptor
        do {
            _ = try SystemCall.makeNonBlocking("read(eventfd)") { read(fd, &count, 8) }
        } catch {
            preconditionFailure("the loop's own eventfd: \(error)")
        }
        Loop.shared.takeInbox()
    }
}

/// The runtime's hook (`CLinux`): a job without an executor of its own.
@c(hc_loop_enqueue) func enqueueForRuntime(_ job: UnsafeMutableRawPointer) {
    // The runtime's own representation of a job: one pointer.
    Loop.shared.accept(unsafeBitCast(job, to: UnownedJob.self))
}
