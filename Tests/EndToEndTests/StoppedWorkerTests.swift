import Glibc
import HCCore
import HCTesting
import Testing

extension EndToEnd {
    /// A program that stands still, as on a machine that is suspended, while a contract takes away what it was made with, and
    /// goes on afterwards. On a platform of its own: what other tests have used of the limits would be missing here.
    @Suite struct StoppedWorkerTests {
        private let platform: RunningPlatform
        private let directory: String

        init() throws {
            try self.init(on: RunningPlatform.shared("stopped-worker"))
        }

        private init(on platform: RunningPlatform) {
            self.platform = platform
            directory = platform.directory + "/migrations"
        }

        @discardableResult
        private func psql(
            _ database: String, as role: String = "superuser", _ sql: String
        ) throws -> String {
            let text = try Subprocess.run(
                psqlPath, ["-XqAt", "-v", "ON_ERROR_STOP=1"],
                environment: conninfo(database, role).environment, input: sql)
            return text.last == "\n" ? String(text.dropLast()) : text
        }

        private func conninfo(_ database: String, _ role: String) throws -> Conninfo {
            try Conninfo(
                Repository.contents(of: "\(platform.state)/secrets/\(database).\(role).conninfo"))
        }

        private var psqlPath: String {
            get throws { try Repository.line(of: platform.state + "/services/bin") + "/psql" }
        }

        /// Asks again and again, no more than so often.
        private func awaited(_ what: String, _ question: () throws -> String?) throws -> String {
            for _ in 0..<2000 {
                if let answer = try question() { return answer }
            }
            throw FixtureError("it does not come: \(what)")
        }

        /// A migration in phases. What goes at last is nothing that the programs know, but it needs the table for itself, as
        /// whatever takes away does.
        ///
        /// - Parameter isKnown: whether the programs of this test serve a shard that has it.
        private func makeMigration(isKnown: Bool = true) throws {
            try Subprocess.run("/bin/rm", ["-rf", directory])
            try Subprocess.run("/bin/cp", ["-r", Repository.path("migrations"), directory])
            let newest = try Subprocess.run(
                "/usr/bin/find",
                ["\(directory)/shard", "-mindepth", "1", "-maxdepth", "1", "-type", "d"]
            ).split(separator: "\n").count
            let number = String(newest + 1)
            let folder =
                "\(directory)/shard/" + String(repeating: "0", count: 4 - number.count) + number
                + "-stopped"
            try Subprocess.run("/bin/mkdir", [folder])
            for (file, text) in [
                "expand.sql":
                    "ALTER TABLE patient ADD COLUMN e2e_old integer, ADD COLUMN e2e_new bigint;",
                "backfill.sql": """
                WITH batch AS (
                    SELECT id FROM patient
                    WHERE tenant_id = $1 AND ($2::text IS NULL OR id > $2::text::uuid) ORDER BY id LIMIT $3
                ), filled AS (
                    UPDATE patient SET e2e_new = 1 FROM batch
                    WHERE patient.tenant_id = $1 AND patient.id = batch.id AND e2e_new IS NULL
                )
                SELECT count(*), CASE WHEN count(*) = $3
                    THEN (SELECT id::text FROM batch ORDER BY id DESC LIMIT 1) END FROM batch
                """,
                "contract.sql": "ALTER TABLE patient DROP COLUMN e2e_old;",
                "migration.json":
                    #"{"servesFrom": \#(isKnown ? newest : newest + 1), "lockTotalSeconds": 2, "busyPercent": 100}"#,
            ] {
                try Subprocess.run("/usr/bin/tee", ["\(folder)/\(file)"], input: text)
            }
        }

        private func migrateUp() throws -> (status: Int32, output: String) {
            try platform.admin(["migrate", "up", "--migrations", directory, "--json"])
        }

        /// Applies what comes before the contract: that one waits for an old process.
        private func expand() throws {
            try psql(
                "control",
                """
                INSERT INTO program_process (id, name, host, process_id, version, control_lowest, control_highest,
                    shard_lowest, shard_highest, started_at)
                VALUES (gen_random_uuid(), 'old', 'old-host', 1, '1.0.0', 1, 1000, 1, 1, now())
                """)
            let (status, output) = try migrateUp()
            #expect(status == 0, "\(output)")
            try psql("control", "DELETE FROM program_process WHERE name = 'old'")
        }

        /// Stops the worker that waits for what a session holds, and its supervisor before it, which would replace it.
        ///
        /// - Returns: the worker, and which session of the shard waits.
        private func stopWorker(waitingFor holder: String) throws -> (
            process: Int32, session: String
        ) {
            let supervisor = try platform.serverProcesses().supervisor
            let waiting = try awaited("a worker that waits for the patient") {
                let line = try psql(
                    "shards/s1",
                    """
                    SELECT pid || ' ' || right(application_name, 36) FROM pg_stat_activity
                    WHERE application_name LIKE 'hc-server worker %' AND \(holder) = ANY (pg_blocking_pids(pid))
                    """)
                return line.isEmpty ? nil : line
            }.split(separator: " ")
            try #require(waiting.count == 2, "\(waiting)")
            let worker = try psql(
                "control",
                "SELECT process_id FROM program_process WHERE id = '\(waiting[1])'")
            let process = try #require(Int32(worker))
            #expect(kill(supervisor, SIGSTOP) == 0 && kill(process, SIGSTOP) == 0)
            // Nobody waits in a test for the half minute after which who is silent counts as gone.
            try psql(
                "control",
                """
                UPDATE program_process SET seen_at = clock_timestamp() - interval '31 s' WHERE id = '\(waiting[1])'
                """)
            return (process, String(waiting[0]))
        }

        @Test("what it had begun to write is not half made, and what was acknowledged is there")
        func stopped() throws {
            let supervisor = try platform.serverProcesses().supervisor
            defer { kill(supervisor, SIGCONT) }
            let token = try platform.login("sunrise")
            let created = try platform.curl(
                "POST", "sunrise", "/v1/patients", token: token,
                json: """
                    {"givenName":"Stopped","familyName":"Worker","birthDate":"1980-02-29","sex":"female",
                     "phone":"+15550100777"}
                    """)
            let patient = try #require(try created.json["id"]?.asString)
            let tag = try #require(created.header("ETag"))
            let path = "/v1/patients/\(patient)"
            // What comes then finds this patient done, and waits for nobody who has her.
            try makeMigration()
            try expand()
            let (email, password) = try platform.credentials(of: "sunrise")
            let ledger = try LedgerClient(
                platform, run: "Stopped",
                clinics: [.init(slug: "sunrise", email: email, password: password, writers: 4)])

            let holder = try SQLSession(psql: psqlPath, conninfo("shards/s1", "superuser"))
            let process = try holder.run("SELECT pg_backend_pid()").text
            let held = try holder.run(
                "BEGIN; SELECT id FROM patient WHERE id = '\(patient)' FOR UPDATE")
            #expect(held.lines == [patient])
            let change = try Subprocess(
                "/usr/bin/curl",
                [
                    "-sS", "-o", "/dev/null", "-w", "%{http_code}", "-X", "PATCH", "--max-time",
                    "300",
                    "--resolve", "sunrise.localhost:\(platform.port):127.0.0.1", "-H",
                    "Authorization: Bearer \(token)", "-H", "Content-Type: application/json", "-H",
                    "If-Match: \(tag)", "-d", #"{"phone":"+15550100778"}"#,
                    "http://sunrise.localhost:\(platform.port)\(path)",
                ])
            let (worker, session) = try stopWorker(waitingFor: process)
            defer { kill(worker, SIGCONT) }
            _ = try holder.run("ROLLBACK")
            _ = try awaited("its transaction, which is open and goes nowhere") {
                let state = try psql(
                    "shards/s1", "SELECT state FROM pg_stat_activity WHERE pid = \(session)")
                return state == "idle in transaction" ? state : nil
            }

            let (status, output) = try migrateUp()
            #expect(status == 0, "\(output)")
            for shard in ["s1", "s2"] {
                #expect(
                    try psql(
                        "shards/\(shard)",
                        """
                        SELECT count(*) FROM pg_attribute
                        WHERE attrelid = 'patient'::regclass AND attname = 'e2e_old'
                        """) == "0")
            }
            #expect(kill(worker, SIGCONT) == 0)
            let answer = try change.readToEnd()
            #expect(try change.wait() == 0)
            #expect(kill(supervisor, SIGCONT) == 0)
            try platform.waitReady { $0["ready"]?.asBool == true }

            let read = try platform.curl("GET", "sunrise", path, token: token)
            #expect(read.status == 200, "\(read.body)")
            let phone = try read.json["phone"]?.asString
            let version = try psql(
                "shards/s1", "SELECT version FROM patient WHERE id = '\(patient)'")
            if answer == "200" {
                #expect(phone == "+15550100778" && version == "2")
            } else {
                #expect(answer.hasPrefix("5"), "\(answer)")
                #expect(phone == "+15550100777" && version == "1")
                #expect(read.header("ETag") == tag)
            }
            let pages = try ledger.advance(by: 20, within: 120)
            #expect(pages["sunrise"]?.isServed == true)
            #expect(try ledger.stop()["sunrise"]?.wrongs == [])
        }

        @Test("what it is asked for meanwhile it does not write as it used to")
        func idle() throws {
            // Of its own: nobody serves its shards afterwards.
            try StoppedWorkerTests(on: RunningPlatform.shared("stopped-idle")).staysOut()
        }

        private func staysOut() throws {
            let token = try platform.login("sunrise")
            try makeMigration(isKnown: false)
            try expand()
            let patients = "SELECT count(*) FROM patient"
            let before = try psql("shards/s1", patients)
            let (supervisor, workers) = try platform.serverProcesses()
            defer { for process in workers + [supervisor] { kill(process, SIGCONT) } }
            for process in [supervisor] + workers { #expect(kill(process, SIGSTOP) == 0) }
            let open = try psql(
                "shards/s1",
                "SELECT count(*) FROM pg_stat_activity WHERE application_name LIKE 'hc-server worker %'"
            )
            #expect(open != "0", "they have sessions to go on over")
            try psql(
                "control",
                "UPDATE program_process SET seen_at = clock_timestamp() - interval '31 s'")
            let asked = try (0..<8).map { number in
                try Subprocess(
                    "/usr/bin/curl",
                    [
                        "-sS", "-o", "/dev/null", "-w", "%{http_code}", "--max-time", "300",
                        "--resolve", "sunrise.localhost:\(platform.port):127.0.0.1", "-H",
                        "Authorization: Bearer \(token)", "-H", "Content-Type: application/json",
                        "-d",
                        """
                        {"givenName":"Idle","familyName":"Worker\(number)","birthDate":"1980-02-29","sex":"female"}
                        """,
                        "http://sunrise.localhost:\(platform.port)/v1/patients",
                    ])
            }
            let (status, output) = try migrateUp()
            #expect(status == 0, "\(output)")
            // Nobody tells it: what it has heard from the control database comes to its end.
            try psql(
                "control",
                "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE usename = 'hc_router'"
            )
            for process in workers + [supervisor] { #expect(kill(process, SIGCONT) == 0) }
            for request in asked {
                #expect(try request.readToEnd().hasPrefix("5"))
                #expect(try request.wait() == 0)
            }
            #expect(try psql("shards/s1", patients) == before)
            // It finds out by itself that these shards are not its own any more.
            try platform.waitReady {
                ($0["refusals"]?["shards"]?.asArray ?? []).compactMap { $0["id"]?.asString }
                    .sorted()
                    == ["s1", "s2"]
            }
            let answer = try platform.curl("GET", "sunrise", "/v1/clinic", token: token)
            #expect(answer.status == 503, "\(answer.body)")
            #expect(try answer.json["code"]?.asString == "schema-unsupported")
        }
    }
}
