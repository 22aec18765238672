import CLinux
import Glibc
import HCCore
import HCTesting
import Testing

extension EndToEnd {
    /// The clinics by https, as `up` makes it, and the production profile.
    @Suite struct TLSTests {
        private let platform: RunningPlatform

        init() throws {
            platform = try RunningPlatform.shared()
        }

        private func curl(_ arguments: [String], _ path: String = "/health") throws -> String {
            try Subprocess.run(
                "/usr/bin/curl",
                [
                    "-sS", "--max-time", "30", "--resolve",
                    "sunrise.localhost:\(platform.tlsPort):127.0.0.1",
                    "https://sunrise.localhost:\(platform.tlsPort)\(path)",
                ] + arguments)
        }

        private var authority: [String] { ["--cacert", platform.state + "/secrets/tls/local.crt"] }

        @Test("curl trusts the certificate that up has made, and both versions of TLS work")
        func https() throws {
            #expect(try curl(authority) == #"{"status":"ok"}"#)
            #expect(try curl(authority + ["--http1.1", "--tlsv1.3"]) == #"{"status":"ok"}"#)
            #expect(try curl(authority + ["--tls-max", "1.2"]) == #"{"status":"ok"}"#)
            let headers = try curl(authority + ["-D", "-", "-o", "/dev/null"])
            #expect(headers.lowercased().contains("strict-transport-security: max-age="))
        }

        @Test("a second up keeps the certificate")
        func certificateIsKept() throws {
            let file = platform.state + "/secrets/tls/local.crt"
            let before = try Repository.contents(of: file)
            try platform.script("deploy/local/up", ["--detach"])
            #expect(try Repository.contents(of: file) == before)
            var status = stat()
            #expect(stat(platform.state + "/secrets/tls/local.key", &status) == 0)
            #expect(status.st_mode & 0o777 == 0o600)
        }

        @Test("any worker resumes the sessions of the others")
        func resumption() throws {
            let session = platform.state + "/session.pem"
            let server = [
                "s_client", "-connect", "127.0.0.1:\(platform.tlsPort)", "-servername",
                "sunrise.localhost", "-tls1_2",
            ]
            func connect(_ arguments: [String]) throws -> String {
                try Subprocess.run("/usr/bin/openssl", server + arguments, input: "")
            }
            #expect(try connect(["-sess_out", session]).contains("New, TLSv1.2"))
            // The kernel spreads connections over the workers.
            for _ in 0..<8 {
                #expect(try connect(["-sess_in", session]).contains("Reused, TLSv1.2"))
            }
        }

        @Test(
            "a new certificate is served without a restart; a broken one is refused, named in the log and by config check"
        )
        func replacement() throws {
            let files = try TestCertificates()
            try files.make("extra", hosts: ["praxis.example"])
            let directory = platform.state + "/secrets/tls"
            func install(_ file: String) throws {
                try Subprocess.run("/bin/cp", ["-p", files.path(file), "\(directory)/.\(file)"])
                try Subprocess.run("/bin/mv", ["\(directory)/.\(file)", "\(directory)/\(file)"])
            }
            defer {
                _ = try? Subprocess.run(
                    "/bin/rm", ["-f", "\(directory)/extra.crt", "\(directory)/extra.key"])
            }
            func subject() throws -> String {
                let output = try Subprocess.run(
                    "/usr/bin/openssl",
                    [
                        "s_client", "-connect", "127.0.0.1:\(platform.tlsPort)", "-servername",
                        "praxis.example",
                    ],
                    input: "")
                return output.contains("CN = extra") ? "extra" : "other"
            }
            let (supervisor, workers) = try platform.serverProcesses()
            try install("extra.key")
            try install("extra.crt")
            try until { try subject() == "extra" }
            try files.make("other")
            try files.move("other.key", to: "extra.key")
            try install("extra.key")
            try until { try platform.log().contains("is not the key of the certificate") }
            #expect(try subject() == "extra")
            let (status, output) = try platform.admin(["config", "check"])
            #expect(status == 3 && output.contains("extra.key"))
            let now = try platform.serverProcesses()
            #expect(now.supervisor == supervisor && Set(now.workers) == Set(workers))
        }

        /// Asks again and again; each question takes some milliseconds.
        private func until(_ condition: () throws -> Bool) throws {
            let deadline = Clocks.seconds() + 60
            while Clocks.seconds() < deadline { if try condition() { return } }
            throw FixtureError("it did not come to pass")
        }

        // MARK: The production profile

        /// A second server on the same databases, with its own ports and a changed configuration.
        private func serve(
            _ changes: [(String, String)], ports: Int = 3
        ) throws -> (server: Subprocess, configuration: String) {
            var text = try Repository.contents(of: platform.state + "/hc.json")
            for (old, new) in changes {
                guard text.contains(old) else { throw FixtureError("no \(old) in hc.json") }
                text = text.replacing(old, with: new)
            }
            let file = platform.state + "/changed.json"
            let descriptor = hc_open(file, O_WRONLY | O_CREAT | O_TRUNC, 0o600)
            guard descriptor >= 0 else { throw FixtureError("cannot write \(file)") }
            defer { close(descriptor) }
            let bytes = Array(text.utf8)
            guard write(descriptor, bytes, bytes.count) == bytes.count else {
                throw FixtureError("cannot write \(file)")
            }
            let server = try Subprocess(
                Repository.path(".build/debug/hc-server"), [],
                environment: ["HC_CONFIG": file, "HC_WORKERS": "1"])
            return (server, file)
        }

        private func changedPorts() throws -> (
            plain: Int, tls: Int, operations: Int, changes: [(String, String)]
        ) {
            let ports = try (0..<3).map { _ in try RunningPlatform.freePort() }
            return (
                ports[0], ports[1], ports[2],
                [
                    ("\"port\": \(platform.port)", "\"port\": \(ports[0])"),
                    ("\"tlsPort\": \(platform.tlsPort)", "\"tlsPort\": \(ports[1])"),
                    ("\"opsPort\": \(platform.operatorPort)", "\"opsPort\": \(ports[2])"),
                ]
            )
        }

        @Test("in the production profile plain HTTP is told to come by https, and nothing else")
        func production() throws {
            let (plain, tls, operations, changes) = try changedPorts()
            let (server, _) = try serve(
                changes + [(#""profile": "local""#, #""profile": "production""#)])
            defer { kill(server.processIdentifier, SIGTERM) }
            try until {
                try Subprocess.run(
                    "/bin/sh",
                    [
                        "-c",
                        "curl -s -o /dev/null -w '%{http_code}' http://127.0.0.1:\(operations)/health/ready || true",
                    ]
                ) == "200"
            }
            func ask(_ arguments: [String]) throws -> String {
                try Subprocess.run(
                    "/usr/bin/curl",
                    ["-sS", "-o", "/dev/null", "-w", "%{http_code} %{redirect_url}"] + arguments)
            }
            let url = "http://127.0.0.1:\(plain)"
            #expect(
                try ask([
                    url + "/v1/patients?familyName=a%20b", "-H", "Host: sunrise.localhost:\(plain)",
                ])
                    == "308 https://sunrise.localhost:\(tls)/v1/patients?familyName=a%20b")
            #expect(
                try ask([url + "/v1/auth/login", "-H", "Host: SUNRISE.localhost", "-d", "{}"])
                    == "308 https://sunrise.localhost:\(tls)/v1/auth/login")
            #expect(try ask([url + "/", "-H", "Host: evil.example"]).hasPrefix("404"))
            #expect(try ask([url + "/", "-H", "Host: evil.localhost.example"]).hasPrefix("404"))
            #expect(
                try ask([url + "//evil.example/", "-H", "Host: sunrise.localhost"]).contains(
                    " https://sunrise.localhost:\(tls)//evil.example/"))
            let secure = try ask([
                "-k", "--resolve", "sunrise.localhost:\(tls):127.0.0.1",
                "https://sunrise.localhost:\(tls)/health",
            ])
            #expect(secure.hasPrefix("200"))
        }

        @Test("the production profile does not start without a certificate, and says what to do")
        func noCertificate() throws {
            let (_, _, _, changes) = try changedPorts()
            let (server, _) = try serve(
                changes + [
                    (#""profile": "local""#, #""profile": "production""#),
                    ("/secrets/tls\"", "/secrets/none\""),
                ])
            server.closeInput()
            let output = try server.readToEnd()
            #expect(try server.wait() == 1)
            #expect(output.contains("/secrets/none") && output.contains("<name>.crt"), "\(output)")
        }

        @Test("with an authority for operators, their door opens to its certificates only")
        func operators() throws {
            let files = try TestCertificates()
            try files.make("ca")
            try files.make("olga", authority: "ca")
            try files.make("stranger")
            let (_, _, operations, changes) = try changedPorts()
            let (server, _) = try serve(
                changes + [
                    (
                        "\"tls\": {",
                        "\"ops\": { \"clientCA\": \"\(files.path("ca.crt"))\" },\n\"tls\": {"
                    )
                ])
            defer { kill(server.processIdentifier, SIGTERM) }
            func get(_ path: String, _ name: String?, _ options: String = "") throws -> String {
                let shown =
                    name.map {
                        ["--cert", files.path("\($0).crt"), "--key", files.path("\($0).key")]
                    } ?? []
                let words = (shown + ["https://127.0.0.1:\(operations)\(path)"]).joined(
                    separator: " ")
                return try Subprocess.run(
                    "/bin/sh", ["-c", "curl -sk \(options) \(words) || true"])
            }
            func ask(_ name: String?) throws -> String {
                try get("/health/ready", name, "-o /dev/null -w '%{http_code}'")
            }
            try until { try ask("olga") == "200" }
            #expect(try ask(nil) == "000")
            #expect(try ask("stranger") == "000")
            let page = try get("/metrics", "olga")
            for reason in ["missing", "refused"] {
                let line =
                    "hc_tls_handshake_failures_total{listener=\"operators\","
                    + "reason=\"client-certificate-\(reason)\"} 1\n"
                #expect(page.contains(line), "\(page)")
            }
        }
    }
}

extension Clocks {
    fileprivate static func seconds() -> Int {
        var time = timespec()
        clock_gettime(CLOCK_MONOTONIC, &time)
        return time.tv_sec
    }
}
