import CLinux
import Glibc
package import HCCore
import HCIO
import Synchronization

/// A whole HC as a new user gets it: `deploy/local/up --detach` in a directory of its own, two demo clinics, real
/// programs, and curl as the client. All calls block.
package final class RunningPlatform: Sendable {
    /// The state's own, in the directory for temporary files.
    package let directory: String
    package let state: String
    package let port: Int
    package let tlsPort: Int
    package let operatorPort: Int

    /// What `up` is given, besides places and ports.
    private let variables: [String: String]

    private static let sharedPlatforms = Mutex<[String: RunningPlatform]>([:])

    /// One platform for all end-to-end tests of a process that leave it as they found it, and others by name, for
    /// tests that change theirs.
    package static func shared(
        _ name: String = "common", _ variables: [String: String] = [:]
    ) throws -> RunningPlatform {
        try sharedPlatforms.withLock { platforms in
            if let platform = platforms[name] { return platform }
            let started = try RunningPlatform(variables: variables)
            if platforms.isEmpty { atexit { RunningPlatform.stopShared() } }
            platforms[name] = started
            return started
        }
    }

    private static func stopShared() {
        // At exit nobody can be told; what is left over is in the temporary directory.
        sharedPlatforms.withLock { platforms in
            for platform in platforms.values { _ = try? platform.down() }
            platforms = [:]
        }
    }

    /// - Parameter variables: for the server and what starts it, such as `HC_FAULT`.
    package init(workers: Int = 2, variables: [String: String] = [:]) throws {
        var template = Array("/tmp/hc-e2e-XXXXXX".utf8CString)
        guard mkdtemp(&template) != nil else { throw FixtureError("mkdtemp failed") }
        let directory = String(
            decoding: template.dropLast().map { UInt8(bitPattern: $0) }, as: UTF8.self)
        guard chmod(directory, 0o711) == 0 else { throw FixtureError("chmod failed") }
        self.directory = directory
        state = directory + "/state"
        port = try RunningPlatform.freePort()
        tlsPort = try RunningPlatform.freePort()
        operatorPort = try RunningPlatform.freePort()
        self.variables = ["HC_WORKERS": String(workers)].merging(variables) { $1 }
        try up()
    }

    /// Starts what does not run of it.
    package func up() throws {
        let output = try script("deploy/local/up", ["--detach"], variables)
        guard output.split(separator: "\n").last == "ready http://sunrise.localhost:\(port)" else {
            throw FixtureError("up did not end ready: \(output)")
        }
    }

    /// Stops everything and removes its data.
    package func down() throws {
        try script("deploy/local/down", ["--wipe"])
        guard rmdir(directory) == 0 else {
            throw FixtureError("\(directory) is not empty when everything is stopped")
        }
    }

    @discardableResult
    package func script(
        _ path: String, _ arguments: [String] = [], _ variables: [String: String] = [:]
    ) throws -> String {
        var environment: [String: String?] = [
            "HC_STATE": state, "HC_PORT": String(port), "HC_TLS_PORT": String(tlsPort),
            "HC_OPS_PORT": String(operatorPort),
            "HC_BUILD": "debug", "HC_CONFIG": nil,
        ]
        for (name, value) in variables { environment[name] = value }
        return try Subprocess.run(Repository.path(path), arguments, environment: environment)
    }

    /// Runs `hc-admin` and returns its exit status and what it printed.
    package func admin(
        _ arguments: [String], _ variables: [String: String] = [:]
    ) throws -> (status: Int32, output: String) {
        let child = try startAdmin(arguments, variables)
        let output = try child.readToEnd()
        return (try child.wait(), output)
    }

    /// Starts `hc-admin` and does not wait for it. Who drops it kills it.
    package func startAdmin(
        _ arguments: [String], _ variables: [String: String] = [:]
    ) throws -> Subprocess {
        var environment: [String: String?] = ["HC_CONFIG": state + "/hc.json"]
        for (name, value) in variables { environment[name] = value }
        let child = try Subprocess(
            Repository.path(".build/debug/hc-admin"), arguments, environment: environment,
            errorOutput: .discarded)
        child.closeInput()
        return child
    }

    /// The process ids of the supervisor and its workers.
    package func serverProcesses() throws -> (supervisor: Int32, workers: [Int32]) {
        let text = try Repository.line(of: state + "/server/pid")
        guard let supervisor = Int32(text) else { throw FixtureError("no process id: \(text)") }
        let children = try Repository.contents(
            of: "/proc/\(supervisor)/task/\(supervisor)/children")
        return (supervisor, children.split(separator: " ").compactMap { Int32($0) })
    }

    package func log() throws -> String {
        try Repository.contents(of: state + "/server/log")
    }

    package var logFile: String { state + "/server/log" }

    /// Stops the server and starts another program in its place, as `up` would.
    ///
    /// - Returns: the supervisor. Who drops it kills it.
    package func startServer(
        _ program: String, _ variables: [String: String] = [:]
    ) throws -> Subprocess {
        if let (supervisor, _) = try? serverProcesses(), kill(supervisor, SIGTERM) == 0 {
            try waitForExit(supervisor)
        }
        let log = try LogFollower(logFile)
        // The file alone says where it listens, whatever the variables of this process are.
        var environment: [String: String?] = ["HC_CONFIG": state + "/hc.json"]
        for name in ["STATE", "PORT", "TLS_PORT", "OPS_PORT", "WORKERS"] {
            environment.updateValue(nil, forKey: "HC_" + name)
        }
        for (name, value) in variables { environment[name] = value }
        let child = try Subprocess(
            "/bin/sh",
            [
                "-c", #"cd "$1" && echo $$ >pid && exec "$2" </dev/null >>log 2>&1"#, "sh",
                state + "/server", program,
            ], environment: environment)
        try log.wait(for: "worker ready", "\"slot\":0")
        try waitReady { $0["ready"]?.asBool == true }
        return child
    }

    /// Asks the running server for its metrics.
    package func metrics() throws -> String {
        try Subprocess.run("/usr/bin/curl", ["-sSf", "http://127.0.0.1:\(operatorPort)/metrics"])
    }

    /// Changes a section of the configuration file; null removes it.
    package func configure(_ section: String, _ value: JSONValue) throws {
        let file = state + "/hc.json"
        var object =
            try JSONReader.parse(Array(Repository.contents(of: file).utf8)).asObject ?? JSONObject()
        object.set(value, for: section)
        try Files.replace(file, with: Array(JSONValue.object(object).text.utf8))
    }

    /// Replaces the workers (SIGHUP), so that they read the configuration; returns when all of the new ones are ready.
    package func reload() throws {
        let (supervisor, workers) = try serverProcesses()
        guard kill(supervisor, SIGHUP) == 0 else { throw FixtureError("cannot signal the server") }
        for worker in workers { try waitForExit(worker) }
        try waitReady { $0["workersReady"]?.asInteger == Int64(workers.count) }
    }

    /// Which program's file a process runs, also when the file has no name any more.
    package static func programInode(of process: Int32) throws -> UInt64 {
        try inode(of: "/proc/\(process)/exe")
    }

    package static func inode(of path: String) throws -> UInt64 {
        var status = stat()
        guard stat(path, &status) == 0 else { throw FixtureError("cannot look at \(path)") }
        return UInt64(status.st_ino)
    }

    /// Kills a server of the installation by the file that holds its process id.
    package func killService(_ file: String) throws {
        let place = try Repository.line(of: state + "/services/place")
        let text = try Repository.line(of: "\(place)/\(file)")
        guard let identifier = Int32(text) else { throw FixtureError("no process id: \(text)") }
        guard kill(identifier, SIGKILL) == 0 else {
            throw FixtureError("cannot kill \(identifier)")
        }
    }

    /// Starts whatever of PostgreSQL and Redis does not run.
    package func startServices() throws {
        try script("deploy/local/services", ["start", state])
    }

    /// Waits until a process of the installation is gone: by the kernel's word (man 2 pidfd_open), not by asking.
    package func waitForExit(_ process: Int32, within milliseconds: Int32 = 90_000) throws {
        let descriptor = hc_pidfd_open(process)
        // It is gone already, and reaped.
        guard descriptor >= 0 else { return }
        defer { close(descriptor) }
        var entry = pollfd(fd: descriptor, events: Int16(POLLIN), revents: 0)
        guard poll(&entry, 1, milliseconds) == 1 else {
            throw FixtureError(
                "process \(process) does not end\n\(HungProcess(process).description)")
        }
    }

    /// Asks `/health/ready` until the supervisor's status is as wanted, at most `attempts` times.
    package func waitReady(attempts: Int = 2000, _ isWanted: (JSONValue) -> Bool) throws {
        var last = ""
        for _ in 0..<attempts {
            last = try Subprocess.run(
                "/usr/bin/curl", ["-sS", "http://127.0.0.1:\(operatorPort)/health/ready"])
            if isWanted(try JSONReader.parse(Array(last.utf8))) { return }
        }
        throw FixtureError("the server's status is still \(last)")
    }

    /// The port that was given out last. Below those that the kernel gives to clients (ip_local_port_range), of which
    /// a connection could take one before its server binds it, or while the server is restarted.
    private static let lastPort = Mutex(ports.lowerBound + Int(getpid()) * 16 % ports.count)
    private static let ports = 10_240..<32_768

    /// A port that nobody listens on, and that no other call gets for a long time.
    package static func freePort() throws -> Int {
        try lastPort.withLock { last in
            for _ in ports {
                last = last + 1 < ports.upperBound ? last + 1 : ports.lowerBound
                if try isFree(last) { return last }
            }
            throw FixtureError("no port is free")
        }
    }

    private static func isFree(_ port: Int) throws -> Bool {
        let descriptor = socket(AF_INET, Int32(SOCK_STREAM.rawValue), 0)
        guard descriptor >= 0 else { throw FixtureError("socket failed") }
        defer { close(descriptor) }
        var storage = sockaddr_storage()
        storage.ss_family = sa_family_t(AF_INET)
        withUnsafeMutableBytes(of: &storage) {
            $0.storeBytes(of: UInt16(port).bigEndian, toByteOffset: 2, as: UInt16.self)
            $0.storeBytes(of: UInt32(0x7F00_0001).bigEndian, toByteOffset: 4, as: UInt32.self)
        }
        return hc_bind(descriptor, &storage, socklen_t(MemoryLayout<sockaddr_in>.size)) == 0
    }
}

/// What curl got.
package struct CurlAnswer: Sendable {
    package let status: Int
    package let headers: [(name: String, value: String)]
    package let body: String

    package var json: JSONValue {
        get throws { try JSONReader.parse(Array(body.utf8)) }
    }

    package func header(_ name: String) -> String? {
        headers.first { $0.name.lowercased() == name.lowercased() }?.value
    }
}

extension RunningPlatform {
    /// One request with curl, to a clinic by its slug.
    ///
    /// - Parameter options: of curl, such as `--compressed`.
    package func curl(
        _ method: String, _ slug: String, _ path: String, token: String? = nil, json: String? = nil,
        headers: [String] = [], options: [String] = []
    ) throws -> CurlAnswer {
        var arguments = [
            "-sS", "-i", "-X", method, "--max-time", "30", "--resolve",
            "\(slug).localhost:\(port):127.0.0.1", "http://\(slug).localhost:\(port)\(path)",
        ]
        if let token { arguments += ["-H", "Authorization: Bearer \(token)"] }
        for header in headers { arguments += ["-H", header] }
        arguments += options
        if json != nil {
            arguments += ["-H", "Content-Type: application/json", "--data-binary", "@-"]
        }
        let output = try Subprocess.run("/usr/bin/curl", arguments, input: json ?? "")
        return try RunningPlatform.parse(output)
    }

    /// The owner's password of a demo clinic.
    package func credentials(of slug: String) throws -> (email: String, password: String) {
        let document = try JSONReader.parse(
            Array(Repository.contents(of: state + "/demo-credentials.json").utf8))
        guard let email = document[slug]?["email"]?.asString,
            let password = document[slug]?["password"]?.asString
        else { throw FixtureError("no credentials of \(slug)") }
        return (email, password)
    }

    /// Logs in as the owner of a demo clinic and returns the access token.
    package func login(_ slug: String) throws -> String {
        let (email, password) = try credentials(of: slug)
        let answer = try curl(
            "POST", slug, "/v1/auth/login",
            json: #"{"email":"\#(email)","password":"\#(password)"}"#)
        guard answer.status == 200, let token = try answer.json["accessToken"]?.asString else {
            throw FixtureError("login failed: \(answer.status) \(answer.body)")
        }
        return token
    }

    private static func parse(_ output: String) throws -> CurlAnswer {
        // Swift counts CR LF as one character; an interim answer (100) comes first and is skipped.
        var rest = Substring(output)
        while let end = rest.firstRange(of: "\r\n\r\n") {
            let head = rest[..<end.lowerBound].split(separator: "\r\n")
            rest = rest[end.upperBound...]
            guard let line = head.first, let status = Int(line.split(separator: " ")[1]) else {
                break
            }
            if status / 100 == 1 { continue }
            let headers = head.dropFirst().map { field in
                let name = field.prefix { $0 != ":" }
                return (
                    name: String(name),
                    value: String(field.dropFirst(name.count + 1).drop { $0 == " " })
                )
            }
            return CurlAnswer(status: status, headers: headers, body: String(rest))
        }
        throw FixtureError("no HTTP answer: \(output)")
    }
}
