import HCCore
import HCTesting
import Testing

extension EndToEnd {
    /// `deploy/local/bench churn` in small: what a connection leaves behind adds up.
    @Suite struct ChurnTests {
        private static let connections = 4000

        @Test("connections that come and go leave no memory behind")
        func memory() throws {
            let platform = try RunningPlatform(workers: 1)
            defer {
                // Nothing of an installation is left when it is taken down.
                #expect(throws: Never.self) { try platform.down() }
            }
            let worker = try #require(try platform.serverProcesses().workers.first)
            // What is made once, and kept, is made in the first round.
            try churn(platform)
            let before = try privateBytes(of: worker)
            try churn(platform)
            let after = try privateBytes(of: worker)
            #expect(
                after - before < Self.connections * 256,
                "\((after - before) / Self.connections) bytes were left by each connection")
        }

        private func churn(_ platform: RunningPlatform) throws {
            let script = Repository.path("Tests/EndToEndTests/Clients/churn.py")
            let output = try Subprocess.run(
                "/usr/bin/python3",
                [
                    script, String(platform.port), String(platform.tlsPort),
                    String(Self.connections),
                ])
            #expect(output == "done\n")
        }

        /// Anonymous memory that is resident (man 5 proc, smaps_rollup).
        private func privateBytes(of process: Int32) throws -> Int {
            let text = try Repository.contents(of: "/proc/\(process)/smaps_rollup")
            let lines = text.split(separator: "\n")
            let line = try #require(lines.first { $0.hasPrefix("Anonymous:") })
            let words = line.split(separator: " ")
            let kibibytes = try #require(words.dropFirst().first.flatMap { Int($0) })
            return kibibytes << 10
        }
    }
}
