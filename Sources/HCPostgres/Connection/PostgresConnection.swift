package import HCCore
package import HCIO

/// One session with a PostgreSQL server, on the loop.
///
/// One call at a time: a second one while the first is under way is refused. A session that has met a broken
/// connection, an unsettled deadline or a caller's COMMIT out of place closes itself; ``isUsable`` says so.
@LoopActor
package final class PostgresConnection {
    private(set) var handle: PGConnectionHandle
    let configuration: PostgresConfiguration
    private var watch: SocketWatch?
    private var session = SessionStateMachine()
    private var cache: StatementCache
    private var encoder = ParameterEncoder()
    private var batch = BatchMachine()
    private var batchResults: [PostgresResult?] = []
    /// Behind the end of what was committed last, in bytes of the server's log: every replica that has replayed so
    /// far shows it. Nil: the last call did not ask for it, committed nothing or lost the session.
    package private(set) var commitPosition: UInt64?
    private var stepsStorage: [BatchStep] = []
    /// The session was closed since the caller asked for something that a pipeline cannot do.
    private var protocolError: StaticString?

    /// What the socket's events are for.
    private enum Mode {
        case resting
        case batch
        /// A script or a COPY: the caller drives libpq and waits for events in between.
        case driven
    }
    private var mode = Mode.resting
    private var waiter: UnsafeContinuation<Void, Never>?
    /// Something the waiter waits for has happened already.
    private var wakeIsPending = false
    /// The driven operation's text is with the kernel.
    private var isDrivenFlushed = false
    /// Tells a late timer, cancellation or answer from one for the operation that is under way.
    private var operation: UInt64 = 0
    private var graceTimer: HCIO.Timer?

    /// What it has done so far; scripts and COPY are not in it.
    package private(set) var work = PostgresWork()

    /// A script or unsafe SQL has run, which may have set something for the session, or taken a lock.
    package private(set) var isAltered = false

    /// Within a transaction of ``PostgresTransaction``.
    var transactionIsOpen = false
    /// A result was so large that libpq's buffer, which never shrinks, should not be kept.
    private(set) var hadLargeResult = false

    /// Called for each NOTIFY, on the loop, from the socket's event.
    package var onNotification: (@LoopActor (PostgresNotification) -> Void)?
    /// Called at most once, when the session ends other than by ``close()``.
    package var onClose: (@LoopActor () -> Void)?

    init(handle: consuming PGConnectionHandle, configuration: PostgresConfiguration) {
        self.handle = handle
        self.configuration = configuration
        cache = StatementCache(capacity: configuration.statementsMax)
    }

    // Whoever drops a connection without closing it must not leave its descriptor with the loop.
    isolated deinit { watch?.close() }

    /// Connected and authenticated: from here on the socket is watched for the session's whole life.
    func start() throws(SystemError) {
        watch = try SocketWatch(handle.socket, [.readable]) { [weak self] events in
            self?.socketIsReady(writable: events.contains(.writable))
        }
        drainNotifications()
    }

    /// May be leased again.
    package var isUsable: Bool {
        session.isIdle && !handle.isBad && !transactionIsOpen && !hadLargeResult
    }
    package var isClosed: Bool { session.isClosed }
    /// What the server was told at the start: how long each statement, and each wait for a lock, may take here.
    /// Nil: nothing is known of it, or there is no limit.
    package var statementTimeout: Duration? { isPooled ? nil : configuration.statementTimeout }
    package var lockTimeout: Duration? { isPooled ? nil : configuration.lockTimeout }
    package var idleInTransactionTimeout: Duration? {
        isPooled ? nil : configuration.idleInTransactionTimeout
    }
    /// Each transaction may be on another session of the server.
    package var isPooled: Bool { configuration.isPooled }
    /// When the server was started, if whoever opened the connection has asked: another time is another server.
    package var serverStart: Timestamp?
    package var processID: Int32 { handle.processID }
    /// 150018 for 15.18.
    package var serverVersion: Int { handle.serverVersion }
    var statementCount: Int { cache.count }

    /// Ends the session. An operation under way fails as for a lost connection.
    package func close() {
        onClose = nil
        closeSession()
    }
}

// MARK: - Batches

extension PostgresConnection {
    /// What surrounds a call's queries within the pipeline.
    struct Frame {
        var begin: StaticString?
        var ending: BatchStep?
        var cancellation = Cancellation.always
        /// Asks where the log ends, after the commit and in the same round trip.
        var reportsPosition = false
    }

    /// What the cancellation of the task does to a batch.
    package enum Cancellation: Hashable, Sendable {
        /// It is not sent, or it is cancelled on the server.
        case always
        /// It is not sent; once it is, only the deadline ends it. For what contains a commit: by the time the server
        /// hears of the cancellation, the commit may be under way, and one that waits for a standby would end as a
        /// success that no standby has (PostgreSQL manual 27.2.8).
        case beforeSending
        case never
    }

    /// Runs the queries in one round trip and, when no transaction is open, in one implicit transaction.
    ///
    /// Returns one result for each query. When the deadline passes or the task is cancelled, the work is
    /// cancelled on the server and the call returns once that is settled, at most ``PostgresConfiguration/cancelGrace``
    /// later; a batch that turns out to have succeeded is a success.
    ///
    /// Statements that the server no longer knows, or whose columns changed, are prepared again and the batch is
    /// sent a second time (its transaction was rolled back).
    ///
    /// - Parameter reportsPosition: also finds out ``commitPosition``, at no further round trip.
    /// - Throws: ``PostgresError``, for the whole batch: nothing is committed, except as `.commitUnknown` says.
    package func execute(
        _ queries: [Query], reportsPosition: Bool = false, cancellation: Cancellation = .always,
        deadline: Deadline
    ) async throws(PostgresError) -> [PostgresResult] {
        guard !transactionIsOpen else {
            throw PostgresError(.misuse("a transaction is open on this connection"))
        }
        guard !queries.isEmpty else { return [] }
        let results: [PostgresResult]
        do throws(PostgresError) {
            results = try await run(
                queries, Frame(cancellation: cancellation, reportsPosition: reportsPosition),
                deadline: deadline)
        } catch {
            closeUnlessIdle()
            throw error
        }
        guard closeUnlessIdle() else {
            throw PostgresError(.misuse("a query left a transaction open"))
        }
        return results
    }

    /// Whoever sends BEGIN as a query leaves a session that the next caller must not get.
    @discardableResult
    private func closeUnlessIdle() -> Bool {
        // Not idle: another call is under way, and this one was refused.
        guard session.isIdle, handle.transactionStatus != .idle else { return true }
        closeSession()
        return false
    }

    /// Runs the queries, and in the same round trip makes the session what it was when it was opened: its settings, and
    /// without advisory locks.
    package func executeAndReset(
        _ queries: [Query], deadline: Deadline
    ) async throws(PostgresError) -> [PostgresResult] {
        let resetting = [Query("RESET ALL"), Query("SELECT pg_advisory_unlock_all()")]
        let results = try await execute(queries + resetting, deadline: deadline)
        isAltered = false
        return results.dropLast(resetting.count)
    }

    func noteAltered() { isAltered = true }

    package func execute(
        _ query: Query, deadline: Deadline
    ) async throws(PostgresError) -> PostgresResult {
        try await execute([query], deadline: deadline)[0]
    }

    func run(
        _ queries: [Query], _ frame: Frame, deadline: Deadline
    ) async throws(PostgresError) -> [PostgresResult] {
        let isFirstOfTransaction = handle.transactionStatus == .idle
        do throws(PostgresError) {
            return try await runOnce(queries, frame, deadline: deadline)
        } catch {
            guard let server = error.server, server.showsStaleStatement else { throw error }
            cache.forgetAll()
            guard isFirstOfTransaction else { throw error }
            if handle.transactionStatus == .failed {
                _ = try await runOnce(
                    [], Frame(ending: .rollback, cancellation: .never), deadline: deadline)
            }
            return try await runOnce(queries, frame, deadline: deadline)
        }
    }

    private func runOnce(
        _ queries: [Query], _ frame: Frame, deadline: Deadline
    ) async throws(PostgresError) -> [PostgresResult] {
        try checkBefore(deadline, isCancellable: frame.cancellation != .never)
        encoder.removeAll()
        for (index, query) in queries.enumerated() {
            try encode(query, index: index)
        }
        try beginOperation(.batch)
        commitPosition = nil
        guard send(queries, frame) else {
            closeSession()
            throw .connectionLost
        }
        let start = Loop.now
        await settle(deadline: deadline, isCancellable: frame.cancellation == .always)
        work.time += Loop.now - start
        let results = try takeOutcome()
        for result in results {
            let rows = result.affectedRows
            work.rows += rows
            if rows > 0, result.isChange { work.rowsChanged += rows }
        }
        return results
    }

    private func encode(_ query: Query, index: Int) throws(PostgresError) {
        do throws(PostgresError) {
            if case .unsafe(let text) = query.text, text.utf8.contains(0) {
                throw PostgresError(.encode(.nulInSQL))
            }
            try encoder.encode(query.binds)
        } catch {
            var error = error
            error.queryIndex = index
            throw error
        }
    }

    /// Hands everything up to the Sync to libpq. False: the connection is broken.
    private func send(_ queries: [Query], _ frame: Frame) -> Bool {
        let opensTransaction = frame.begin != nil
        let wasInTransaction = handle.transactionStatus != .idle
        var steps = stepsStorage
        stepsStorage = []
        var sent = true
        // BEGIN comes before any Parse: that may take the snapshot, and then the isolation level is fixed.
        if let begin = frame.begin {
            steps.append(.begin)
            sent = handle.sendUnnamed(cString(begin))
        }
        let housekeeping = steps.count
        // A transaction that has failed takes nothing but its ROLLBACK.
        if frame.ending != .rollback { cache.planHousekeeping(into: &steps) }
        for step in steps[housekeeping...] { sent = sent && sendHousekeeping(step) }
        sent =
            sent
            && encoder.withParameters { all in
                var first = 0
                for (index, query) in queries.enumerated() {
                    let parameters = all[first, query.binds.count]
                    first += query.binds.count
                    guard send(query, parameters, into: &steps) else { return false }
                    steps.append(.execute(index))
                }
                return true
            }
        switch frame.ending {
        case .commit?:
            steps.append(.commit)
            sent = sent && handle.sendUnnamed(cString("COMMIT"))
        case .rollback?:
            steps.append(.rollback)
            sent = sent && handle.sendUnnamed(cString("ROLLBACK"))
        default: break
        }
        let commitPoint: BatchMachine.CommitPoint =
            switch frame.ending {
            case .commit?: .commitStep
            case .rollback?: .none
            default: opensTransaction || wasInTransaction ? .none : .sync
            }
        batch.begin(steps, commitPoint: commitPoint, hasEpilogue: frame.reportsPosition)
        batchResults = Array(repeating: nil, count: queries.count)
        guard sent, handle.sendSync() else { return false }
        if frame.reportsPosition {
            if handle.flush() == .done { batch.flushed() }
            guard handle.sendUnnamed(cString(PostgresConnection.endOfLog)), handle.sendSync() else {
                return false
            }
        }
        return flush()
    }

    /// The end of what was inserted, not of what was written or flushed: a commit is before it in any case, however
    /// the session commits.
    private static let endOfLog: StaticString =
        "SELECT (pg_current_wal_insert_lsn() - '0/0')::bigint"

    private func send(
        _ query: Query, _ parameters: ParameterEncoder.Parameters, into steps: inout [BatchStep]
    ) -> Bool {
        switch query.text {
        case .unsafe(let text):
            isAltered = true
            return handle.sendUnnamed(text, parameters)
        case .fixed(let text) where configuration.isPooled:
            // A name that this session of the server knows, the next one does not.
            return handle.sendUnnamed(cString(text), parameters)
        case .fixed(let text):
            let start = cString(text)
            let before = steps.count
            let plan = cache.plan(
                address: Int(bitPattern: start), types: parameters.oids, into: &steps)
            for step in steps[before...] {
                if case .prepare(let id) = step {
                    guard handle.sendPrepare(id, start, types: plan.types ?? []) else {
                        return false
                    }
                } else {
                    guard sendHousekeeping(step) else { return false }
                }
            }
            return handle.sendPrepared(plan.id, parameters)
        }
    }

    private func sendHousekeeping(_ step: BatchStep) -> Bool {
        switch step {
        case .deallocateAll: handle.sendUnnamed(cString("DEALLOCATE ALL"))
        case .deallocate(let id): handle.sendDeallocate(id)
        default: true
        }
    }

    /// A literal is stored with a NUL behind it.
    private func cString(_ text: StaticString) -> UnsafePointer<CChar> {
        UnsafeRawPointer(text.utf8Start).assumingMemoryBound(to: CChar.self)
    }

    /// The operation has ended or the session is closed: what came of it?
    private func takeOutcome() throws(PostgresError) -> [PostgresResult] {
        mode = .resting
        let interruption = session.interruption
        if !session.isClosed { cache.settle(batch.steps, completed: batch.completed) }
        var results: [PostgresResult] = []
        results.reserveCapacity(batchResults.count)
        for case let result? in batchResults { results.append(result) }
        batchResults.removeAll(keepingCapacity: true)
        let isComplete = batch.isFinished && !batch.committedNothing
        if let error = outcomeError(isComplete: isComplete, interruption) { throw error }
        stepsStorage = batch.takeSteps()
        return results
    }

    private func outcomeError(
        isComplete: Bool, _ interruption: SessionStateMachine.Interruption?
    ) -> PostgresError? {
        if isComplete { return nil }
        if batch.isFinished {
            guard let failure = batch.failure else {
                return PostgresError(.misuse("COMMIT of a transaction that had failed"))
            }
            if failure.error.sqlstate == .queryCancelled, let interruption {
                return PostgresError(interruption.kind, queryIndex: batch.failedQuery)
            }
            return PostgresError(.server(failure.error), queryIndex: batch.failedQuery)
        }
        if let protocolError { return PostgresError(.misuse(protocolError)) }
        switch batch.lossOutcome {
        case .committed: return nil
        case .unknown:
            return PostgresError(.commitUnknown, interruption: interruption?.cause)
        case .nothingCommitted:
            guard let interruption else { return .connectionLost }
            return PostgresError(interruption.kind)
        }
    }
}

// MARK: - Operations in general

extension PostgresConnection {
    private func checkBefore(_ deadline: Deadline, isCancellable: Bool) throws(PostgresError) {
        if isCancellable, Task.isCancelled { throw .cancelled }
        if deadline.isExpired(at: Loop.now) { throw .deadlineExceeded }
    }

    private func beginOperation(_ mode: Mode) throws(PostgresError) {
        switch session.begin() {
        case .closed?: throw .connectionLost
        case .busy?: throw PostgresError(.misuse("the connection is busy with another call"))
        case nil: break
        }
        operation += 1
        wakeIsPending = false
        self.mode = mode
    }

    /// Waits until the operation has ended, or the session.
    private func settle(deadline: Deadline, isCancellable: Bool) async {
        await withInterruption(deadline: deadline, isCancellable: isCancellable) {
            await self.suspend()
        }
    }

    /// Runs `body` with a timer and a cancellation handler that interrupt the operation under way.
    private func withInterruption(
        deadline: Deadline, isCancellable: Bool, _ body: @LoopActor () async -> Void
    ) async {
        let current = operation
        let timer =
            deadline == .never
            ? nil
            : Loop.shared.schedule(at: deadline) { [weak self] in
                self?.interrupt(.deadline, operation: current)
            }
        defer { timer?.cancel() }
        guard isCancellable else { return await body() }
        await withTaskCancellationHandler {
            await body()
        } onCancel: {
            Loop.shared.runOrPost { [weak self] in
                self?.interrupt(.cancellation, operation: current)
            }
        }
    }

    /// Until ``wake()``. Returns at once when that has happened already.
    private func suspend() async {
        if !wakeIsPending {
            await withUnsafeContinuation { waiter = $0 }
        }
        wakeIsPending = false
    }

    private func wake() {
        guard let waiter else {
            wakeIsPending = true
            return
        }
        self.waiter = nil
        wakeIsPending = true
        waiter.resume()
    }

    private func interrupt(_ reason: SessionStateMachine.Interruption, operation current: UInt64) {
        guard operation == current, session.interrupt(reason) else { return }
        guard let request = handle.makeCancelRequest() else { return closeSession() }
        let limit = Deadline.after(configuration.cancelGrace, from: Loop.now)
        graceTimer = Loop.shared.schedule(at: limit) { [weak self] in
            self?.graceExpired(operation: current)
        }
        Loop.shared.spawn { [weak self] in
            let delivered = await request.deliver(deadline: limit)
            self?.cancelAnswered(delivered: delivered, operation: current)
        }
        if mode == .driven { wake() }
    }

    private func cancelAnswered(delivered: Bool, operation current: UInt64) {
        guard operation == current, session.isInterrupting else { return }
        perform(session.cancelAnswered(delivered: delivered))
    }

    private func graceExpired(operation current: UInt64) {
        guard operation == current, session.isInterrupting else { return }
        closeSession()
    }

    private func operationEnded() { perform(session.operationEnded()) }

    private func perform(_ action: SessionStateMachine.EndAction) {
        switch action {
        case .wait: break
        case .close: closeSession()
        case .resume:
            graceTimer?.cancel()
            graceTimer = nil
            wake()
        }
    }

    func closeSession() {
        guard !session.isClosed else { return }
        session.close()
        graceTimer?.cancel()
        graceTimer = nil
        watch?.close()
        watch = nil
        handle.finish()
        wake()
        onNotification = nil
        let closed = onClose
        onClose = nil
        closed?()
    }
}

// MARK: - Operations outside the pipeline

extension PostgresConnection {
    /// Takes the session out of the pipeline for one operation that `body` drives, and puts it back.
    ///
    /// `body` returns after the operation's last result. Its error is thrown on, or for a session that ended what
    /// `outcomeOfLoss` makes of it.
    func drive<Value>(
        deadline: Deadline, commits: Bool, _ body: () async throws(PostgresError) -> Value
    ) async throws(PostgresError) -> Value {
        try checkBefore(deadline, isCancellable: true)
        try beginOperation(.driven)
        guard handle.exitPipeline() else {
            closeSession()
            throw .connectionLost
        }
        isDrivenFlushed = false
        var outcome: Result<Value, PostgresError> = .failure(.connectionLost)
        await withInterruption(deadline: deadline, isCancellable: true) {
            do throws(PostgresError) {
                outcome = .success(try await body())
            } catch {
                outcome = .failure(error)
            }
            guard !session.isClosed else { return }
            guard handle.enterPipeline() else { return closeSession() }
            operationEnded()
            // A cancel request may still be out.
            while !session.isClosed, !session.isIdle { await suspend() }
        }
        mode = .resting
        switch outcome {
        case .success(let value): return value
        case .failure(let error): throw drivenError(error, commits: commits)
        }
    }

    /// What an operation outside the pipeline failed with, seen from the caller.
    private func drivenError(_ error: PostgresError, commits: Bool) -> PostgresError {
        let interruption = session.interruption
        switch error.kind {
        case .connectionLost:
            if commits, isDrivenFlushed {
                return PostgresError(.commitUnknown, interruption: interruption?.cause)
            }
            return interruption.map { PostgresError($0.kind) } ?? error
        case .server(let server) where server.sqlstate == .queryCancelled:
            return interruption.map { PostgresError($0.kind) } ?? error
        default:
            return error
        }
    }

    var isInterrupted: Bool { session.interruption != nil }

    /// Gives libpq's buffer to the kernel, all of it.
    func flushAll() async throws(PostgresError) {
        while true {
            guard !session.isClosed else { throw .connectionLost }
            let state = handle.flush()
            guard handle.socket >= 0, state != .failed else {
                closeSession()
                throw .connectionLost
            }
            watch?.setWrites(state == .wantsWrite)
            if state == .done { return }
            await suspend()
        }
    }

    /// The command that could commit has left for the server: from now on a loss says nothing.
    func noteCommandSent() { isDrivenFlushed = true }

    /// The next result of the command that runs; nil after its last.
    func awaitResult() async throws(PostgresError) -> PGResultHandle? {
        while true {
            guard !session.isClosed else { throw .connectionLost }
            if !handle.isBusy {
                guard let result = handle.nextResult() else {
                    guard !handle.isBad else {
                        closeSession()
                        throw .connectionLost
                    }
                    return nil
                }
                return result
            }
            await suspend()
        }
    }

    /// Reads results to the last. Throws the first error among them.
    func awaitEnd() async throws(PostgresError) -> Int {
        var failure: PostgresError?
        var affected = 0
        while let result = try await awaitResult() {
            switch result.kind {
            case .completed: affected = result.affectedRows
            case .failed:
                let error = try serverError(of: result)
                failure = failure ?? PostgresError(.server(error))
            default:
                // A COPY within a script, and the like.
                closeSession()
                throw PostgresError(.misuse("COPY goes through copyIn and copyOut"))
            }
        }
        if let failure { throw failure }
        return affected
    }

    /// - Throws: `connectionLost` for what libpq says by itself, and for FATAL.
    func serverError(
        of result: borrowing PGResultHandle
    ) throws(PostgresError) -> PostgresError.ServerError {
        guard let error = result.serverError(), !error.isFatal else {
            closeSession()
            throw .connectionLost
        }
        return error
    }

    /// Waits until something happened on the socket.
    func awaitSocket() async throws(PostgresError) {
        await suspend()
        guard !session.isClosed else { throw .connectionLost }
    }

    func setReads(_ wanted: Bool) { watch?.setReads(wanted) }
    func setWrites(_ wanted: Bool) { watch?.setWrites(wanted) }

    /// Asks the server to give up what it is doing, without a deadline having passed.
    func abandonOperation() { interrupt(.cancellation, operation: operation) }
}

// MARK: - The socket

extension PostgresConnection {
    private func socketIsReady(writable: Bool) {
        guard !session.isClosed else { return }
        var isAlive = handle.consumeInput()
        if isAlive, writable || mode != .resting { isAlive = flush() }
        // What had arrived before the end is still read: it may hold the server's reason, or a COMMIT.
        switch mode {
        case .resting:
            // Between calls the server says goodbye, or something that libpq takes as a notice or a setting.
            _ = handle.isBusy
        case .batch:
            receiveBatch()
        case .driven:
            wake()
        }
        guard !session.isClosed else { return }
        drainNotifications()
        if !isAlive || handle.isBad { closeSession() }
    }

    /// False: the connection is broken.
    private func flush() -> Bool {
        let state = handle.flush()
        // A failed write makes libpq close the socket and say "done": the failure shows when results are read.
        guard handle.socket >= 0 else { return false }
        switch state {
        case .done:
            if mode == .batch { batch.flushed() }
            watch?.setWrites(false)
            return true
        case .wantsWrite:
            watch?.setWrites(true)
            return true
        case .failed:
            return false
        }
    }

    private func receiveBatch() {
        var lastWasNil = false
        while !session.isClosed, !batch.isFinished, !handle.isBusy {
            let action: BatchMachine.Action
            if let result = handle.nextResult() {
                lastWasNil = false
                action = receive(result)
            } else {
                // Two in a row: libpq has nothing under way although we wait for a Sync.
                guard !lastWasNil else { return handle.isBad ? () : closeSession() }
                lastWasNil = true
                action = batch.received(.endOfStep)
            }
            switch action {
            case .none, .keepResult, .keepEpilogue: break
            case .finish: operationEnded()
            case .close: return closeSession()
            }
        }
    }

    private func receive(_ result: consuming PGResultHandle) -> BatchMachine.Action {
        switch result.kind {
        case .completed:
            if result.hasCommandTag("ROLLBACK"), case .commit? = batch.currentStep {
                return batch.received(.rolledBack)
            }
            let action = batch.received(.completed)
            if case .keepResult(let query) = action {
                if result.memoryBytes > configuration.resultBytesRetire { hadLargeResult = true }
                batchResults[query] = PostgresResult(result)
            } else if action == .keepEpilogue {
                commitPosition = PostgresConnection.position(PostgresResult(result))
            }
            return action
        case .failed:
            // An error that libpq made up has no SQLSTATE: the connection is gone.
            guard let error = result.serverError() else { return .close }
            let action = batch.received(.failed(error))
            return error.isFatal ? .close : action
        case .aborted: return batch.received(.aborted)
        case .sync: return batch.received(.sync)
        case .copyIn, .copyOut, .copyBoth, .other:
            protocolError = "COPY goes through copyIn and copyOut"
            return batch.received(.unexpected)
        }
    }

    private static func position(_ result: PostgresResult) -> UInt64? {
        guard let bytes = try? result.single().int(0) else { return nil }
        return UInt64(exactly: bytes)
    }

    private func drainNotifications() {
        while let notification = handle.nextNotification() { onNotification?(notification) }
    }
}
