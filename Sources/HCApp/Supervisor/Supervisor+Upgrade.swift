import CLinux
import HCCore
import HCCrypto
import HCIO

/// Replacing the program of the supervisor while the workers serve: carries out what `UpgradeStateMachine` decides,
/// where the steps and their failures are told.
extension Supervisor {
    /// `hc-server --check-upgrade`: how a supervisor asks a new program whether it could take over.
    nonisolated static let checkArgument = "--check-upgrade"
    /// `hc-server --adopt DESCRIPTOR`: how a supervisor starts it, in its own place.
    nonisolated static let adoptArgument = "--adopt"

    /// Descriptors of a check.
    enum CheckDescriptor {
        static let state: Int32 = 3
        static let configuration: Int32 = 4
        static let answer: Int32 = 5
        static let program: Int32 = 6
    }

    private static let answerBytesMax = 256
    static let stateBytesMax = 256 << 20

    /// SIGUSR2.
    func upgradeRequested() {
        logger.notice("upgrade asked for", [("file", .string(program.path))])
        perform(upgrade.requested(now: clocks.monotonic()))
    }

    func perform(_ actions: [UpgradeStateMachine.Action]) {
        for action in actions {
            switch action {
            case .check(let candidate): check(candidate)
            case .killCheck: upgradeCheck?.signal(SIGKILL)
            case .quiesce:
                Loop.shared.spawn { [self] in
                    await closeOperations()
                    perform(upgrade.quiesced(now: clocks.monotonic()))
                }
            case .replace(let candidate): replace(candidate)
            case .reopen: reopen()
            case .logRefusal(let refused, let reason):
                metrics.upgrades[.refused]?.increment()
                logger.error(
                    "program refused, nothing changes",
                    [("candidate", .string(refused.rawValue)), ("reason", .string(reason))])
                candidate = nil
                // What cannot be put back is let go: the old workers and this program go on together.
                if refused == .previous { fallback = nil }
            }
        }
    }

    private func reopen() {
        do {
            try openOperations()
        } catch {
            // It was open a moment ago, and the socket is ours: descriptors have run out.
            logger.error("the operator listener cannot be opened", [("error", .string("\(error)"))])
        }
    }

    // MARK: The check

    private func check(_ wanted: UpgradeStateMachine.Candidate) {
        Loop.shared.spawn { [self] in
            let verdict: UpgradeStateMachine.Verdict
            do {
                let found = try open(wanted)
                candidate = found
                verdict = try await ask(found.program, found.configuration, wanted)
            } catch {
                verdict = .refused("\(error)")
            }
            perform(upgrade.checked(verdict, now: clocks.monotonic()))
        }
    }

    private func open(
        _ wanted: UpgradeStateMachine.Candidate
    ) throws -> (program: ProgramFile, configuration: ConfigurationSnapshot) {
        switch (wanted, fallback) {
        case (.previous, .program(let program, let configuration)): (program, configuration)
        // The configuration of today: a new release may know settings that we refuse.
        case (_, _): (try ProgramFile(path: program.path), try readConfiguration())
        }
    }

    /// Runs the candidate's check: it has to understand our state and the configuration.
    private func ask(
        _ program: ProgramFile, _ configuration: ConfigurationSnapshot,
        _ wanted: UpgradeStateMachine.Candidate
    ) async throws -> UpgradeStateMachine.Verdict {
        try FaultPoint.reach("upgrade.before-check")
        let state = try makeState(for: wanted, configuration)
        let document = try MemoryFile.make("hc-upgrade-state", state.bytes)
        let answer = try MemoryFile.makeEmpty("hc-upgrade-answer")
        let child = try ChildProcess.spawn(
            path: "/proc/self/fd/\(CheckDescriptor.program)",
            arguments: [program.path, Supervisor.checkArgument], environment: environment,
            descriptors: [
                (document.rawValue, CheckDescriptor.state),
                (configuration.descriptor, CheckDescriptor.configuration),
                (answer.rawValue, CheckDescriptor.answer),
                (program.descriptor, CheckDescriptor.program),
            ])
        upgradeCheck = child
        try FaultPoint.reach("upgrade.during-check")
        let status = await child.exit()
        upgradeCheck = nil
        guard status.isSuccess else {
            return .refused("its check ended with \(status); what it says is above, if anything")
        }
        let given = try MemoryFile.read(answer.rawValue, bytesMax: Supervisor.answerBytesMax)
        guard given == Array(state.answer.utf8) else {
            return .refused("it does not answer as hc-server does")
        }
        return .accepted
    }

    // MARK: The replacement

    private func replace(_ wanted: UpgradeStateMachine.Candidate) {
        guard let candidate else { preconditionFailure("what is replaced by was checked") }
        do {
            // As it is now: workers may have come and gone since the check.
            let state = try makeState(for: wanted, candidate.configuration)
            let document = try MemoryFile.make("hc-upgrade-state", state.bytes)
            logger.notice(
                "replacing the program",
                [
                    ("file", .string(candidate.program.path)),
                    ("identity", .string("\(candidate.program.identity)")),
                ])
            LogOutput.flush()
            try FaultPoint.reach("upgrade.before-replace")
            try ProcessImage.replace(
                by: candidate.program,
                arguments: [
                    candidate.program.path, Supervisor.adoptArgument, String(document.rawValue),
                ], environment: environment, keeping: state.descriptors + [document.rawValue])
        } catch {
            perform(upgrade.replaceFailed("\(error)"))
        }
    }

    private func makeState(
        for wanted: UpgradeStateMachine.Candidate, _ next: ConfigurationSnapshot
    ) throws -> UpgradeState {
        let random = SystemRandom()
        return UpgradeState(
            nonce: String(random.next(), radix: 16), path: program.path,
            configurationFile: next.source, configuration: next.descriptor,
            sockets: sockets.sockets,
            previous: wanted == .previous
                ? nil
                : UpgradeState.Program(
                    file: program.descriptor, configuration: configuration.descriptor),
            generation: machine.generation,
            workers: machine.members.compactMap { member in
                guard let worker = workers[member.worker.process] else { return nil }
                let channel = worker.channel.flatMap { $0.hasEnded ? nil : $0 }
                return UpgradeState.Worker(
                    member: member, channel: channel?.descriptor ?? -1,
                    received: channel?.received ?? [], unsent: channel?.unsent ?? [],
                    heartbeat: worker.heartbeat, metrics: worker.metrics)
            }, totals: totals)
    }
}
