import HCCore
import Testing

@testable import HCPostgres

@Suite("what a lost connection means")
struct BatchMachineTests {
    private static let error = PostgresError.ServerError(
        sqlstate: .uniqueViolation, message: "duplicate")
    private static let fatal = PostgresError.ServerError(
        sqlstate: .adminShutdown, message: "shutting down", isFatal: true)

    private func machine(
        _ steps: [BatchStep], _ commitPoint: BatchMachine.CommitPoint, flushed: Bool = true
    ) -> BatchMachine {
        var machine = BatchMachine()
        machine.begin(steps, commitPoint: commitPoint)
        if flushed { machine.flushed() }
        return machine
    }

    private func feed(
        _ batch: inout BatchMachine, _ events: [BatchMachine.Event]
    ) -> [BatchMachine.Action] {
        events.map { batch.received($0) }
    }

    @Test("a batch runs to its Sync")
    func completes() {
        var batch = machine([.prepare(1), .execute(0), .execute(1)], .sync)
        let actions = feed(
            &batch,
            [.completed, .endOfStep, .completed, .endOfStep, .completed, .endOfStep, .sync])
        #expect(
            actions == [
                .none, .none, .keepResult(query: 0), .none, .keepResult(query: 1), .none, .finish,
            ])
        #expect(batch.isFinished)
        #expect(batch.completed == 3)
        #expect(batch.failedQuery == nil)
    }

    @Test("the query is named that failed, or whose Parse did")
    func failedQuery() {
        var batch = machine([.prepare(1), .execute(0), .prepare(2), .execute(1)], .sync)
        let actions = feed(
            &batch,
            [
                .completed, .endOfStep, .completed, .endOfStep, .failed(Self.error), .endOfStep,
                .aborted, .endOfStep, .sync,
            ])
        #expect(!actions.contains(.close))
        #expect(actions.last == .finish)
        #expect(batch.completed == 2)
        #expect(batch.failedQuery == 1)
        #expect(batch.committedNothing)
    }

    @Test("an answer too many or too few closes the session")
    func violations() {
        var early = machine([.execute(0)], .sync)
        #expect(feed(&early, [.sync]) == [.close])
        var late = machine([], .sync)
        #expect(feed(&late, [.completed]) == [.close])
        var unexplained = machine([.execute(0)], .sync)
        #expect(feed(&unexplained, [.aborted]) == [.close])
        var copy = machine([.execute(0)], .sync)
        #expect(feed(&copy, [.unexpected]) == [.close])
    }

    @Test("an epilogue comes behind the Sync, and however it ends the batch is what it was")
    func epilogue() {
        let head: [BatchMachine.Event] = [.completed, .endOfStep, .sync]
        var good = BatchMachine()
        good.begin([.execute(0)], commitPoint: .sync, hasEpilogue: true)
        good.flushed()
        #expect(feed(&good, head) == [.keepResult(query: 0), .none, .none])
        #expect(!good.isFinished)
        #expect(good.lossOutcome == .committed, "its own Sync has come")
        #expect(feed(&good, [.completed, .endOfStep, .sync]) == [.keepEpilogue, .none, .finish])
        #expect(good.isFinished && !good.committedNothing)

        var cancelled = BatchMachine()
        cancelled.begin([.execute(0)], commitPoint: .sync, hasEpilogue: true)
        #expect(feed(&cancelled, head + [.failed(Self.error), .endOfStep, .sync]).last == .finish)
        #expect(!cancelled.committedNothing)

        var failed = BatchMachine()
        failed.begin([.execute(0)], commitPoint: .sync, hasEpilogue: true)
        #expect(
            feed(&failed, [.failed(Self.error), .endOfStep, .sync]).last == BatchMachine.Action.none
        )
        #expect(failed.lossOutcome == .nothingCommitted)
        #expect(feed(&failed, [.completed, .endOfStep, .sync]).last == .finish)
        #expect(failed.committedNothing)

        var twice = BatchMachine()
        twice.begin([.execute(0)], commitPoint: .sync, hasEpilogue: true)
        #expect(feed(&twice, head + [.sync, .sync]).last == .close)
    }

    @Test("with an epilogue that has not left yet, the batch may have")
    func unflushedEpilogue() {
        var batch = BatchMachine()
        batch.begin([.execute(0)], commitPoint: .sync, hasEpilogue: true)
        #expect(batch.lossOutcome == .unknown)
        batch.begin([.execute(0), .commit], commitPoint: .commitStep, hasEpilogue: true)
        #expect(batch.lossOutcome == .unknown)
    }

    @Test("before the Sync has left for the server, nothing can be committed")
    func unflushed() {
        #expect(machine([.execute(0)], .sync, flushed: false).lossOutcome == .nothingCommitted)
        #expect(
            machine([.execute(0), .commit], .commitStep, flushed: false).lossOutcome
                == .nothingCommitted)
    }

    @Test("after it, an implicit transaction may be, unless one of its steps failed")
    func implicit() {
        #expect(machine([.execute(0)], .sync).lossOutcome == .unknown)
        var failed = machine([.execute(0), .execute(1)], .sync)
        _ = failed.received(.failed(Self.error))
        #expect(failed.lossOutcome == .nothingCommitted)
        var killed = machine([.execute(0), .execute(1)], .sync)
        _ = killed.received(.failed(Self.fatal))
        #expect(killed.lossOutcome == .nothingCommitted)
        var killedAtSync = machine([.execute(0)], .sync)
        _ = killedAtSync.received(.completed)
        _ = killedAtSync.received(.endOfStep)
        _ = killedAtSync.received(.failed(Self.fatal))
        #expect(killedAtSync.lossOutcome == .unknown)
        var refusedAtSync = machine([.execute(0)], .sync)
        _ = refusedAtSync.received(.completed)
        _ = refusedAtSync.received(.endOfStep)
        _ = refusedAtSync.received(.failed(Self.error))
        #expect(refusedAtSync.lossOutcome == .nothingCommitted)
    }

    @Test("within an open transaction, a batch commits nothing")
    func inTransaction() {
        #expect(machine([.begin, .execute(0)], .none).lossOutcome == .nothingCommitted)
    }

    @Test("a COMMIT is unknown until its answer, and certain after it")
    func commit() {
        var batch = machine([.execute(0), .commit], .commitStep)
        #expect(batch.lossOutcome == .unknown)
        _ = batch.received(.completed)
        _ = batch.received(.endOfStep)
        #expect(batch.lossOutcome == .unknown)
        _ = batch.received(.completed)
        #expect(batch.lossOutcome == .committed)
    }

    @Test("a COMMIT that the server killed may have happened; one that it refused has not")
    func commitFailures() {
        var killed = machine([.commit], .commitStep)
        _ = killed.received(.failed(Self.fatal))
        #expect(killed.lossOutcome == .unknown)
        var refused = machine([.commit], .commitStep)
        _ = refused.received(.failed(Self.error))
        #expect(refused.lossOutcome == .nothingCommitted)
        var before = machine([.execute(0), .commit], .commitStep)
        _ = before.received(.failed(Self.fatal))
        #expect(before.lossOutcome == .nothingCommitted)
        var rolledBack = machine([.commit], .commitStep)
        _ = rolledBack.received(.rolledBack)
        #expect(rolledBack.lossOutcome == .nothingCommitted)
        #expect(rolledBack.committedNothing)
    }
}

@Suite("the statement cache")
struct StatementCacheTests {
    private func plan(
        _ cache: inout StatementCache, _ address: Int, _ types: [UInt32] = []
    ) -> (id: UInt32, steps: [BatchStep]) {
        var steps: [BatchStep] = []
        let plan = types.withUnsafeBufferPointer {
            cache.plan(address: address, types: $0, into: &steps)
        }
        return (plan.id, steps)
    }

    private func housekeeping(_ cache: inout StatementCache) -> [BatchStep] {
        var steps: [BatchStep] = []
        cache.planHousekeeping(into: &steps)
        return steps
    }

    @Test("a text is prepared once")
    func once() {
        var cache = StatementCache(capacity: 4)
        let first = plan(&cache, 100)
        #expect(first.steps == [.prepare(first.id)])
        let second = plan(&cache, 100)
        #expect(second.id == first.id)
        #expect(second.steps.isEmpty)
    }

    @Test("the least recently used one makes room")
    func eviction() {
        var cache = StatementCache(capacity: 2)
        let one = plan(&cache, 1)
        let two = plan(&cache, 2)
        _ = plan(&cache, 1)
        let three = plan(&cache, 3)
        #expect(three.steps == [.deallocate(two.id), .prepare(three.id)])
        #expect(plan(&cache, 1).id == one.id)
        #expect(cache.count == 2)
    }

    @Test(
        "a null fits what is prepared; a type that was not seen yet prepares anew, with all types known"
    )
    func types() {
        var cache = StatementCache(capacity: 4)
        let first = plan(&cache, 1, [2950, 0])
        #expect(plan(&cache, 1, [0, 0]).id == first.id)
        let second = plan(&cache, 1, [0, 25])
        #expect(second.steps == [.deallocate(first.id), .prepare(second.id)])
        #expect(plan(&cache, 1, [2950, 25]).id == second.id)
        #expect(plan(&cache, 1, [2950, 0]).id == second.id)
    }

    @Test("a Parse that the server skipped or refused is not remembered")
    func skipped() {
        var cache = StatementCache(capacity: 4)
        let one = plan(&cache, 1)
        let two = plan(&cache, 2)
        let steps: [BatchStep] = [
            .prepare(one.id), .execute(0), .prepare(two.id), .execute(1),
        ]
        cache.settle(steps, completed: 1)
        #expect(plan(&cache, 1).id == one.id)
        #expect(plan(&cache, 2).steps.count == 1)
    }

    @Test("a statement that could not be closed is closed first thing in the next batch")
    func abandoned() {
        var cache = StatementCache(capacity: 1)
        let one = plan(&cache, 1)
        cache.settle([.prepare(one.id), .execute(0)], completed: 2)
        let two = plan(&cache, 2)
        cache.settle([.execute(0), .deallocate(one.id), .prepare(two.id)], completed: 0)
        #expect(housekeeping(&cache) == [.deallocate(one.id)])
        #expect(housekeeping(&cache).isEmpty)
        #expect(cache.count == 0)
    }

    @Test("one that was never made needs no closing")
    func neverMade() {
        var cache = StatementCache(capacity: 1)
        let one = plan(&cache, 1)
        let two = plan(&cache, 2)
        let steps: [BatchStep] = [
            .execute(0), .prepare(one.id), .deallocate(one.id), .prepare(two.id),
        ]
        cache.settle(steps, completed: 0)
        #expect(housekeeping(&cache).isEmpty)
    }

    @Test("after a stale statement all are forgotten, until the server has forgotten them too")
    func forgetAll() {
        var cache = StatementCache(capacity: 4)
        let one = plan(&cache, 1)
        cache.settle([.prepare(one.id)], completed: 1)
        cache.forgetAll()
        #expect(housekeeping(&cache) == [.deallocateAll])
        cache.settle([.deallocateAll, .execute(0)], completed: 0)
        #expect(housekeeping(&cache) == [.deallocateAll])
        cache.settle([.deallocateAll, .execute(0)], completed: 1)
        #expect(housekeeping(&cache).isEmpty)
        #expect(plan(&cache, 1).id != one.id)
    }
}

@Suite("the session's life")
struct SessionStateMachineTests {
    @Test("one operation at a time")
    func oneAtATime() {
        var session = SessionStateMachine()
        let first = session.begin()
        let second = session.begin()
        let end = session.operationEnded()
        let third = session.begin()
        session.close()
        let fourth = session.begin()
        #expect([first, second, third, fourth] == [nil, .busy, nil, .closed])
        #expect(end == .resume)
    }

    @Test("an interrupted session is free when the operation has ended and the request is answered")
    func endFirst() {
        var session = SessionStateMachine()
        _ = session.begin()
        let asks = [session.interrupt(.deadline), session.interrupt(.cancellation)]
        let end = session.operationEnded()
        let isIdleBetween = session.isIdle
        let answer = session.cancelAnswered(delivered: true)
        let isIdle = session.isIdle
        let reason = session.interruption
        #expect(asks == [true, false])
        #expect(end == .wait)
        #expect(!isIdleBetween)
        #expect(answer == .resume)
        #expect(isIdle)
        #expect(reason == .deadline)
    }

    @Test("the answer to the request may also come first")
    func answerFirst() {
        var session = SessionStateMachine()
        _ = session.begin()
        _ = session.interrupt(.cancellation)
        let answer = session.cancelAnswered(delivered: true)
        let end = session.operationEnded()
        let next = session.begin()
        let reason = session.interruption
        #expect(answer == .wait)
        #expect(end == .resume)
        #expect(next == nil)
        #expect(reason == nil)
    }

    @Test("a request that may still arrive late closes the session")
    func undelivered() {
        var session = SessionStateMachine()
        _ = session.begin()
        _ = session.interrupt(.deadline)
        let end = session.operationEnded()
        let answer = session.cancelAnswered(delivered: false)
        #expect(end == .wait)
        #expect(answer == .close)
    }

    @Test("an idle session has nothing to interrupt")
    func idle() {
        var session = SessionStateMachine()
        let asks = session.interrupt(.deadline)
        let end = session.operationEnded()
        #expect(!asks)
        #expect(end == .close)
    }
}

@Suite("small values")
struct SmallValueTests {
    @Test(
        "a SQLSTATE is five digits and capitals",
        arguments: [
            ("HC001", true), ("23505", true), ("2350", false), ("235055", false), ("hc001", false),
            ("", false), ("2350 ", false),
        ])
    func sqlstate(text: String, isOne: Bool) {
        #expect((SQLState(text) != nil) == isOne)
        if isOne { #expect(SQLState(text)?.code == text) }
    }

    @Test("values and queries print no data")
    func redaction() {
        let query = Query("SELECT $1", [.text("Ada")])
        var dumped = ""
        dump(query, to: &dumped)
        for text in ["\(query)", "\(query.binds)", "\(PostgresValue.texts(["Ada"]))", dumped] {
            #expect(!text.contains("Ada"))
        }
        var error = PostgresError.ServerError(sqlstate: .uniqueViolation, message: "Ada is there")
        error.detail = Sensitive("Key (name)=(Ada)")
        error.constraint = "t_pkey"
        let text = "\(PostgresError(.server(error), queryIndex: 3))"
        #expect(!text.contains("Ada"))
        #expect(text.contains("23505"))
        #expect(text.contains("t_pkey"))
    }

    @Test(
        "a name is quoted as one name",
        arguments: [
            ("hc_placement", "\"hc_placement\""), ("a\"b", "\"a\"\"b\""), ("A b;", "\"A b;\""),
        ])
    func identifier(name: String, quoted: String) {
        #expect(Query.quotedIdentifier(name) == quoted)
    }

    @Test("what cannot be a name is none")
    func noIdentifier() {
        #expect(Query.quotedIdentifier("") == nil)
        #expect(Query.quotedIdentifier("a\0b") == nil)
        #expect(Query.quotedIdentifier(String(repeating: "x", count: 64)) == nil)
    }

    @Test("start-up options keep the operator's and escape blanks")
    func options() {
        var configuration = PostgresConfiguration(
            connectionString: Sensitive("host=/run"), applicationName: "x")
        configuration.searchPath = "hc, public"
        configuration.lockTimeout = .milliseconds(1500)
        configuration.statementTimeout = .zero
        let text = configuration.startupOptions(after: "-c jit=off")
        #expect(text.hasPrefix("-c jit=off -c statement_timeout=1 "))
        #expect(text.contains("-c search_path=hc,\\ public"))
        #expect(text.hasSuffix("-c lock_timeout=1500"))
    }
}
