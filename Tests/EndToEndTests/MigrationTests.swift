import Glibc
import HCCore
import HCTesting
import Testing

extension EndToEnd {
    /// Four shards are migrated while the clinic on the first of them is used.
    @Suite struct MigrationTests {
        private static let shards = ["s1", "s2", "s3", "s4"]

        private let platform: RunningPlatform
        private let directory: String

        init() throws {
            platform = try RunningPlatform.shared("four-shards", ["HC_SHARDS": "4"])
            directory = platform.directory + "/migrations"
            try Subprocess.run("/bin/rm", ["-rf", directory])
            try Subprocess.run("/bin/cp", ["-r", Repository.path("migrations"), directory])
        }

        // MARK: What is done to it

        /// Adds a migration of the shards.
        private func add(_ name: String, _ files: [String: String]) throws {
            let folders = try Subprocess.run(
                "/usr/bin/find",
                ["\(directory)/shard", "-mindepth", "1", "-maxdepth", "1", "-type", "d"])
            let number = String(folders.split(separator: "\n").count + 1)
            let folder =
                "\(directory)/shard/" + String(repeating: "0", count: 4 - number.count) + number
                + "-\(name)"
            try Subprocess.run("/bin/mkdir", [folder])
            for (file, text) in files {
                try Subprocess.run("/usr/bin/tee", ["\(folder)/\(file)"], input: text)
            }
        }

        private func migrate(_ words: String...) throws -> (status: Int32, json: JSONValue) {
            let (status, output) = try platform.admin(
                ["migrate"] + words + ["--migrations", directory, "--json"])
            return (status, output.isEmpty ? .null : try JSONReader.parse(Array(output.utf8)))
        }

        private func takeBack(_ shard: String) throws {
            #expect(try migrate("down", "--shard", shard).status == 0)
        }

        /// The version of each shard, in their order.
        private func versions() throws -> [Int64] {
            try (migrate("status").json["shards"]?.asArray ?? []).compactMap {
                $0["version"]?.asInteger
            }
        }

        /// - Parameter database: `control`, or `shards/s1`.
        @discardableResult
        private func psql(
            _ database: String, as role: String = "owner", _ sql: String
        ) throws -> String {
            try Subprocess.run(
                psqlPath, ["-XqAt", "-v", "ON_ERROR_STOP=1"],
                environment: conninfo(database, role).environment, input: sql)
        }

        private func conninfo(_ database: String, _ role: String) throws -> Conninfo {
            try Conninfo(
                Repository.contents(
                    of: "\(platform.state)/secrets/\(database).\(role).conninfo"))
        }

        private var psqlPath: String {
            get throws { try Repository.line(of: platform.state + "/services/bin") + "/psql" }
        }

        /// Runs `body` while the clinic on the first shard is used, and counts what became of each request.
        private func underLoad(_ family: String, _ body: () throws -> Void) throws {
            let load = try LoadClient(
                platform, token: platform.login("sunrise"), family: family, rate: 200)
            try load.advance(by: 200)
            try body()
            try load.advance(by: 200)
            let counts = try load.stop()
            #expect(counts.statuses == ["200", "201"], "\(counts.text)")
            #expect(counts.lost == 0 && counts.refused == 0 && counts.doubled == 0)
            #expect(counts.answered == counts.sent)
        }

        // MARK: Stories

        @Test("a good one goes from the canary to all of them, and no request notices")
        func good() throws {
            let before = try versions()
            #expect(before.count == 4)
            try add(
                "good",
                [
                    "up.sql": "ALTER TABLE patient ADD COLUMN e2e_good text;",
                    "down.sql": "ALTER TABLE patient DROP COLUMN e2e_good;",
                ])
            let planned = try migrate("up", "--dry-run").json["migrations"]
            #expect(
                planned?.asArray?.map { $0["locks"] }
                    == [[["table": "patient", "mode": "AccessExclusiveLock"]]])
            #expect(try versions() == before)
            try underLoad("Migrated") {
                let (status, json) = try migrate("up", "--canary", "s1", "--waves", "50,100")
                #expect(status == 0)
                let applied = json["applied"]?.asArray?.compactMap { $0["database"]?.asString }
                #expect(applied?.first == "s1" && applied?.sorted() == Self.shards)
            }
            #expect(try versions() == before.map { $0 + 1 })
            let rollout = try migrate("status").json["rollout"]
            #expect(rollout?["state"]?.asString == "done")
            // Under load too: what was added goes again.
            try underLoad("Unmigrated") { for shard in Self.shards { try takeBack(shard) } }
            #expect(try versions() == before)
        }

        @Test("a bad one halts at the canary: the others are untouched, and the status says so")
        func bad() throws {
            let before = try versions()
            try add("bad", ["up.sql": "ALTER TABLE no_such_table ADD COLUMN e2e_bad text;"])
            try underLoad("Halted") {
                let status = try migrate("up", "--canary", "s1").status
                #expect(status == 1)
            }
            let (status, json) = try migrate("status")
            #expect(status == 1)
            #expect(json["rollout"]?["state"]?.asString == "halted")
            #expect(json["rollout"]?["failedShards"] == ["s1"])
            #expect(json["rollout"]?["problem"]?.asString?.contains("no_such_table") == true)
            #expect(try versions() == before)
            #expect(try platform.admin(["migrate", "abort", "--reason", "test"]).status == 0)
            #expect(try migrate("status").status == 0)
        }

        @Test("killed within a batch of a backfill and run again, it has filled each row once")
        func killedInBackfill() throws {
            let before = try versions()
            try add(
                "filled",
                [
                    "expand.sql": "ALTER TABLE patient ADD COLUMN e2e_filled integer;",
                    "backfill.sql": """
                    WITH batch AS (
                        SELECT id FROM patient
                        WHERE tenant_id = $1 AND ($2::text IS NULL OR id > $2::text::uuid) ORDER BY id LIMIT $3
                    ), filled AS (
                        UPDATE patient SET e2e_filled = coalesce(e2e_filled, 0) + 1 FROM batch
                        WHERE patient.tenant_id = $1 AND patient.id = batch.id
                    )
                    SELECT count(*), CASE WHEN count(*) = $3
                        THEN (SELECT id::text FROM batch ORDER BY id DESC LIMIT 1) END FROM batch
                    """,
                    "down.sql": "ALTER TABLE patient DROP COLUMN e2e_filled;",
                    "migration.json": #"{"batchRows": 2, "busyPercent": 100}"#,
                ])
            // Who locks a patient would keep the column out: so it is there first.
            let first = try platform.admin(
                ["migrate", "up", "--canary", "s1", "--migrations", directory],
                ["HC_FAULT": "migrate.before-apply=kill@2"])
            #expect(first.status == 128 + SIGKILL)
            try psql("control", "UPDATE migration_rollout SET lease_until = clock_timestamp()")
            // Its third batch waits for a patient that somebody else is changing. The lock is asked for by the id: rows that
            // OFFSET passes over would be locked as well.
            let other = try SQLSession(psql: psqlPath, conninfo("shards/s1", "superuser"))
            let held = try other.run(
                """
                BEGIN;
                SELECT id FROM patient WHERE (tenant_id, id) = (
                    SELECT tenant_id, id FROM patient WHERE tenant_id = (SELECT tenant_id FROM patient LIMIT 1)
                    ORDER BY id OFFSET 5 LIMIT 1)
                FOR UPDATE
                """)
            #expect(held.lines.count == 1, "\(held.text)")
            let child = try platform.startAdmin(
                ["migrate", "up", "--canary", "s1", "--migrations", directory])
            let waiting = """
                SELECT count(*) FROM pg_stat_activity
                WHERE application_name = 'hc-admin' AND wait_event_type = 'Lock' AND query LIKE '%filled AS (%'
                """
            var patience = 1000
            while try psql("shards/s1", as: "superuser", waiting) != "1\n" {
                patience -= 1
                try #require(patience > 0, "no batch waits")
            }
            #expect(kill(child.processIdentifier, SIGKILL) == 0)
            #expect(try child.wait() == 128 + SIGKILL)
            #expect(
                try psql(
                    "shards/s1", as: "superuser",
                    "SELECT rows_seen FROM hc_backfill WHERE done_at IS NULL") == "4\n")
            _ = try other.run("ROLLBACK")
            // Nobody waits in a test for the ten seconds of its lease.
            #expect(try migrate("up").status == 5)
            try psql("control", "UPDATE migration_rollout SET lease_until = clock_timestamp()")
            #expect(try migrate("up").status == 0)
            for shard in Self.shards {
                let left = try psql(
                    "shards/\(shard)", as: "superuser",
                    """
                    SELECT (SELECT count(*) FROM patient WHERE e2e_filled IS DISTINCT FROM 1),
                        (SELECT count(*) FROM hc_backfill WHERE done_at IS NULL),
                        (SELECT count(*) FROM patient) - (SELECT coalesce(sum(rows_seen), 0) FROM hc_backfill)
                    """)
                #expect(left == "0|0|0\n", "\(shard)")
            }
            for shard in Self.shards { try takeBack(shard) }
            #expect(try versions() == before)
        }

        @Test("a change by hand is found, and told by its shard and its name")
        func drift() throws {
            #expect(try migrate("status").status == 0)
            try psql("shards/s3", "ALTER TABLE cache_tag ADD COLUMN by_hand text")
            defer { _ = try? psql("shards/s3", "ALTER TABLE cache_tag DROP COLUMN by_hand") }
            let (status, output) = try platform.admin(["migrate", "drift", "--json"])
            #expect(status == 3)
            let shards = try JSONReader.parse(Array(output.utf8))["shards"]?.asArray ?? []
            let different = shards.filter { $0["isDifferent"]?.asBool == true }
            #expect(different.map { $0["id"]?.asString } == ["s3"])
            let extra = different.first?["extra"]?.asArray?.compactMap(\.asString) ?? []
            #expect(extra.contains { $0.contains("by_hand") }, "\(extra)")
            // Nothing is migrated over it.
            try add("later", ["up.sql": "ALTER TABLE cache_tag ADD COLUMN e2e_later text;"])
            #expect(try migrate("up").status == 3)
        }

        @Test(
            "a shard whose schema the program does not know is closed by itself, and opens again by itself"
        )
        func unknownSchema() throws {
            let version = (try versions().first ?? 0) + 1
            try add(
                "away",
                [
                    "up.sql": "ALTER TABLE cache_tag ADD COLUMN e2e_away text;",
                    "down.sql": "ALTER TABLE cache_tag DROP COLUMN e2e_away;",
                    "migration.json": #"{"servesFrom": \#(version)}"#,
                ])
            let token = try platform.login("lakeside")
            let processes = try migrate("status").json["processes"]?.asArray ?? []
            #expect(processes.count == 2)
            #expect(processes.allSatisfy { $0["shard"]?["highest"]?.asInteger == version - 1 })
            // It is not to be had while they serve,
            let (status, _) = try migrate("up")
            #expect(status == 3)
            #expect(try versions().allSatisfy { $0 == version - 1 })
            func refused(_ status: JSONValue) -> [String] {
                (status["refusals"]?["shards"]?.asArray ?? [])
                    .filter { $0["workers"]?.asInteger == 2 }.compactMap { $0["id"]?.asString }
            }
            // so they meet it as processes do that were away: by what the ledger says.
            try underLoad("Refused") {
                try psql(
                    "shards/s2",
                    """
                    INSERT INTO hc_schema (version, name, checksum, fingerprint, serves_from)
                    VALUES (\(version), 'away', 'c', 'f', \(version))
                    """)
                try tell("s2", version, servesFrom: version)
                try platform.waitReady { refused($0) == ["s2"] && $0["ready"]?.asBool == true }
                let answer = try platform.curl("GET", "lakeside", "/v1/clinic", token: token)
                #expect(answer.status == 503, "\(answer.body)")
                #expect(try answer.json["code"]?.asString == "schema-unsupported")
                #expect(answer.header("Retry-After") == "5")
                try psql("shards/s2", "DELETE FROM hc_schema WHERE version = \(version)")
                try tell("s2", version - 1, servesFrom: 1)
                try platform.waitReady { refused($0).isEmpty }
                #expect(
                    try platform.curl("GET", "lakeside", "/v1/clinic", token: token).status == 200)
            }
        }

        /// What a run writes down of a shard when it has migrated it.
        private func tell(_ shard: String, _ version: Int64, servesFrom: Int64) throws {
            try psql(
                "control",
                """
                UPDATE shard SET schema_version = \(version), schema_serves_from = \(servesFrom)
                WHERE id = '\(shard)'
                """)
        }
    }
}
