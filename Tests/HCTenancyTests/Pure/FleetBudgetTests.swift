import HCTesting
import Testing

@testable import HCTenancy

@Suite("Connections of the whole fleet")
struct FleetBudgetTests {
    private func server(_ identity: String, _ most: Int) -> FleetBudget.Server {
        FleetBudget.Server(identity: identity, connectionsMax: most, reserved: 3)
    }

    private func shard(
        _ name: String, limit: Int?, dedicated: Int = 0, server: FleetBudget.Server? = nil
    ) -> FleetBudget.Database {
        FleetBudget.Database(
            name: name, perProcess: 8, dedicated: dedicated, perCommand: 3, limit: limit,
            server: server)
    }

    private func budget(_ databases: [FleetBudget.Database]) -> FleetBudget {
        FleetBudget(
            fleet: .init(pods: 2, workersPerPod: 4, jobsPerPod: 1), reserve: 10,
            databases: databases)
    }

    @Test("workers, successors, jobs and commands count, and the reserve is not for them")
    func sum() {
        // 2 pods of 4 workers, a successor and a job: 12 processes of 8, and 2 commands of 3.
        let budget = budget([
            shard("s1", limit: 112), shard("s2", limit: 111), shard("s3", limit: nil),
        ])
        #expect(budget.fleet.processes == 12)
        #expect(budget.lines.map(\.needed) == [102, 102, 102])
        #expect(budget.lines.map(\.fits) == [true, false, true])
        #expect(budget.problems.count == 1 && budget.problems[0].hasPrefix("s2 can give 101 "))
    }

    @Test("connections that clinics have for themselves count in every process")
    func dedicated() {
        let budget = budget([shard("s1", limit: 112 + 36, dedicated: 3)])
        #expect(budget.lines[0].dedicated == 36 && budget.lines[0].fits)
        #expect(!self.budget([shard("s1", limit: 111 + 36, dedicated: 3)]).problems.isEmpty)
    }

    @Test(
        "databases of one server share its connections, and what it keeps for superusers is not theirs"
    )
    func servers() {
        let one = server("one", 204 + 13)
        let fits = budget([
            shard("s1", limit: 500, server: one), shard("s2", limit: 500, server: one),
            shard("s3", limit: 500, server: server("two", 115)),
        ])
        #expect(fits.lines.count == 5)
        #expect(fits.problems.isEmpty)
        let tight = server("one", 204 + 12)
        let problems = budget([
            shard("s1", limit: 500, server: tight), shard("s2", limit: 500, server: tight),
        ]).problems
        #expect(problems.count == 1 && problems[0].hasPrefix("server of s1, s2 can give 203 "))
    }

    @Test("the platform's own contradiction is refused: 200 pods of 150 connections on 500")
    func contradiction() {
        let budget = FleetBudget(
            fleet: .init(pods: 200, workersPerPod: 1), reserve: 10,
            databases: [
                .init(
                    name: "s1", perProcess: 150, perCommand: 3, limit: 500,
                    server: server("one", 500))
            ])
        #expect(budget.problems.count == 2)
        #expect(budget.problems[0].contains("At most 1 shared ones fit per process"))
    }

    @Test(
        "what is said to fit per process does fit, and one more does not",
        arguments: 1...20 as ClosedRange<UInt64>)
    func advice(seed: UInt64) throws {
        var random = SeededRandom(seed: seed)
        for _ in 0..<50 {
            var budget = FleetBudget(
                fleet: .init(
                    pods: .random(in: 1...50, using: &random),
                    workersPerPod: .random(in: 1...8, using: &random),
                    jobsPerPod: .random(in: 0...2, using: &random)), reserve: 10,
                databases: [
                    .init(
                        name: "s1", perProcess: 400, dedicated: .random(in: 0...2, using: &random),
                        perCommand: 3, limit: .random(in: 50...5000, using: &random), server: nil)
                ])
            guard let problem = budget.problems.first,
                let number = problem.split(separator: "At most ", maxSplits: 1).dropFirst().first?
                    .split(separator: " ").first.flatMap({ Int($0) })
            else { continue }
            budget.databases[0].perProcess = number
            #expect(budget.problems.isEmpty, "seed \(seed)")
            budget.databases[0].perProcess = number + 1
            #expect(!budget.problems.isEmpty, "seed \(seed)")
        }
    }
}
