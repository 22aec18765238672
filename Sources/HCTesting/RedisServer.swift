import CLinux
import Glibc
import Synchronization

/// A Redis of a test's own, which it may kill, stop and start again. Its socket stays the same.
///
/// All calls block; do not make them on a loop's thread.
package final class RedisServer: Sendable {
    package let socket: String
    package let password: String
    private let directory: String
    /// Lines of its configuration.
    private let settings: [String]
    private let child: Mutex<Subprocess?>

    package init(password: String = "test-password", settings: [String] = []) throws {
        var template = Array("/tmp/hc-redis-XXXXXX".utf8CString)
        guard mkdtemp(&template) != nil else { throw FixtureError("mkdtemp failed") }
        directory = String(
            decoding: template.dropLast().map { UInt8(bitPattern: $0) }, as: UTF8.self)
        socket = directory + "/redis.sock"
        self.password = password
        self.settings = settings
        child = Mutex(nil)
        try start()
    }

    deinit {
        child.withLock { child in
            child?.closeInput()
            _ = try? child?.wait()
        }
        unlink(socket)
        rmdir(directory)
    }

    /// Starts it again after `kill()`, empty.
    package func start() throws {
        try child.withLock { child in
            guard child == nil else { return }
            // The shell passes signals on by name. When its input ends, because this process closes the
            // pipe or dies, it kills the server and removes its files.
            let started = try Subprocess(
                "/bin/bash",
                [
                    "-c",
                    """
                    redis-server - <<<"$1" &
                    server=$!
                    exec >&-
                    while read -r signal; do kill -"$signal" "$server"; last=$signal; done
                    [[ $last == KILL ]] || { kill -KILL "$server"; rm -rf "$2"; }
                    """,
                    "redis",
                    """
                    port 0
                    unixsocket \(socket)
                    requirepass "\(password)"
                    save ""
                    appendonly no
                    dir \(directory)
                    \(settings.joined(separator: "\n"))
                    """,
                    directory,
                ], errorOutput: .discarded)
            while true {
                guard let line = try started.readLine() else {
                    throw FixtureError("redis-server did not start")
                }
                if line.contains("eady to accept connections") { break }
            }
            child = started
        }
    }

    /// SIGKILL. Returns when the server is gone.
    package func kill() throws {
        try child.withLock { child in
            guard let running = child else { return }
            try running.write("KILL\n")
            _ = try running.readToEnd()
            running.closeInput()
            try running.wait()
            child = nil
        }
    }

    /// SIGSTOP: connections stay open and nothing answers.
    package func suspend() throws {
        try child.withLock { try $0?.write("STOP\n") }
    }

    package func resume() throws {
        try child.withLock { try $0?.write("CONT\n") }
    }
}
