import CLinux
import Glibc
package import HCCore
import Synchronization

/// A whole HC as a new user gets it: `deploy/local/up --detach` in a directory of its own, two demo clinics, real
/// programs, and curl as the client. All calls block.
package final class RunningPlatform: Sendable {
    package let state: String
    package let port: Int
    package let tlsPort: Int
    package let operatorPort: Int

    private static let sharedPlatform = Mutex<RunningPlatform?>(nil)

    /// One platform for all end-to-end tests of a process that leave it as they found it.
    package static func shared() throws -> RunningPlatform {
        try sharedPlatform.withLock { platform in
            if let platform { return platform }
            let started = try RunningPlatform()
            platform = started
            atexit { RunningPlatform.stopShared() }
            return started
        }
    }

    private static func stopShared() {
        // At exit nobody can be told; what is left over is in the temporary directory.
        sharedPlatform.withLock { platform in
            _ = try? platform?.down()
            platform = nil
        }
    }

    /// - Parameter variables: for the server and what starts it, such as `HC_FAULT`.
    package init(workers: Int = 2, variables: [String: String] = [:]) throws {
        var template = Array("/tmp/hc-e2e-XXXXXX".utf8CString)
        guard mkdtemp(&template) != nil else { throw FixtureError("mkdtemp failed") }
        let directory = String(
            decoding: template.dropLast().map { UInt8(bitPattern: $0) }, as: UTF8.self)
        guard chmod(directory, 0o711) == 0 else { throw FixtureError("chmod failed") }
        state = directory + "/state"
        port = try RunningPlatform.freePort()
        tlsPort = try RunningPlatform.freePort()
        operatorPort = try RunningPlatform.freePort()
        let output = try script(
            "deploy/local/up", ["--detach"],
            variables.merging(["HC_WORKERS": String(workers)]) { own, _ in own })
        guard output.split(separator: "\n").last == "ready http://sunrise.localhost:\(port)" else {
            throw FixtureError("up did not end ready: \(output)")
        }
    }

    /// Stops everything and removes its data.
    package func down() throws {
        try script("deploy/local/down", ["--wipe"])
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
        var environment: [String: String?] = ["HC_CONFIG": state + "/hc.json"]
        for (name, value) in variables { environment[name] = value }
        let child = try Subprocess(
            Repository.path(".build/debug/hc-admin"), arguments, environment: environment,
            errorOutput: .discarded)
        child.closeInput()
        let output = try child.readToEnd()
        return (try child.wait(), output)
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
            throw FixtureError("process \(process) does not end")
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

    /// Requests one after the other over one keep-alive connection, in the background; prints their status codes.
    package func load(path: String, token: String, requests: Int) throws -> Subprocess {
        let child = try Subprocess(
            "/usr/bin/curl",
            [
                "-sS", "--resolve", "sunrise.localhost:\(port):127.0.0.1", "-H",
                "Authorization: Bearer \(token)", "-o", "/dev/null", "-w", "%{http_code}\\n",
                "http://sunrise.localhost:\(port)\(path)?n=[1-\(requests)]",
            ], errorOutput: .merged)
        child.closeInput()
        return child
    }

    private static func freePort() throws -> Int {
        let descriptor = socket(AF_INET, Int32(SOCK_STREAM.rawValue), 0)
        guard descriptor >= 0 else { throw FixtureError("socket failed") }
        defer { close(descriptor) }
        var storage = sockaddr_storage()
        storage.ss_family = sa_family_t(AF_INET)
        withUnsafeMutableBytes(of: &storage) {
            $0.storeBytes(of: UInt32(0x7F00_0001).bigEndian, toByteOffset: 4, as: UInt32.self)
        }
        guard hc_bind(descriptor, &storage, socklen_t(MemoryLayout<sockaddr_in>.size)) == 0,
            hc_getsockname(descriptor, &storage) == 0
        else { throw FixtureError("bind failed") }
        return withUnsafeBytes(of: &storage) {
            Int(UInt16(bigEndian: $0.loadUnaligned(fromByteOffset: 2, as: UInt16.self)))
        }
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
