import HCCore
import HCIO
import HCTesting
import Testing

@testable import HCControl

@Suite("Schemas that were changed by hand are found", .onLoop)
@LoopActor
struct SchemaDriftTests {
    @Test("what most shards do not have is named, and so is what one lacks")
    func named() async throws {
        try await withWaveGround(shards: 5) { ground in
            let clean = try await SchemaDrift(plane: ground.plane()).run()
            #expect(clean.count == 5 && clean.allSatisfy { !$0.isDifferent && $0.problem == nil })
            // The first is no better than the others.
            try await ground.psql(
                ground.shards[0].owner, "CREATE INDEX by_hand ON cache_tag (tenant_id)")
            try await ground.psql(
                ground.shards[3].superuser, "REVOKE ALL ON cache_tag FROM hc_app")
            try ground.takeDown(5)
            let lines = try await SchemaDrift(plane: ground.plane()).run()
            #expect(lines.map(\.isDifferent) == [true, false, false, true, false])
            #expect(lines[0].extra.count == 1 && lines[0].missing.isEmpty)
            #expect(lines[0].extra.first?.contains("CREATE INDEX by_hand ON") == true)
            #expect(lines[3].extra.isEmpty && !lines[3].missing.isEmpty)
            #expect(lines[3].missing.allSatisfy { $0.hasPrefix("grant cache_tag ") })
            #expect(lines[4].problem?.contains("s05") == true)
        }
    }

    /// Whose it is and, if the server keeps that, since when; of what is gone, nothing.
    @Test("what PostgreSQL knows of a change's origin is told, and what it does not know is not")
    func origins() async throws {
        try await withWaveGround(shards: 3) { ground in
            let changes = """
                ALTER TABLE cache_tag ADD COLUMN by_hand text;
                CREATE INDEX by_hand ON cache_tag (tenant_id);
                DROP INDEX appointment_time;
                """
            try await ground.psql(ground.shards[1].owner, changes)
            let line = try await SchemaDrift(plane: ground.plane()).run()[1]
            #expect(line.extra.count == 2 && line.missing.count == 1 && !line.keepsTimes)
            for fact in line.extra {
                #expect(line.origins[fact] == SchemaOrigin(owner: "hc_owner", changedAt: nil))
            }
            #expect(line.origins[line.missing[0]] == nil)
        }
    }

    @Test("a server that keeps the times of its commits says when, of a dropped column too")
    func times() async throws {
        let services = try await offLoop {
            let services = try LocalServices(shards: 1)
            try services.psql(
                services.conninfo("shards/s1.superuser"),
                "ALTER SYSTEM SET track_commit_timestamp = on")
            try services.killPostgres()
            try services.restart()
            return services
        }
        let own: @Sendable () throws -> LocalServices = { services }
        try await withWaveGround(shards: 3, on: own) { ground in
            let owner = ground.shards[0].owner
            let now = """
                SELECT to_char(clock_timestamp() AT TIME ZONE 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS"Z"')
                """
            let before = try await ground.psql(owner, now)
            try await ground.psql(
                owner,
                """
                ALTER TABLE read_model RENAME COLUMN name TO title;
                ALTER TABLE practitioner DROP COLUMN updated_at;
                """)
            try await ground.psql(
                ground.shards[0].superuser,
                "CREATE FUNCTION by_hand() RETURNS int LANGUAGE sql RETURN 1")
            let after = try await ground.psql(owner, now)
            let line = try await SchemaDrift(plane: ground.plane()).run()[0]
            #expect(line.keepsTimes)
            func origin(_ head: String, in facts: [String]) throws -> SchemaOrigin {
                let fact = try #require(facts.first { $0.hasPrefix(head) }, "\(head): \(facts)")
                return try #require(line.origins[fact], "\(fact)")
            }
            for origin in [
                try origin("column read_model title ", in: line.extra),
                try origin("column practitioner updated_at ", in: line.missing),
            ] {
                #expect(origin.owner == "hc_owner")
                let changedAt = try #require(origin.changedAt)
                #expect(before <= changedAt && changedAt <= after)
            }
            let function = try origin(
                "function CREATE OR REPLACE FUNCTION public.by_hand(", in: line.extra)
            #expect(function.owner == "postgres" && function.changedAt != nil)
        }
    }
}
