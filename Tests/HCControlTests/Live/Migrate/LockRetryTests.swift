import HCCore
import HCCrypto
import HCIO
import HCTesting
import Testing

@testable import HCControl

@Suite("A migration asks for its locks for a moment at a time", .onLoop)
@LoopActor
struct LockRetryTests {
    private static func runner(_ ground: WaveGround, attempts: Int) -> MigrationRunner {
        var locks = LockRetry()
        locks.attemptsMax = attempts
        return MigrationRunner(
            plane: ground.plane(),
            catalog: ground.catalog(adding: "ALTER TABLE cache_tag ADD COLUMN later text"),
            locks: locks)
    }

    @Test(
        "behind a long transaction it gives up, names who holds the lock, and has changed nothing")
    func givesUp() async throws {
        try await withWaveGround(shards: 1) { ground in
            let reader = try await ground.session(ground.shards[0].owner)
            let holder = try await offLoop {
                try reader.run("BEGIN; LOCK cache_tag IN ACCESS SHARE MODE")
                return try reader.run("SELECT pg_backend_pid()").text
            }
            let error = await waveFailure {
                _ = try await Self.runner(ground, attempts: 5).upShards(dryRun: false)
            }
            #expect(error?.code == "migration-locked")
            #expect(error?.message.contains("in 5 attempts") == true)
            #expect(
                error?.message.contains("AccessExclusiveLock on cache_tag is held back by") == true)
            #expect(error?.message.contains("process \(holder) (hc_owner") == true)
            #expect(error?.message.contains("in a transaction of") == true)
            #expect(try await ground.versions() == [ground.catalog.shard.count])
            _ = try await offLoop { try reader.run("COMMIT") }
        }
    }

    @Test("it goes on as soon as the long transaction is over")
    func goesOn() async throws {
        try await withWaveGround(shards: 1) { ground in
            let reader = try await ground.session(ground.shards[0].owner)
            _ = try await offLoop { try reader.run("BEGIN; LOCK cache_tag IN ACCESS SHARE MODE") }
            let run = Loop.shared.makeTask {
                try await Self.runner(ground, attempts: 1000).upShards(dryRun: false)
            }
            // It was refused at least once: the statistics count what was rolled back.
            let refused = """
                SELECT count(*) FROM pg_stat_activity WHERE datname = current_database()
                    AND application_name = 'hc-admin' AND query LIKE '%pg_blocking_pids%'
                """
            let deadline = ground.deadline
            while try await ground.psql(ground.shards[0].superuser, refused) != "1" {
                try #require(!deadline.isExpired(at: Loop.now), "nobody waits")
            }
            _ = try await offLoop { try reader.run("COMMIT") }
            #expect(try await run.value.map(\.name) == ["later"])
            #expect(try await ground.versions() == [ground.catalog.shard.count + 1])
        }
    }

    @Test("pauses grow, are never the same for all, and stay within their bound")
    func pauses() {
        let locks = LockRetry()
        var random = SystemRandom()
        for attempt in 1...100 {
            let full = min(Duration.milliseconds(100) * (1 << min(attempt - 1, 5)), .seconds(2))
            let pause = locks.pause(after: attempt, using: &random)
            #expect(pause >= full / 2 - .milliseconds(1) && pause <= full, "attempt \(attempt)")
        }
        #expect(Set((0..<50).map { _ in locks.pause(after: 9, using: &random) }).count > 1)
    }
}
