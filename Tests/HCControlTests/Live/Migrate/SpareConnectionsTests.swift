import HCIO
import HCPostgres
import HCTesting
import Testing

@testable import HCControl

@Suite("Workers of a run hand their connections on", .onLoop)
@LoopActor
struct SpareConnectionsTests {
    private func number(_ query: StaticString, _ plane: ControlPlane) async throws -> Int {
        try await plane.shard(reference: "s01", .owner).execute(
            Query(query), deadline: plane.deadline
        ).single().int(0)
    }

    @Test(
        "the next worker gets it as it was when it was opened, and nobody two of one",
        arguments: [true, false])
    func handedOn(byScript: Bool) async throws {
        try await withWaveGround(shards: 1) { ground in
            let (plane, spare) = (ground.plane(), SpareConnections())
            let first = plane.twin(spare)
            let process = try await number("SELECT pg_backend_pid()", first)
            let connection = try await first.shard(reference: "s01", .owner)
            let sets = ["SET statement_timeout = 12345", "SELECT pg_advisory_lock(1, 0)"]
            if byScript {
                try await connection.executeScript(
                    sets.joined(separator: "; "), deadline: plane.deadline)
            } else {
                _ = try await connection.execute(
                    sets.map { .unsafeSQL($0, []) }, deadline: plane.deadline)
            }
            await first.close()
            let (second, third) = (plane.twin(spare), plane.twin(spare))
            #expect(try await number("SELECT pg_backend_pid()", second) == process)
            #expect(try await number("SELECT pg_backend_pid()", third) != process)
            #expect(
                try await number(
                    """
                    SELECT count(*)::int4 FROM pg_locks
                    WHERE locktype = 'advisory' AND pid = pg_backend_pid()
                    """, second) == 0)
            #expect(
                try await number(
                    """
                    SELECT count(*)::int4 FROM pg_settings
                    WHERE name = 'statement_timeout' AND setting = '12345'
                    """, second) == 0)
            await second.close()
            await third.close()
            spare.close()
        }
    }

    @Test("one whose server has ended it is not handed on")
    func ended() async throws {
        try await withWaveGround(shards: 1) { ground in
            let (plane, spare) = (ground.plane(), SpareConnections())
            let first = plane.twin(spare)
            let process = try await number("SELECT pg_backend_pid()", first)
            await first.close()
            try await ground.psql(
                ground.shards[0].superuser, "SELECT pg_terminate_backend(\(process), 10000)")
            let second = plane.twin(spare)
            #expect(try await number("SELECT pg_backend_pid()", second) != process)
            await second.close()
            spare.close()
        }
    }
}
