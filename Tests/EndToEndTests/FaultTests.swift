import CLinux
import HCCore
import HCTesting
import Testing

extension EndToEnd {
    /// Parts die under a client that keeps a ledger of what was acknowledged.
    @Suite struct FaultTests {
        private let platform: RunningPlatform

        init() throws {
            platform = try RunningPlatform.shared()
        }

        /// Registers a patient whatever happens on the way: the same request again, under the same key.
        /// - Returns: the id, once it is acknowledged.
        private func register(_ number: Int, _ family: String, token: String) throws -> String {
            let output = try Subprocess.run(
                "/usr/bin/curl",
                [
                    "-sS", "--fail", "--retry", "30", "--retry-delay", "1", "--retry-all-errors",
                    "--max-time",
                    "60", "--resolve", "sunrise.localhost:\(platform.port):127.0.0.1", "-H",
                    "Authorization: Bearer \(token)", "-H", "Content-Type: application/json", "-H",
                    "Idempotency-Key: \(family)-\(number)", "-d",
                    """
                    {"givenName":"Ledger","familyName":"\(family)","birthDate":"1990-01-01","sex":"other",\
                    "mrn":"\(family)-\(number)"}
                    """, "http://sunrise.localhost:\(platform.port)/v1/patients",
                ])
            // curl prints the answers of failed attempts too: the last document is the one that counts.
            let last = output.split(separator: "\n").last.map(String.init) ?? output
            return try #require(
                try JSONReader.parse(Array(last.utf8))["id"]?.asString, "\(output)")
        }

        /// Runs the faults one after the other while patients are registered, and compares with the ledger.
        private func ledger(_ family: String, faults: [() throws -> Void]) throws {
            let token = try platform.login("sunrise")
            var acknowledged: [String] = []
            for fault in faults {
                for _ in 0..<5 {
                    acknowledged.append(
                        try register(acknowledged.count, family, token: token))
                }
                try fault()
                for _ in 0..<5 {
                    acknowledged.append(
                        try register(acknowledged.count, family, token: token))
                }
            }
            let page = try platform.curl(
                "GET", "sunrise", "/v1/patients?familyName=\(family)&limit=200", token: token)
            let found = try #require(
                try page.json["items"]?.asArray?.compactMap { $0["id"]?.asString })
            #expect(Set(acknowledged).count == acknowledged.count, "one request made two patients")
            #expect(found.sorted() == acknowledged.sorted())
        }

        @Test(
            "no acknowledged write is lost when workers, Redis and PostgreSQL are killed, and none is doubled"
        )
        func kills() throws {
            try ledger(
                "Killed",
                faults: [
                    {
                        for worker in try platform.serverProcesses().workers {
                            kill(worker, SIGKILL)
                        }
                    },
                    { try platform.killService("redis/pid") },
                    { try platform.startServices() },
                    {
                        try platform.killService("postgres-1/postmaster.pid")
                        try platform.startServices()
                    },
                ])
            #expect(try platform.curl("GET", "sunrise", "/health").status == 200)
        }

        @Test("a stopped worker is found stuck and replaced")
        func stuckWorker() throws {
            let before = try platform.serverProcesses().workers
            let victim = try #require(before.first)
            kill(victim, SIGSTOP)
            // The supervisor misses its heartbeats and kills it; a stopped process can only be killed.
            try platform.waitForExit(victim)
            try platform.waitReady { status in
                status["workersReady"]?.asInteger == Int64(before.count)
                    && status["workers"]?.asArray?.contains {
                        $0["pid"]?.asInteger == Int64(victim)
                    }
                        == false
            }
        }

        @Test(
            "a create that is killed anywhere leaves nothing half-made, and is simply given again",
            arguments: [
                "provision.after-reserve", "provision.after-shard", "provision.after-populate",
                "provision.after-open",
            ])
        func interruptedCreate(point: String) throws {
            let slug = "killed-" + point.split(separator: "-").dropFirst().joined(separator: "-")
            let arguments = ["tenant", "create", slug, "--name", "Killed", "--json"]
            let (killed, _) = try platform.admin(arguments, ["HC_FAULT": "\(point)=kill"])
            #expect(killed == 128 + SIGKILL)
            let (again, output) = try platform.admin(arguments)
            if point == "provision.after-open" {
                // The commit point was passed: the clinic is open, and a second create says so.
                #expect(again == 5)
            } else {
                #expect(again == 0, "\(output)")
            }
            let (shown, document) = try platform.admin(["tenant", "show", slug, "--json"])
            #expect(shown == 0)
            #expect(try JSONReader.parse(Array(document.utf8))["state"]?.asString == "active")
            #expect(try platform.admin(["doctor"]).status == 0)
        }

        @Test(
            "a create that fails takes everything back",
            arguments: [
                "provision.after-reserve", "provision.after-shard", "provision.after-populate",
            ])
        func failedCreate(point: String) throws {
            let slug = "failed-" + point.split(separator: "-").dropFirst().joined(separator: "-")
            let (failed, _) = try platform.admin(
                ["tenant", "create", slug, "--name", "Failed", "--json"],
                ["HC_FAULT": "\(point)=fail"])
            #expect(failed == 1)
            #expect(try platform.admin(["tenant", "show", slug]).status == 4)
            #expect(try platform.admin(["doctor"]).status == 0)
        }
    }
}
