/// Follows the answers to one pipeline up to its Sync, and knows at each moment what a loss of the connection
/// would mean.
///
/// libpq 34.5.1.2: each step gives its result and then a nil; after a failure the others give
/// `PGRES_PIPELINE_ABORTED` and a nil; the Sync gives `PGRES_PIPELINE_SYNC`.
///
/// An epilogue is one statement behind that Sync, with a Sync of its own: it runs after the commit and tells nothing
/// about the batch.
struct BatchMachine {
    /// When the server makes this batch's effects permanent.
    enum CommitPoint {
        /// Within an open transaction: not by this batch.
        case none
        /// No transaction is open: at the Sync.
        case sync
        /// At the `.commit` step.
        case commitStep
    }

    enum Event {
        /// Rows or a command's completion.
        case completed
        /// `COMMIT` was answered by the tag `ROLLBACK`: the transaction had failed before.
        case rolledBack
        case failed(PostgresError.ServerError)
        case aborted
        case endOfStep
        case sync
        /// A COPY or another thing that has no place in a pipeline.
        case unexpected
    }

    enum Action: Equatable {
        case none
        /// The result belongs to the query of this index.
        case keepResult(query: Int)
        /// The result is the epilogue's.
        case keepEpilogue
        /// The session is ready for the next batch.
        case finish
        /// The server's answers no longer match what was sent.
        case close
    }

    enum LossOutcome: Equatable {
        /// Nothing of the batch is or will be committed.
        case nothingCommitted
        /// The server has confirmed the commit.
        case committed
        case unknown
    }

    private(set) var steps: [BatchStep] = []
    private(set) var commitPoint = CommitPoint.none
    /// Steps that the server has finished, from the first.
    private(set) var completed = 0
    private(set) var failure: (step: Int, error: PostgresError.ServerError)?
    /// All bytes up to the Sync were given to the kernel.
    private(set) var isFlushed = false
    private(set) var isFinished = false
    /// Steps whose nil has come, whether they ran or not.
    private var passed = 0
    private var commitWasConfirmed = false
    private var endedWithoutCommit = false
    private var hasEpilogue = false
    /// The batch has its Sync: what comes now is the epilogue's.
    private var isSynced = false

    mutating func begin(
        _ steps: consuming [BatchStep], commitPoint: CommitPoint, hasEpilogue: Bool = false
    ) {
        self.steps = steps
        self.commitPoint = commitPoint
        self.hasEpilogue = hasEpilogue
        isSynced = false
        completed = 0
        failure = nil
        isFlushed = false
        isFinished = false
        passed = 0
        commitWasConfirmed = false
        endedWithoutCommit = false
    }

    /// Gives the array's storage back for the next batch.
    mutating func takeSteps() -> [BatchStep] {
        var taken: [BatchStep] = []
        swap(&taken, &steps)
        taken.removeAll(keepingCapacity: true)
        return taken
    }

    mutating func flushed() { isFlushed = true }

    mutating func received(_ event: Event) -> Action {
        guard !isFinished else { return .close }
        if isSynced { return receivedEpilogue(event) }
        switch event {
        case .completed:
            guard passed < steps.count, completed == passed, failure == nil else { return .close }
            completed += 1
            switch steps[passed] {
            case .execute(let query): return .keepResult(query: query)
            case .commit: commitWasConfirmed = true
            default: break
            }
            return .none
        case .rolledBack:
            guard passed < steps.count, case .commit = steps[passed] else { return .close }
            completed += 1
            endedWithoutCommit = true
            return .none
        case .failed(let error):
            // Beyond the last step it is the Sync that failed: a deferred constraint, a serialization failure.
            if failure == nil { failure = (passed, error) }
            return .none
        case .aborted:
            guard failure != nil else { return .close }
            return .none
        case .endOfStep:
            if passed < steps.count { passed += 1 }
            return .none
        case .sync:
            guard passed == steps.count else { return .close }
            guard hasEpilogue else {
                isFinished = true
                return .finish
            }
            isSynced = true
            if commitPoint == .sync, failure == nil { commitWasConfirmed = true }
            return .none
        case .unexpected:
            return .close
        }
    }

    /// It may fail, or be cancelled: then there is no result.
    private mutating func receivedEpilogue(_ event: Event) -> Action {
        switch event {
        case .completed: return .keepEpilogue
        case .failed, .aborted, .endOfStep: return .none
        case .sync:
            isFinished = true
            return .finish
        case .rolledBack, .unexpected: return .close
        }
    }

    /// The step whose answer is awaited; nil at the Sync.
    var currentStep: BatchStep? { passed < steps.count ? steps[passed] : nil }

    var committedNothing: Bool { failure != nil || endedWithoutCommit }

    /// What is known about the batch's effects if the session ends now.
    var lossOutcome: LossOutcome {
        if commitWasConfirmed { return .committed }
        // Its Sync has come, and there was no commit in it.
        if isSynced { return .nothingCommitted }
        // The Sync (and a COMMIT before it) is the tail of what is sent: as long as libpq holds some of it,
        // the server cannot have it. What it holds may be the epilogue only.
        guard isFlushed || hasEpilogue else { return .nothingCommitted }
        guard !endedWithoutCommit else { return .nothingCommitted }
        switch commitPoint {
        case .none:
            return .nothingCommitted
        case .sync:
            guard let failure else { return .unknown }
            // A step that failed, with or without the session, has taken the transaction with it. FATAL while
            // the Sync was being answered may have come after the commit.
            return failure.step < steps.count || !failure.error.isFatal
                ? .nothingCommitted : .unknown
        case .commitStep:
            guard let failure else { return .unknown }
            guard failure.error.isFatal else { return .nothingCommitted }
            guard failure.step < steps.count else { return .unknown }
            if case .commit = steps[failure.step] { return .unknown }
            return .nothingCommitted
        }
    }

    /// The query at which the batch failed.
    var failedQuery: Int? {
        guard let failure, failure.step < steps.count else { return nil }
        // A Parse stands directly before the query that needs it.
        for step in steps[failure.step...] {
            if case .execute(let query) = step { return query }
        }
        return nil
    }
}
