import CLinux
import HCCore
import HCIO

/// `hc-admin`: parses the command line, runs one command on the loop, prints its report and exits.
package enum AdminProgram {
    /// Never returns: results on standard output, talk on standard error, true exit codes.
    package static func main() -> Never {
        let words = Array(CommandLine.arguments.dropFirst())
        let environment = ProcessEnvironment.current
        Loop.shared.adopt()
        do {
            try FaultPoint.arm(environment["HC_FAULT"] ?? "", perform: FaultActions.perform)
        } catch {
            finish(.failed, standardError: "hc-admin: HC_FAULT: \(error)")
        }
        LoopActor.assumeIsolated {
            // As in a server's worker: what `limits probe` measures is what it pays.
            Loop.shared.takeAllTasks()
            Loop.shared.spawn {
                await Loop.shared.proveAllTasksRunHere()
                let (status, output, errors) = await run(words, environment: environment)
                finish(status, standardOutput: output, standardError: errors)
            }
            Loop.shared.run()
        }
        finish(.failed, standardError: "hc-admin: the loop ended")
    }

    /// - Returns: the exit status and what goes to standard output and standard error.
    @LoopActor
    static func run(
        _ words: [String], environment: [String: String]
    ) async -> (ExitStatus, output: String, errors: String) {
        let wantsJSON = words.contains("--json")
        do {
            let match = try CommandTree.match(words)
            guard case .command(let command, let rest) = match else {
                if case .help(let text) = match { return (.done, text, "") }
                return (.failed, "", "")
            }
            let invocation = try Invocation(command.specification, words: rest)
            if invocation.wantsHelp { return (.done, command.specification.helpText, "") }
            let admin = AdminEnvironment(
                variables: environment, clocks: .system,
                operatorName: environment["SUDO_USER"] ?? environment["USER"] ?? "uid-\(getuid())",
                tell: { print($0, to: &standardError) }, ask: terminalQuestion(),
                show: { writeAll(1, $0) }, isTerminal: isatty(1) == 1)
            let report: Report
            do {
                report = try await command.init().run(invocation, admin)
            } catch {
                await admin.close()
                throw error
            }
            await admin.close()
            return (report.status, (wantsJSON ? report.json.text : report.text) + "\n", "")
        } catch {
            let failure = Failure(error)
            return wantsJSON
                ? (failure.status, failure.json.text + "\n", "")
                : (failure.status, "", failure.text)
        }
    }

    private static func finish(
        _ status: ExitStatus, standardOutput: String = "", standardError text: String = ""
    ) -> Never {
        if !standardOutput.isEmpty { writeAll(1, standardOutput) }
        if !text.isEmpty { print(text, to: &standardError) }
        exit(status.rawValue)
    }
}

/// How to ask who sits at the terminal; nil if nobody does.
private func terminalQuestion() -> (@Sendable (String) -> String?)? {
    guard isatty(0) == 1, isatty(2) == 1 else { return nil }
    return { question in
        writeAll(2, question)
        return readLine()
    }
}

/// Standard error as a place to print to.
private struct StandardError: TextOutputStream {
    mutating func write(_ text: String) { writeAll(2, text) }
}

private var standardError: StandardError {
    get { StandardError() }
    set {}
}

/// Writes to the end; an output that nobody reads any more is no error of the command.
private func writeAll(_ descriptor: Int32, _ text: String) {
    var bytes = Array(text.utf8)[...]
    while !bytes.isEmpty {
        let count = bytes.withUnsafeBytes { write(descriptor, $0.baseAddress, $0.count) }
        if count < 0 {
            if hc_errno() == EINTR { continue }
            return
        }
        bytes = bytes.dropFirst(count)
    }
}
