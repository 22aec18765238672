import CLinux
import Glibc
import HCCore
import HCIO
import HCTesting
import Synchronization

/// A platform on which moves meet faults: the control database, two shards on a server each, Redis, workers and an
/// agent, all real processes, and three clinics: one that is moved to and fro, and a neighbour on each shard.
///
/// The cases follow one another on it for as long as they leave it whole.
final class MoveFaultGround: Sendable {
    /// The clinic that is moved, and those that must not notice.
    static let moved = "faulty"
    static let neighbours = ["s2": "near", "s3": "far"]

    /// Something that runs and can be killed or stopped.
    enum Server: Sendable, Equatable {
        case control
        case shard(String)
        case redis

        /// Its directory under the place of the services.
        var directory: String {
            switch self {
            case .control: "postgres-1"
            case .shard(let id): "postgres-\(id.dropFirst())"
            case .redis: "redis"
            }
        }
    }

    let platform: RunningPlatform
    private let clinics: [LedgerClient.Clinic]
    private let psql: String
    private let place: String
    private let agent: Mutex<Subprocess?>
    private let numberOfRuns = Mutex(0)
    private let tenant: String

    init(_ name: String) throws {
        platform = try RunningPlatform.shared(
            name, ["HC_SHARDS": "3", "HC_SHARD_SERVERS": "3", "HC_WORKERS": "2"])
        let state = platform.state
        psql = try Repository.line(of: state + "/services/bin") + "/psql"
        place = try Repository.line(of: state + "/services/place")
        var clinics: [LedgerClient.Clinic] = []
        for (slug, shard) in [(Self.moved, "s2"), ("near", "s2"), ("far", "s3")] {
            let (status, output) = try platform.admin([
                "tenant", "create", slug, "--name", slug, "--tier", "standard", "--shard", shard,
                "--json",
            ])
            let made = try JSONReader.parse(Array(output.utf8))
            guard status == 0, let email = made["ownerEmail"]?.asString,
                let password = made["ownerPassword"]?.asString
            else { throw FixtureError("the clinic \(slug) was not made: \(output)") }
            clinics.append(
                LedgerClient.Clinic(
                    slug: slug, email: email, password: password,
                    writers: slug == Self.moved ? 3 : 1))
        }
        self.clinics = clinics
        let (seeded, output) = try platform.admin([
            "demo", "seed", Self.moved, "--patients", "100", "--days", "5",
        ])
        guard seeded == 0 else { throw FixtureError("no sample data: \(output)") }
        agent = Mutex(nil)
        tenant = try Subprocess.run(
            psql, ["-XqAt", "-c", "SELECT id FROM tenant WHERE slug = '\(Self.moved)'"],
            environment: Conninfo(
                Repository.contents(of: state + "/secrets/control.superuser.conninfo")
            ).environment
        ).trimmedEnd
        // The one that `up` has started; those of the cases are this process' children.
        let own = try Repository.line(of: state + "/agent/pid")
        guard let process = pid_t(own) else { throw FixtureError("no process id: \(own)") }
        kill(process, SIGKILL)
        try platform.waitForExit(process)
        try startAgent()
    }

    // MARK: What is there

    /// Rows of a database as lines, with `|` between the columns. `server` is `control` or a shard.
    @discardableResult
    func sql(_ server: Server, _ text: String, role: String = "superuser") throws -> String {
        let name: String
        switch server {
        case .control: name = "control"
        case .shard(let id): name = "shards/\(id)"
        case .redis: throw FixtureError("Redis has no SQL")
        }
        return try Subprocess.run(
            psql, ["-XqAt", "-v", "ON_ERROR_STOP=1"],
            environment: Conninfo(
                Repository.contents(of: "\(platform.state)/secrets/\(name).\(role).conninfo")
            ).environment,
            input: text.replacing(":tenant", with: "'\(tenant)'")
        ).trimmedEnd
    }

    /// A session that stays, with the clinic's id in place of `:tenant`.
    func session(_ shard: String, role: String) throws -> SQLSession {
        try SQLSession(
            psql: psql,
            Conninfo(
                Repository.contents(
                    of: "\(platform.state)/secrets/shards/\(shard).\(role).conninfo")))
    }

    func named(_ text: String) -> String { text.replacing(":tenant", with: "'\(tenant)'") }

    struct Placement: Sendable, Equatable {
        var shard: String
        var epoch: Int
        var state: String
        var other: String { shard == "s2" ? "s3" : "s2" }
    }

    func placement() throws -> Placement {
        let row = try sql(
            .control, "SELECT shard_id, epoch, state FROM placement WHERE tenant_id = :tenant")
        let parts = row.split(separator: "|").map(String.init)
        guard parts.count == 3, let epoch = Int(parts[1]) else {
            throw FixtureError("no placement: \(row)")
        }
        return Placement(shard: parts[0], epoch: epoch, state: parts[2])
    }

    /// The clinic's last move: its state, its step, its attempt and why it was undone.
    struct MoveRow: Sendable {
        var state: String
        var step: String
        var attempt: Int
        var reason: String
        var isOver: Bool { ["done", "aborted", "reverted", "failed"].contains(state) }
        var text: String { "\(state) (\(step))" + (reason.isEmpty ? "" : " for \(reason)") }
    }

    func move() throws -> MoveRow {
        let row = try sql(
            .control,
            """
            SELECT state, step, attempt, coalesce(progress->>'abortReason', progress->>'waitingFor', '')
            FROM move WHERE tenant_id = :tenant ORDER BY created_at DESC, id DESC LIMIT 1
            """)
        let parts = row.split(separator: "|", maxSplits: 3, omittingEmptySubsequences: false)
        guard parts.count == 4, let attempt = Int(parts[2]) else {
            throw FixtureError("no move: \(row)")
        }
        return MoveRow(
            state: String(parts[0]), step: String(parts[1]), attempt: attempt,
            reason: String(parts[3]))
    }

    // MARK: Clients

    func startLedger() throws -> LedgerClient {
        let number = numberOfRuns.withLock {
            $0 += 1
            return $0
        }
        return try LedgerClient(platform, run: "\(getpid())n\(number)", clinics: clinics)
    }

    // MARK: Processes

    /// Starts `hc-admin` beside the case.
    ///
    /// - Parameter fault: as in `HC_FAULT`.
    func admin(_ arguments: [String], fault: String? = nil) throws -> Subprocess {
        let child = try Subprocess(
            Repository.path(".build/debug/hc-admin"), arguments,
            environment: ["HC_CONFIG": platform.state + "/hc.json", "HC_FAULT": fault],
            errorOutput: .file(platform.state + "/agent/movers.log"))
        child.closeInput()
        return child
    }

    /// Another agent instead of the one that runs, if one does; that one is no more this ground's.
    ///
    /// It is where `deploy/local/down` looks for it, which ends it with the platform when nobody has ended it before: a
    /// ground that is left over at the end of the process is never closed.
    ///
    /// - Returns: the one before.
    @discardableResult
    func startAgent(fault: String? = nil) throws -> Subprocess? {
        let next = try Subprocess(
            "/bin/sh",
            [
                "-c", #"cd "$1" && echo $$ >pid && exec "$2" move agent"#, "sh",
                platform.state + "/agent", Repository.path(".build/debug/hc-admin"),
            ],
            environment: ["HC_CONFIG": platform.state + "/hc.json", "HC_FAULT": fault],
            errorOutput: .file(platform.state + "/agent/log"))
        let own = "\(next.processIdentifier)\n"
        try wait("the agent to be where it is looked for") {
            try Repository.contents(of: platform.state + "/agent/pid") == own ? () : nil
        }
        return agent.withLock { agent in
            defer { agent = next }
            return agent
        }
    }

    /// The agent that runs is this case's to end.
    func takeAgent() -> Subprocess? {
        agent.withLock { agent in
            defer { agent = nil }
            return agent
        }
    }

    func strike(_ process: pid_t, _ signal: Int32) throws {
        guard kill(process, signal) == 0 || hc_errno() == ESRCH else {
            throw FixtureError("process \(process) cannot be signalled")
        }
    }

    /// Waits until a child of ours has ended or has stopped itself.
    ///
    /// - Returns: whether it has stopped.
    func waitStopped(_ child: Subprocess) throws -> Bool {
        try wait("a process to stop itself") {
            let text = try Repository.contents(of: "/proc/\(child.processIdentifier)/stat")
            // After the name, which is in brackets: man 5 proc.
            switch text.split(separator: ") ", maxSplits: 1).last?.first {
            case "T": return true
            case "Z", "X": return false
            default: return nil
            }
        }
    }

    func waitEnded(_ child: Subprocess, within seconds: Int = 90) throws {
        try platform.waitForExit(child.processIdentifier, within: Int32(seconds * 1000))
        _ = try child.wait()
    }

    /// Looks until it sees what it looks for.
    func wait<Value>(
        _ what: String, within seconds: Int = 90, _ look: () throws -> Value?
    ) throws -> Value {
        let limit = ContinuousClock.now + .seconds(seconds)
        while ContinuousClock.now < limit {
            if let value = try look() { return value }
            // Between two looks: others need the processor.
            poll(nil, 0, 10)
        }
        throw FixtureError("\(what): in vain for \(seconds) s")
    }

    // MARK: Servers

    private func processes(of server: Server) throws -> [pid_t] {
        let directory = "\(place)/\(server.directory)"
        guard let stream = opendir("/proc") else { throw FixtureError("cannot open /proc") }
        defer { closedir(stream) }
        var found: [pid_t] = []
        while let entry = readdir(stream) {
            let name = withUnsafeBytes(of: &entry.pointee.d_name) { bytes in
                String(decoding: bytes.prefix { $0 != 0 }, as: UTF8.self)
            }
            guard let process = pid_t(name) else { continue }
            var target = [CChar](repeating: 0, count: 4096)
            let length = readlink("/proc/\(process)/cwd", &target, target.count)
            guard length > 0 else { continue }
            let path = target.prefix(length).map { UInt8(bitPattern: $0) }
            if String(decoding: path, as: UTF8.self) == directory { found.append(process) }
        }
        return found.sorted()
    }

    /// What makes a fault good again.
    typealias Repair = () throws -> Void

    /// A power failure of one server.
    func killServer(_ server: Server) throws -> Repair {
        for process in try processes(of: server) { try strike(process, SIGKILL) }
        return { try self.startServices() }
    }

    func startServices() throws {
        try platform.script(
            "deploy/local/services", ["start", platform.state, "--shards", "3", "--servers", "3"])
    }

    /// Nothing of a server runs for so long.
    func stopServer(_ server: Server, seconds: Int = 10) throws -> Repair {
        // The parent first, lest it make more of them.
        let stopped = try processes(of: server)
        for process in stopped { try strike(process, SIGSTOP) }
        return {
            try self.rest(seconds)
            for process in stopped.reversed() { try self.strike(process, SIGCONT) }
        }
    }

    /// How long a fault lasts: nothing is waited for.
    func rest(_ seconds: Int) throws {
        try Subprocess.run("/bin/sleep", ["\(seconds)"])
    }

    // MARK: The end

    /// Takes everything down.
    func close() throws {
        takeAgent().map { _ = kill($0.processIdentifier, SIGKILL) }
        try platform.down()
    }

    /// Keeps the logs and takes everything down.
    ///
    /// - Returns: where the logs are.
    func abandon(_ name: String) throws -> String {
        let kept =
            "/tmp/hc-faults/\(name.map { $0.isLetter || $0.isNumber ? $0 : "-" }.map(String.init).joined())"
        try Subprocess.run("/bin/rm", ["-rf", kept])
        try Subprocess.run("/bin/mkdir", ["-p", kept])
        for (file, copy) in [
            ("\(platform.state)/server/log", "server.log"),
            ("\(platform.state)/agent/log", "agent.log"),
            ("\(platform.state)/agent/movers.log", "movers.log"),
            ("\(place)/postgres-1/log", "control.log"), ("\(place)/postgres-2/log", "s2.log"),
            ("\(place)/postgres-3/log", "s3.log"), ("\(place)/redis/log", "redis.log"),
        ] { _ = try? Subprocess.run("/bin/cp", [file, "\(kept)/\(copy)"]) }
        for server in [Server.control, .shard("s2"), .shard("s3"), .redis] {
            for process in try processes(of: server) { try strike(process, SIGCONT) }
        }
        let moves = try? sql(.control, "SELECT to_jsonb(move) FROM move ORDER BY created_at")
        try Files.replace("\(kept)/moves.json", with: Array((moves ?? "no answer").utf8))
        try close()
        return kept
    }
}

extension String {
    fileprivate var trimmedEnd: String {
        var text = self[...]
        while text.last?.isNewline == true { text.removeLast() }
        return String(text)
    }
}
