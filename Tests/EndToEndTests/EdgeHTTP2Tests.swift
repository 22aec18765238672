import HCCore
import HCTesting
import Testing

extension EndToEnd {
    /// The clinics over HTTP/2, with the clients that people have.
    @Suite struct EdgeHTTP2Tests {
        private let platform: RunningPlatform

        init() throws {
            platform = try RunningPlatform.shared()
        }

        private func curl(
            isSecure: Bool, _ path: String, _ arguments: [String] = [], input: String = ""
        ) throws -> String {
            let port = isSecure ? platform.tlsPort : platform.port
            let scheme = isSecure ? "https" : "http"
            let how = isSecure ? ["--http2", "-k"] : ["--http2-prior-knowledge"]
            return try Subprocess.run(
                "/usr/bin/curl",
                [
                    "-sS", "--max-time", "30", "-w", "\n%{http_version} %{http_code}", "--resolve",
                    "sunrise.localhost:\(port):127.0.0.1",
                    "\(scheme)://sunrise.localhost:\(port)\(path)",
                ] + how + arguments, input: input)
        }

        @Test("curl speaks it by ALPN and by prior knowledge", arguments: [true, false])
        func curlWorks(_ isSecure: Bool) throws {
            #expect(try curl(isSecure: isSecure, "/health") == "{\"status\":\"ok\"}\n2 200")
            #expect(try curl(isSecure: isSecure, "/v1/nothing").hasSuffix("\n2 404"))
            let token = try platform.login("sunrise")
            let patients = try curl(
                isSecure: isSecure, "/v1/patients?limit=1",
                ["-H", "Authorization: Bearer \(token)"])
            #expect(patients.hasSuffix("\n2 200"))
            #expect(patients.contains("\"items\":["))
            let (email, password) = try platform.credentials(of: "sunrise")
            let login = try curl(
                isSecure: isSecure, "/v1/auth/login",
                ["-H", "Content-Type: application/json", "--data-binary", "@-"],
                input: #"{"email":"\#(email)","password":"\#(password)"}"#)
            #expect(login.contains("accessToken") && login.hasSuffix("\n2 200"))
        }

        @Test("an answer that comes before a large content is read is kept by curl")
        func earlyAnswer() throws {
            let answer = try curl(
                isSecure: true, "/v1/auth/login",
                ["-H", "Content-Type: application/json", "--data-binary", "@-"],
                input: String(repeating: "x", count: 400_000))
            #expect(answer.hasSuffix("\n2 413"), "\(answer.suffix(200))")
        }

        @Test("nghttp, which sends priorities, gets its answer")
        func nghttp() throws {
            let output = try Subprocess.run(
                "/usr/bin/nghttp", ["-nv", "https://127.0.0.1:\(platform.tlsPort)/health"])
            #expect(output.contains(":status: 200"))
        }

        @Test("h2load with 32 streams loses nothing", arguments: [true, false])
        func h2load(_ isSecure: Bool) throws {
            let address =
                isSecure
                ? "https://127.0.0.1:\(platform.tlsPort)/health"
                : "http://127.0.0.1:\(platform.port)/health"
            let output = try Subprocess.run(
                "/usr/bin/h2load", ["-n", "2000", "-c", "4", "-m", "32", address])
            #expect(
                output.contains(
                    "2000 succeeded, 0 failed, 0 errored, 0 timeout"), "\(output.suffix(600))")
        }
    }
}
