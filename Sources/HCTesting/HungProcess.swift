import CLinux
import Glibc
import HCCore
import HCIO

/// A process that was waited for in vain: what it and all that it has started are doing, for a human who reads the test's
/// output, and its end.
struct HungProcess {
    private let family: [pid_t]

    /// Of the text about one of them.
    private static let charactersMax = 6_000

    /// It and its descendants, as far as they were not adopted by others: a server that has detached itself is none.
    init(_ process: pid_t) {
        var parents: [pid_t: pid_t] = [:]
        for name in (try? Files.list("/proc")) ?? [] {
            guard let member = pid_t(name),
                let text = try? Repository.contents(of: "/proc/\(name)/stat"),
                // After the name, which is in brackets: the state, and the parent (man 5 proc).
                let parent = text.split(separator: ") ").last?.split(separator: " ").dropFirst()
                    .first
            else { continue }
            parents[member] = pid_t(parent)
        }
        var family = [process]
        var seen = 0
        while seen < family.count {
            let parent = family[seen]
            family += parents.filter { $0.value == parent }.keys.sorted()
            seen += 1
        }
        self.family = family
    }

    /// A paragraph for each: its number, its command line, and the stacks of its threads.
    var description: String {
        family.map { process in
            let words = (try? Repository.contents(of: "/proc/\(process)/cmdline")) ?? "gone"
            let command = words.split(separator: "\0").joined(separator: " ").prefix(300)
            return "process \(process): \(command)\n\(Self.stacks(of: process))"
        }.joined(separator: "\n")
    }

    /// Ends them all, and waits until they are gone.
    func kill() {
        let descriptors = family.map { hc_pidfd_open($0) }.filter { $0 >= 0 }
        for process in family { Glibc.kill(process, SIGKILL) }
        for descriptor in descriptors {
            var entry = pollfd(fd: descriptor, events: Int16(POLLIN), revents: 0)
            poll(&entry, 1, 5_000)
            close(descriptor)
        }
    }

    private static func stacks(of process: pid_t) -> String {
        do {
            let child = try Subprocess(
                "/usr/bin/eu-stack", ["-p", String(process), "-n", "48"], patience: .seconds(30))
            child.closeInput()
            let text = try child.readToEnd()
            try child.wait()
            return text.count <= charactersMax ? text : text.prefix(charactersMax) + "…\n"
        } catch {
            return "no stacks: \(error)"
        }
    }
}
