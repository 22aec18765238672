import Glibc

/// Follows a log file and waits for lines, by the kernel's word (inotify, through tail), not by asking.
package final class LogFollower: Sendable {
    private let tail: Subprocess
    private let path: String

    /// From the end of the file as it is now.
    ///
    /// - Parameter patience: seconds after which `wait` gives up.
    package init(_ path: String, patience: Int = 120) throws {
        self.path = path
        // By the size of this moment, however late tail begins.
        var status = stat()
        let size = stat(path, &status) == 0 ? Int(status.st_size) : 0
        tail = try Subprocess(
            "/usr/bin/timeout",
            [String(patience), "/usr/bin/tail", "-c", "+\(size + 1)", "-F", path],
            errorOutput: .discarded)
        tail.closeInput()
    }

    /// The next line that contains all of `texts`. Lines before it are not seen again.
    @discardableResult
    package func wait(for texts: String...) throws -> String {
        var last = ""
        while let line = try tail.readLine() {
            if texts.allSatisfy({ line.contains($0) }) { return line }
            last = line
        }
        throw FixtureError("\(path): no line with \(texts); the last was: \(last)")
    }
}
