package import HCCore

/// Runs services: starts them in order, and ends them in the opposite order when `shutDown()` is called, when
/// the group's task is cancelled, or when one of them fails.
@LoopActor package final class ServiceGroup {
    package struct Limits: Sendable {
        /// For the whole shutdown in good order; then all that still run are cancelled.
        package var shutDownWithin: Duration
        /// For those that were cancelled.
        package var cancelWithin: Duration

        package init(
            shutDownWithin: Duration = .seconds(30), cancelWithin: Duration = .seconds(5)
        ) {
            self.shutDownWithin = shutDownWithin
            self.cancelWithin = cancelWithin
        }
    }

    @LoopActor private final class Running {
        let service: any Service
        var task: Task<Void, Never>?
        let isPrepared = Gate()
        let hasEnded = Gate()

        init(_ service: any Service) { self.service = service }
    }

    private let services: [any Service]
    private let limits: Limits
    private let logger: Logger
    private var started: [Running] = []
    private let ending = Gate()
    private let hasEnded = Gate()
    private var failure: (any Error)?
    private var hasRun = false

    package init(
        _ services: [any Service], limits: Limits = Limits(), logger: Logger = .silent
    ) {
        self.services = services
        self.limits = limits
        self.logger = logger
    }

    /// Begins the shutdown. Returns at once; `run()` ends when it is done. May be called at any time.
    package func shutDown() {
        ending.open()
    }

    /// - Throws: the first failure of a service, CancellationError if the task was cancelled, or
    ///   ServiceGroupError.
    package func run() async throws {
        guard !hasRun else { throw ServiceGroupError.alreadyRun }
        hasRun = true
        for service in services {
            await start(service)
            if ending.isOpen || Task.isCancelled { break }
        }
        do {
            try await ending.wait(until: .never)
        } catch {
            failure = failure ?? CancellationError()
        }
        // In a task of its own: this one may be cancelled, and then could not wait for anything.
        Loop.shared.spawn {
            await self.end()
            self.hasEnded.open()
        }
        await hasEnded.wait()
        if let failure { throw failure }
    }

    /// Begins a service and waits until it is prepared.
    private func start(_ service: any Service) async {
        let running = Running(service)
        started.append(running)
        running.task = Loop.shared.spawn {
            do {
                try await service.prepare()
                running.isPrepared.open()
                try await service.run()
                if !self.ending.isOpen {
                    self.fail(ServiceGroupError.endedEarly(service.serviceName), service)
                }
            } catch is CancellationError where self.ending.isOpen {
                // We cancelled it.
            } catch {
                self.fail(error, service)
            }
            running.isPrepared.open()
            running.hasEnded.open()
        }
        // It is over when prepared or failed, or when the group ends meanwhile.
        let watch = Loop.shared.spawn {
            do { try await self.ending.wait(until: .never) } catch { return }
            if !running.isPrepared.isOpen { running.task?.cancel() }
            running.isPrepared.open()
        }
        do {
            try await running.isPrepared.wait(until: .never)
        } catch {
            running.task?.cancel()
        }
        watch.cancel()
    }

    private func fail(_ error: any Error, _ service: any Service) {
        logger.error(
            "service failed",
            [
                ("service", .string(service.serviceName)),
                ("error", .string(String(describing: error))),
            ])
        if failure == nil { failure = error }
        ending.open()
    }

    private func end() async {
        ending.open()
        let deadline = Deadline.after(limits.shutDownWithin, from: Loop.now)
        for running in started.reversed() where !running.hasEnded.isOpen {
            guard let task = running.task else { continue }
            logger.info(
                "service shuts down", [("service", .string(running.service.serviceName))])
            running.service.shutDown(RunningService(task: task))
            do { try await running.hasEnded.wait(until: deadline) } catch { break }
        }
        let late = started.filter { !$0.hasEnded.isOpen }
        guard !late.isEmpty else { return }
        for running in late.reversed() { running.task?.cancel() }
        let patience = Deadline.after(limits.cancelWithin, from: Loop.now)
        for running in late.reversed() {
            do { try await running.hasEnded.wait(until: patience) } catch { break }
        }
        let stuck = started.filter { !$0.hasEnded.isOpen }.map(\.service.serviceName)
        if !stuck.isEmpty, failure == nil { failure = ServiceGroupError.doNotEnd(stuck) }
    }
}
