import CLinux
import HCCore
import HCIO
import HCTesting
import Testing

extension EndToEnd {
    /// Workers, programs and supervisors are replaced while a client sends 500 requests a second and keeps a ledger.
    @Suite struct RollTests {
        private let platform: RunningPlatform
        private let token: String

        init() throws {
            // Its own: these tests change the program, the configuration and the supervisor.
            platform = try RunningPlatform.shared("roll")
            try platform.up()
            try RollTests.keepEverything(platform)
            token = try platform.login("sunrise")
        }

        private static let program = Repository.path(".build/debug/hc-server")

        /// However slow the machine is, no request is refused for it: each is to be answered by a handler.
        private static let patience: JSONValue = "10s"

        private static func keepEverything(_ platform: RunningPlatform) throws {
            let file = try JSONReader.parse(
                Array(Repository.contents(of: platform.state + "/hc.json").utf8))
            guard file["http"]?["queueTarget"] != patience else { return }
            try platform.configure("http", ["queueTarget": patience])
            try roll(platform)
        }

        private static func roll(_ platform: RunningPlatform) throws {
            let log = try LogFollower(platform.logFile)
            kill(try platform.serverProcesses().supervisor, SIGHUP)
            try log.wait(for: "roll finished")
        }

        // MARK: The ledger

        /// Runs `faults` under load and holds the ledger against what the clinic has.
        ///
        /// - Returns: the counts before the faults and at the end.
        @discardableResult
        private func underLoad(
            _ family: String, isServedAfterwards: Bool = true, replacesAll: Bool = true,
            _ faults: (LoadClient) throws -> Void
        ) throws -> (before: LoadClient.Counts, after: LoadClient.Counts) {
            let load = try LoadClient(
                platform, token: token, family: family,
                calendar: isServedAfterwards ? makeCalendar(family) : nil)
            // Until the server is warm and every connection is open.
            let before = try load.advance(by: 500)
            try faults(load)
            if isServedAfterwards { try load.advance(by: 500) }
            let after = try load.stop()
            #expect(after.lost == 0, "\(after.text)")
            #expect(after.answered + after.untouched == after.sent, "\(after.text)")
            #expect(after.doubled == 0, "\(after.text)")
            #expect(after.statuses == ["200", "201"], "\(after.text)")
            // Those that were working when the fault came were told to come again: it really met the load.
            for name in replacesAll ? ["http1", "http2"] : ["http1"] {
                #expect(after.announced(name) > before.announced(name), "\(after.text)")
            }
            if isServedAfterwards {
                #expect(after.refused == 0 && after.untouched == 0, "\(after.text)")
                try check(after.created, family)
                #expect(after.booked > before.booked)
                for socket in after.sockets {
                    #expect(socket.missed == 0 && socket.resyncs == 0, "\(after.text)")
                    #expect(!replacesAll || socket.replaced > 0, "\(after.text)")
                }
            }
            return (before, after)
        }

        /// A practitioner whom nobody has booked yet.
        private func makeCalendar(_ name: String) throws -> LoadClient.Calendar {
            func make(_ path: String, _ json: String) throws -> String {
                let made = try platform.curl("POST", "sunrise", path, token: token, json: json)
                return try #require(try made.json["id"]?.asString, "\(made.body)")
            }
            return LoadClient.Calendar(
                practitioner: try make("/v1/practitioners", #"{"name":"Dr. \#(name)"}"#),
                patient: try make(
                    "/v1/patients",
                    #"{"givenName":"Booked","familyName":"For\#(name)","birthDate":"1980-02-29","sex":"other"}"#
                ))
        }

        /// Every acknowledged registration is there, once, and there is no other.
        private func check(_ acknowledged: [String], _ family: String) throws {
            #expect(!acknowledged.isEmpty)
            #expect(Set(acknowledged).count == acknowledged.count)
            var found: [String] = []
            var cursor = ""
            repeat {
                let page = try platform.curl(
                    "GET", "sunrise", "/v1/patients?familyName=\(family)&limit=100\(cursor)",
                    token: token
                ).json
                found += page["items"]?.asArray?.compactMap { $0["id"]?.asString } ?? []
                cursor = page["nextCursor"]?.asString.map { "&cursor=\($0)" } ?? ""
            } while !cursor.isEmpty
            #expect(found.sorted() == acknowledged.sorted())
        }

        /// No worker has ever taken a job from a foreign thread: the page sums over all of them.
        private func checkForeignJobs() throws {
            let page = try platform.metrics()
            for slot in 0..<2 {
                #expect(page.contains("hc_process_resident_bytes{worker=\"\(slot)\"}"), "\(page)")
            }
            #expect(page.contains("\nhc_loop_foreign_jobs_total 0\n"), "\(page)")
        }

        // MARK: Workers

        @Test("SIGHUP, and again during the roll, replaces every worker and no request is lost")
        func roll() throws {
            let (supervisor, old) = try platform.serverProcesses()
            try underLoad("Rolled") { load in
                let log = try LogFollower(platform.logFile)
                kill(supervisor, SIGHUP)
                try log.wait(for: "worker ready")
                kill(supervisor, SIGHUP)
                try log.wait(for: "roll finished")
                try load.advance(by: 100)
            }
            let (same, new) = try platform.serverProcesses()
            #expect(same == supervisor)
            #expect(new.count == old.count)
            #expect(Set(new).isDisjoint(with: old))
            try checkForeignJobs()
        }

        @Test("a worker above its memory ceiling hands over to a successor and no request is lost")
        func memory() throws {
            try platform.configure(
                "http", ["queueTarget": RollTests.patience, "workerMemoryMax": "48MiB"])
            try RollTests.roll(platform)
            let log = try LogFollower(platform.logFile)
            let (_, old) = try platform.serverProcesses()
            try underLoad("Heavy", replacesAll: false) { load in
                let ballast = try Subprocess(
                    "/usr/bin/python3", [Repository.path("Tests/EndToEndTests/Load/ballast.py")])
                try ballast.write("\(platform.port)\n")
                let line = try log.wait(for: "above its memory ceiling")
                let heavy = try #require(
                    try JSONReader.parse(Array(line.utf8))["pid"]?.asInteger.map { Int32($0) })
                #expect(old.contains(heavy))
                ballast.closeInput()
                // Drained, not killed.
                try log.wait(for: "worker ended", "\(heavy)", "exit code 0")
                try load.advance(by: 100)
            }
            let page = try platform.metrics()
            #expect(
                page.contains("hc_supervisor_worker_kills_total{reason=\"memory\"} 0"), "\(page)")
            try platform.configure("http", ["queueTarget": RollTests.patience])
            try RollTests.roll(platform)
        }

        @Test("the runbook's commands do what it says")
        func runbook() throws {
            let text = try Repository.contents(of: Repository.path("deploy/runbooks/upgrade.md"))
            let blocks = text.split(separator: "```sh\n").dropFirst().map { block in
                block.prefix { $0 != "`" }.split(separator: "\n").map(String.init)
            }
            let commands = blocks.flatMap { $0 }
            #expect(commands.count >= 4)
            let log = try LogFollower(platform.logFile)
            for line in commands {
                // Tests have no release build.
                let command = line.replacing("deploy/local/hc-admin", with: ".build/debug/hc-admin")
                try Subprocess.run(
                    "/bin/sh", ["-c", "cd '\(Repository.root)' && \(command)"],
                    environment: [
                        "HC_STATE": platform.state, "HC_OPS_PORT": "\(platform.operatorPort)",
                        "HC_CONFIG": platform.state + "/hc.json",
                    ])
                if command.contains("kill -") { try log.wait(for: "roll finished") }
            }
        }

        // MARK: The program

        /// A copy of the server's program with an inode of its own, in a place where it can be replaced.
        private func install(_ source: String = RollTests.program, mode: String = "755") throws
            -> (path: String, inode: UInt64)
        {
            let directory = platform.state + "/program"
            try Subprocess.run("/bin/mkdir", ["-p", directory])
            let fresh = directory + "/.new"
            try Subprocess.run("/bin/cp", ["-f", source, fresh])
            try Subprocess.run("/bin/chmod", [mode, fresh])
            let inode = try RunningPlatform.inode(of: fresh)
            try Subprocess.run("/bin/mv", ["-f", fresh, directory + "/hc-server"])
            return (directory + "/hc-server", inode)
        }

        private func programs() throws -> [UInt64] {
            let (supervisor, workers) = try platform.serverProcesses()
            return try ([supervisor] + workers).map { try RunningPlatform.programInode(of: $0) }
        }

        @Test("the program is replaced, and put back, under load; what is broken is refused")
        func upgrade() throws {
            let old = try install()
            let server = try platform.startServer(old.path)
            let supervisor = server.processIdentifier
            #expect(try platform.serverProcesses().supervisor == supervisor)
            #expect(try Set(programs()) == [old.inode])

            // Replaced and not asked for: a worker that dies is replaced by one like the others.
            let new = try install()
            #expect(new.inode != old.inode)
            let log = try LogFollower(platform.logFile)
            kill(try #require(try platform.serverProcesses().workers.first), SIGKILL)
            try log.wait(for: "worker ready")
            #expect(try Set(programs()) == [old.inode])

            try underLoad("Upgraded") { load in
                kill(supervisor, SIGUSR2)
                try log.wait(for: "program replaced")
                try log.wait(for: "roll finished")
                try load.advance(by: 100)
            }
            #expect(try platform.serverProcesses().supervisor == supervisor)
            #expect(try Set(programs()) == [new.inode])
            // What was counted before is counted still.
            let page = try platform.metrics()
            #expect(page.contains("hc_supervisor_upgrades_total{outcome=\"replaced\"} 1"))
            #expect(page.contains("hc_supervisor_worker_exits_total 3"))
            try checkForeignJobs()

            let load = try LoadClient(platform, token: token, family: "Refused")
            try load.advance(by: 100)
            for (source, mode) in [
                // Another program, one that cannot be run, one that is no program, one that is cut.
                ("/bin/true", "755"), (RollTests.program, "644"),
                (Repository.path("README.md"), "755"), (try cutProgram(), "755"),
            ] {
                _ = try install(source, mode: mode)
                kill(supervisor, SIGUSR2)
                try log.wait(for: "program refused, nothing changes")
                #expect(try Set(programs()) == [new.inode])
            }
            let refused = try load.stop()
            #expect(refused.lost == 0 && refused.announced("http1") == 0, "\(refused.text)")

            // A configuration that the new program does not understand is found before anything is changed.
            _ = try install()
            try platform.configure("http", ["queueTarget": RollTests.patience, "drain": "never"])
            kill(supervisor, SIGUSR2)
            try log.wait(for: "program refused, nothing changes")
            kill(supervisor, SIGHUP)
            try log.wait(for: "configuration refused, nothing changes")
            try platform.configure("http", ["queueTarget": RollTests.patience])
            #expect(try Set(programs()) == [new.inode])

            // The way back is the same way.
            let back = try install()
            try underLoad("Back") { _ in
                kill(supervisor, SIGUSR2)
                try log.wait(for: "roll finished")
            }
            #expect(try Set(programs()) == [back.inode])
            kill(supervisor, SIGTERM)
            #expect(try server.wait() == 0)
        }

        private func cutProgram() throws -> String {
            let path = platform.state + "/cut"
            try Subprocess.run("/bin/cp", ["-f", RollTests.program, path])
            try Subprocess.run("/usr/bin/truncate", ["-s", "65536", path])
            return path
        }

        @Test("when no worker can start with what is new, what was before comes back by itself")
        func fallback() throws {
            let old = try install()
            let server = try platform.startServer(old.path)
            let supervisor = server.processIdentifier
            let workers = try platform.serverProcesses().workers
            let text = try Repository.contents(of: platform.state + "/hc.json")
            // Valid, but there is no way to any clinic from here.
            let empty = platform.state + "/empty"
            try Subprocess.run("/bin/mkdir", ["-p", empty])
            for name in ["stateDirectory", "secretsDirectory"] {
                try platform.configure(name, .string(empty))
            }
            let load = try LoadClient(platform, token: token, family: "Fallback")
            try load.advance(by: 100)
            let log = try LogFollower(platform.logFile)
            kill(supervisor, SIGHUP)
            try log.wait(for: "roll abandoned")
            try log.wait(for: "the configuration before is in use again")

            let new = try install()
            kill(supervisor, SIGUSR2)
            try log.wait(for: "program replaced")
            try log.wait(for: "putting the program before back")
            // All workers that serve are of the program before, and it is the supervisor again.
            try log.wait(for: "program replaced")
            try log.wait(for: "roll finished")
            #expect(try Set(programs()) == [old.inode])
            #expect(new.inode != old.inode)
            try load.advance(by: 100)
            let counts = try load.stop()
            #expect(counts.lost == 0 && counts.refused == 0, "\(counts.text)")
            #expect(try Set(platform.serverProcesses().workers).isDisjoint(with: workers))
            try Files.replace(platform.state + "/hc.json", with: Array(text.utf8))
            kill(supervisor, SIGTERM)
            #expect(try server.wait() == 0)
        }

        // MARK: The supervisor

        @Test("SIGTERM under load answers everything that was sent, and is obeyed")
        func stop() throws {
            let (supervisor, workers) = try platform.serverProcesses()
            try underLoad("Stopped", isServedAfterwards: false) { _ in
                kill(supervisor, SIGTERM)
                for process in [supervisor] + workers { try platform.waitForExit(process) }
            }
        }

        @Test(
            "a supervisor that is killed in the middle of an upgrade takes no request with it",
            arguments: ["upgrade.during-check", "upgrade.before-replace", "upgrade.after-replace"])
        func killedInUpgrade(point: String) throws {
            let old = try install()
            let server = try platform.startServer(old.path, ["HC_FAULT": "\(point)=kill"])
            let workers = try platform.serverProcesses().workers
            _ = try install()
            try underLoad("Killed", isServedAfterwards: false) { _ in
                kill(server.processIdentifier, SIGUSR2)
                #expect(try server.wait() == 128 + SIGKILL)
                // They notice, answer what was accepted, and leave.
                for worker in workers { try platform.waitForExit(worker) }
            }
        }

        @Test("a kernel that refuses to run the program leaves everything as it was")
        func replaceFails() throws {
            let old = try install()
            let server = try platform.startServer(
                old.path, ["HC_FAULT": "upgrade.before-replace=fail@1"])
            let before = try platform.serverProcesses().workers
            let log = try LogFollower(platform.logFile)
            kill(server.processIdentifier, SIGUSR2)
            try log.wait(for: "program refused, nothing changes")
            #expect(try platform.serverProcesses().workers == before)
            // The operators' door is open again.
            try platform.waitReady { $0["upgrading"]?.asBool == false }
            kill(server.processIdentifier, SIGUSR2)
            try log.wait(for: "roll finished")
            kill(server.processIdentifier, SIGTERM)
            #expect(try server.wait() == 0)
        }
    }
}
