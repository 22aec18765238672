import HCCore

/// Decides when the program of the supervisor is replaced by another (SIGUSR2), and when not.
///
/// Pure, like `SupervisorStateMachine`. The steps, and what happens when each one dies:
///
/// | step | dies or fails | what happens |
/// |---|---|---|
/// | check: a child runs the new program with the new configuration and our state | it crashes, hangs, says no | a log line; nothing has changed |
/// | | the supervisor is killed | the child dies with it; the workers drain (their channel ends) |
/// | quiesce: the operator listener answers what it has | it does not come to an end | its connections are cut at a deadline |
/// | replace: execve in this process | the kernel says no | a log line; the operator listener opens again |
/// | | the supervisor is killed | the workers drain |
/// | adopt: the new program takes over sockets and workers | it dies | the workers drain; whoever watches the process starts it anew |
/// | | a worker dies meanwhile | it stays a zombie of this process, and is found and replaced |
/// | roll: the workers are replaced one by one | the first new worker cannot start | the program before is put back, the same way |
/// | | a later one cannot start | the roll stops; old and new workers go on serving |
///
/// The sockets are open in this process all the time, and workers serve all the time, so clients see none of it.
struct UpgradeStateMachine {
    /// What shall run in this process.
    enum Candidate: String, Sendable, CaseIterable {
        /// What lies at the path that we were started from.
        case file
        /// What ran here before: its successor has proved useless.
        case previous
    }

    enum Verdict: Equatable {
        case accepted
        case refused(String)
    }

    enum Action: Equatable {
        /// Run the candidate's check and report its verdict.
        case check(Candidate)
        case killCheck
        /// Close the operator listener, its connections and nothing else, and report `quiesced`.
        case quiesce
        case replace(Candidate)
        /// Open the operator listener again.
        case reopen
        case logRefusal(Candidate, reason: String)
    }

    private enum State {
        /// Can transition to: checking, stopped.
        case idle
        /// Can transition to: checking (asked again), quiescing, idle, stopped.
        case checking(Candidate, deadline: MonotonicTime)
        /// Can transition to: idle (replaced or not), checking (asked again), stopped.
        case quiescing(Candidate)
        /// The supervisor ends.
        case stopped
    }

    /// How long a check may take: it reads a few files.
    let checkPatience: Duration
    private var state = State.idle
    /// The file may have been replaced again since the check began.
    private var isAskedAgain = false

    init(checkPatience: Duration = .seconds(30)) {
        self.checkPatience = checkPatience
    }

    var isBusy: Bool {
        switch state {
        case .checking, .quiescing: true
        case .idle, .stopped: false
        }
    }

    /// SIGUSR2.
    mutating func requested(now: MonotonicTime) -> [Action] {
        switch state {
        case .idle: return check(.file, now: now)
        case .checking, .quiescing:
            isAskedAgain = true
            return []
        case .stopped: return []
        }
    }

    /// The program that runs has proved useless.
    mutating func revertRequested(now: MonotonicTime) -> [Action] {
        guard case .idle = state else { return [] }
        return check(.previous, now: now)
    }

    mutating func checked(_ verdict: Verdict, now: MonotonicTime) -> [Action] {
        guard case .checking(let candidate, _) = state else { return [] }
        if isAskedAgain { return check(.file, now: now) }
        switch verdict {
        case .accepted:
            state = .quiescing(candidate)
            return [.quiesce]
        case .refused(let reason):
            state = .idle
            return [.logRefusal(candidate, reason: reason)]
        }
    }

    mutating func quiesced(now: MonotonicTime) -> [Action] {
        guard case .quiescing(let candidate) = state else { return [] }
        if isAskedAgain { return [.reopen] + check(.file, now: now) }
        return [.replace(candidate)]
    }

    /// `replace` came back: it has failed.
    mutating func replaceFailed(_ reason: String) -> [Action] {
        guard case .quiescing(let candidate) = state else { return [] }
        state = .idle
        return [.reopen, .logRefusal(candidate, reason: reason)]
    }

    /// Called at least every second.
    mutating func tick(now: MonotonicTime) -> [Action] {
        guard case .checking(_, let deadline) = state, now >= deadline else { return [] }
        return [.killCheck]
    }

    /// SIGTERM: nothing is begun any more.
    mutating func terminated() -> [Action] {
        defer { state = .stopped }
        switch state {
        case .checking: return [.killCheck]
        case .quiescing: return [.reopen]
        case .idle, .stopped: return []
        }
    }

    private mutating func check(_ candidate: Candidate, now: MonotonicTime) -> [Action] {
        isAskedAgain = false
        state = .checking(candidate, deadline: now + checkPatience)
        return [.check(candidate)]
    }
}
