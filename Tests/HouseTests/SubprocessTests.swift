import Glibc
import HCTesting
import Testing

@Suite struct SubprocessTests {
    /// Two sleeps, of which the one is started by the shell that is waited for.
    private func sleeper() throws -> Subprocess {
        try Subprocess(
            "/bin/sh", ["-c", "sleep 1000 & echo $!; wait"], patience: .milliseconds(200))
    }

    private func isGone(_ process: pid_t) throws -> Bool {
        // Its parent is dead, and whoever has adopted it may be late in burying it.
        guard let text = try? Repository.contents(of: "/proc/\(process)/stat") else { return true }
        return text.split(separator: ") ").last?.first == "Z"
    }

    @Test("who is silent too long is ended with what it has started, and its error names them")
    func silent() throws {
        let child = try sleeper()
        let inner = try #require(pid_t(try child.readLine() ?? ""))
        let error = try #require(throws: FixtureError.self) { try child.readToEnd() }
        #expect(error.description.contains("/bin/sh -c"))
        #expect(error.description.contains("process \(inner): sleep 1000"))
        #expect(error.description.contains("TID \(inner)"))
        #expect(try child.wait() == 128 + SIGKILL)
        #expect(try isGone(inner))
    }

    @Test("so is one that does not end")
    func endless() throws {
        let child = try sleeper()
        let inner = try #require(pid_t(try child.readLine() ?? ""))
        #expect(throws: FixtureError.self) { try child.wait() }
        #expect(try child.wait() == 128 + SIGKILL)
        #expect(try isGone(inner))
    }

    @Test("so is one that does not read what it is told")
    func deaf() throws {
        let child = try sleeper()
        #expect(throws: FixtureError.self) {
            // More than any pipe takes.
            try child.write(String(repeating: "x", count: 4 << 20))
        }
        #expect(try child.wait() == 128 + SIGKILL)
    }

    @Test("what is written comes whole, however large it is")
    func large() throws {
        let text = String(repeating: "0123456789\n", count: 100_000)
        let child = try Subprocess("/usr/bin/wc", ["-c"])
        try child.write(text)
        child.closeInput()
        #expect(try child.readToEnd().filter(\.isNumber) == String(text.utf8.count))
        #expect(try child.wait() == 0)
    }
}
