import HCCore
import HCIO
import HCPostgres
import HCTesting
import Testing

@testable import HCControl

@Suite("What servers have answered")
struct ServerHealthTests {
    static func text(good: Int, bad: Int, slow: Int = 0) -> String {
        """
        # HELP hc_http_responses_total Answers by status.
        # TYPE hc_http_responses_total counter
        hc_http_responses_total{status="200"} \(good)
        hc_http_responses_total{status="404"} 0
        hc_http_responses_total{status="500"} 0
        hc_http_responses_total{status="503"} \(bad)
        hc_http_request_seconds_bucket{lane="care",route="a",le="0.1"} \(good + bad - slow)
        hc_http_request_seconds_bucket{lane="care",route="a",le="1.5"} \(good + bad)
        hc_http_request_seconds_bucket{lane="care",route="a",le="+Inf"} \(good + bad)
        hc_http_request_seconds_count{lane="care",route="a"} \(good + bad)
        hc_http_requests_total 1000000
        """
    }

    private func health(good: Int, bad: Int, slow: Int = 0) throws -> ServerHealth {
        try #require(ServerHealth(metrics: Self.text(good: good, bad: bad, slow: slow)))
    }

    @Test("is read from their metrics, over all statuses and routes")
    func metrics() throws {
        let one = try health(good: 90, bad: 10, slow: 6)
        #expect(one.responses == 100 && one.failures == 10 && one.p95 == .milliseconds(1500))
        let both = try one + health(good: 100, bad: 0)
        #expect(both.responses == 200 && both.failures == 10 && both.p95 == .milliseconds(100))
        #expect(ServerHealth(metrics: "up 1\n# nothing of ours") == nil)
        #expect(
            try #require(ServerHealth(metrics: #"hc_http_responses_total{status="200"} 0"#)).p95
                == nil)
    }

    @Test("counts what came between, and from the start of a server that was started anew")
    func between() throws {
        let before = try health(good: 1000, bad: 500, slow: 900)
        let after = try health(good: 1100, bad: 501, slow: 900)
        let between = after.since(before)
        #expect(between.responses == 101 && between.failures == 1)
        #expect(between.p95 == .milliseconds(100))
        #expect(try health(good: 30, bad: 0).since(before).responses == 30)
    }

    @Test(
        "is judged by the bounds, where there is enough of it",
        arguments: [
            (99, 1, 0, nil), (98, 2, 0, "2 of 100 answers failed"), (0, 19, 0, nil),
            (0, 20, 0, "20 of 20 answers failed"), (100, 0, 5, nil),
            (100, 0, 6, "took up to 1500 ms, and not 500 ms"), (0, 0, 0, nil),
        ] as [(Int, Int, Int, String?)])
    func bounds(good: Int, bad: Int, slow: Int, problem: String?) throws {
        let found = HealthBounds().problem(of: try health(good: good, bad: bad, slow: slow))
        #expect((found == nil) == (problem == nil))
        #expect(problem.map { found?.contains($0) == true } ?? true, "\(found ?? "")")
    }
}

@Suite("Between two waves the servers are well", .onLoop, .serialized)
@LoopActor
struct HealthGateTests {
    private static let additive = "ALTER TABLE cache_tag ADD COLUMN later text"

    /// Says one thing after the other; the last again and again.
    @LoopActor
    private final class Servers {
        var answers: [ServerHealth?]
        init(_ answers: [(good: Int, bad: Int)?]) {
            self.answers = answers.map { answer in
                answer.flatMap {
                    ServerHealth(metrics: ServerHealthTests.text(good: $0.good, bad: $0.bad))
                }
            }
        }

        func look() throws -> ServerHealth {
            let answer = answers.count > 1 ? answers.removeFirst() : answers[0]
            guard let answer else {
                throw ControlError(.failed, code: "health-unknown", "nobody answers")
            }
            return answer
        }
    }

    private func waves(_ ground: WaveGround, _ servers: Servers) -> WaveRunner {
        var options = WaveRunner.Options()
        var bounds = HealthBounds()
        bounds.watch = .milliseconds(1)
        options.health = .init(bounds: bounds) { try servers.look() }
        return WaveRunner(
            plane: ground.plane(), catalog: ground.catalog(adding: Self.additive), options: options)
    }

    @Test("errors after the canary halt the run; when they are over it goes on")
    func errors() async throws {
        try await withWaveGround(shards: 4) { ground in
            let count = ground.catalog.shard.count
            let servers = Servers([(1000, 900), (1100, 905)])
            let error = await waveFailure { _ = try await waves(ground, servers).up() }
            #expect(error?.code == "rollout-halted")
            #expect(error?.message.contains("wave 1 (unhealthy)") == true)
            #expect(error?.message.contains("5 of 105 answers failed") == true)
            let versions = try await ground.versions()
            #expect(versions == [count + 1, count, count, count])
            let halted = try await RolloutStore(plane: ground.plane()).last()
            #expect(halted?.state == .halted && halted?.failedShards == ["wave 1"])
            #expect(halted?.problem?.contains("since wave 1 began 5 of 105 answers failed") == true)
            #expect(try await waves(ground, Servers([(2000, 905)])).up().count == 3)
            #expect(try await RolloutStore(plane: ground.plane()).last()?.state == .done)
        }
    }

    @Test("each wave is judged by what came since the one before")
    func later() async throws {
        try await withWaveGround(shards: 4) { ground in
            let count = ground.catalog.shard.count
            // Before the run, after the canary, after the second wave, after the last.
            let servers = Servers([(0, 0), (1000, 0), (1050, 50), (1050, 50)])
            let error = await waveFailure { _ = try await waves(ground, servers).up() }
            #expect(error?.message.contains("wave 2 (unhealthy)") == true)
            #expect(error?.message.contains("50 of 100 answers failed") == true)
            let versions = try await ground.versions()
            #expect(versions == Array(repeating: count + 1, count: 4))
        }
    }

    @Test("servers that do not answer before the run let nothing begin, and after a wave halt it")
    func silent() async throws {
        try await withWaveGround(shards: 3) { ground in
            let count = ground.catalog.shard.count
            let before = await waveFailure { _ = try await waves(ground, Servers([nil])).up() }
            #expect(before?.code == "health-unknown")
            let begun = try await RolloutStore(plane: ground.plane()).last()
            #expect(begun == nil)
            let after = await waveFailure {
                _ = try await waves(ground, Servers([(1, 0), nil])).up()
            }
            #expect(after?.message.contains("wave 1 (health-unknown)") == true)
            #expect(try await ground.versions() == [count + 1, count, count])
        }
    }

    @Test("of a server each wave asks once; its copy has not been asked")
    func calm() async throws {
        try await withWaveGround(shards: 1) { ground in
            let plane = ground.plane()
            let shard = try await ShardRegistry(plane: plane).find("s01")
            let waits = LockWaits(above: .seconds(2))
            let question = try #require(waits.question(with: shard))
            #expect(waits.question(with: shard) == nil)
            let here = LockWaits.Server(systemIdentifier: shard.systemIdentifier, startedAt: 1)
            #expect(!waits.isCalm(here))
            try waits.note(
                await plane.shard(reference: shard.reference, .owner).execute(
                    question, deadline: plane.deadline), of: here)
            #expect(waits.isCalm(here))
            #expect(!waits.isCalm(.init(systemIdentifier: here.systemIdentifier, startedAt: 2)))
        }
    }

    /// The server is asked with whichever of its shards is looked at first.
    @Test(
        "somebody who waits for a lock on a shard of the wave halts the run, and is named",
        arguments: [(1, true), (2, true), (3, true), (3, false)])
    func lockWaits(number: Int, isOneServer: Bool) async throws {
        try await withWaveGround(shards: 3) { ground in
            let count = ground.catalog.shard.count
            let shard = ground.id(number)
            let superuser = ground.shards[number - 1].superuser
            if !isOneServer {
                try await ground.psql(ground.control.owner, "UPDATE shard SET system_id = id")
            }
            try await ground.psql(
                superuser,
                """
                INSERT INTO hc_tenant (tenant_id, epoch, state)
                VALUES ('00000000-0000-7000-8000-000000000001', 1, 'rw')
                """)
            let take = "SELECT FROM hc_tenant FOR UPDATE"
            let holder = try await ground.session(superuser)
            let process = try await offLoop {
                try holder.run("BEGIN; \(take)")
                return try holder.run("SELECT pg_backend_pid()").text
            }
            let waiting = Loop.shared.makeTask { try await ground.psql(superuser, take) }
            let look =
                "SELECT count(*) FROM pg_locks WHERE NOT granted AND locktype = 'transactionid'"
            let deadline = ground.deadline
            while try await ground.psql(superuser, look) != "1" {
                try #require(!deadline.isExpired(at: Loop.now), "nobody waits")
            }
            var options = WaveRunner.Options()
            options.lockWaitMax = .zero
            // In their order: the server is asked over the second shard when somebody waits on the third.
            options.parallel = 1
            let runner = WaveRunner(
                plane: ground.plane(), catalog: ground.catalog(adding: Self.additive),
                options: options)
            let error = await waveFailure { _ = try await runner.up() }
            #expect(error?.message.contains("shard \(shard) (lock-waits)") == true)
            #expect(
                error?.message.contains("for transactionid, which process \(process) holds") == true
            )
            #expect(
                try await RolloutStore(plane: ground.plane()).last()?.failedShards == [shard])
            let wave = number == 1 ? 1 : 3
            #expect(
                try await ground.versions() == (1...3).map { $0 <= wave ? count + 1 : count })
            _ = try await offLoop { try holder.run("COMMIT") }
            _ = try await waiting.value
            let again = WaveRunner(
                plane: ground.plane(), catalog: ground.catalog(adding: Self.additive),
                options: .init())
            #expect(try await again.up().count == 3 - wave)
        }
    }
}
