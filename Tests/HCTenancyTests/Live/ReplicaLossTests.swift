import HCCore
import HCIO
import HCPostgres
import HCTesting
import Testing

@testable import HCTenancy

/// Servers of the tests' own, which they kill.
@Suite("When a replica or its primary dies", .onLoop, .serialized)
@LoopActor
struct ReplicaLossTests {
    @Test(
        "a dead replica costs nobody an answer: the primary gives it; and it is read again when it is back"
    )
    func replica() async throws {
        let services = try await offLoop { try LocalServices(shards: 1, replicas: true) }
        let replicated = try await ReplicatedPlatform.make(services: services)
        try await replicated.add("Dr Steady", try replicated.request())
        try await replicated.readUntilReplica()
        try await offLoop { try services.killReplica() }
        // Every read is answered, and sooner or later nobody asks the dead one any more.
        try await replicated.read { names in
            #expect(names == ["Dr Steady"])
            return replicated.fallbacks(.broken) > 0
        }
        try await offLoop { try services.restart() }
        try await replicated.readUntilReplica()
    }

    @Test(
        "without the primary a replica gives what is nobody's secret; patients' data nobody gets, for no access could be recorded"
    )
    func primary() async throws {
        let services = try await offLoop { try LocalServices(shards: 1, replicas: true) }
        let replicated = try await ReplicatedPlatform.make(services: services)
        let request = try replicated.request()
        try await replicated.add("Dr Steady", request)
        let token = try #require(await request.finishReading(deadline: replicated.deadline))
        // Until the replica is known to have it.
        let before = replicated.replicaReads
        let limit = replicated.deadline
        while replicated.replicaReads == before, !limit.isExpired(at: Loop.now) {
            _ = try await replicated.names(try replicated.request(after: token))
        }
        try await offLoop { try services.killPostgres() }

        for target in [ReadTarget.primaryUnlessLost, .replica, .primaryUnlessLost] {
            #expect(
                try await replicated.names(try replicated.request(), from: target) == ["Dr Steady"])
        }
        #expect(
            try await replicated.names(
                try replicated.request(after: token), from: .primaryUnlessLost) == ["Dr Steady"])
        try await untilLost(replicated)
        let refused = await #expect(throws: TenancyError.self) {
            try await replicated.names(try replicated.request(), from: .primary)
        }
        #expect(refused?.code == "shard-unavailable")
        for target in [ReadTarget.primaryUnlessLost, .replica] {
            var wasAsked = false
            let unrecorded = await #expect(throws: TenancyError.self) {
                try await replicated.request().readAudited(
                    [LivePlatform.allPractitioners], from: target, deadline: replicated.deadline
                ) { _ in
                    wasAsked = true
                    return LivePlatform.event("list")
                }
            }
            #expect(unrecorded?.code == "shard-unavailable")
            #expect(unrecorded?.retryAfter != nil)
            if target == .primaryUnlessLost {
                #expect(!wasAsked, "nothing was read that could not be given out")
            }
        }
        _ = try await replicated.names(try replicated.request(), from: .primaryUnlessLost)
        #expect(outageReads(replicated) > 0)
        let written = await #expect(throws: TenancyError.self) {
            try await replicated.add("Dr Nobody", try replicated.request())
        }
        #expect(written?.code == "shard-unavailable")

        try await offLoop { try services.restart() }
        try await replicated.read(from: .primary, retrying: "shard-unavailable") {
            $0 == ["Dr Steady"]
        }
        try await replicated.readUntilReplica()
    }

    @Test(
        "a replica that lacks the reader's own write does not stand in for the primary that is lost"
    )
    func ownWriteLost() async throws {
        let services = try await offLoop { try LocalServices(shards: 1, replicas: true) }
        let replicated = try await ReplicatedPlatform.make(services: services)
        try await replicated.readUntilReplica()
        try await replicated.pause()
        let request = try replicated.request()
        try await replicated.add("Dr Unseen", request)
        let token = try #require(await request.finishReading(deadline: replicated.deadline))
        try await offLoop { try services.killPostgres() }
        try await untilLost(replicated)
        let refused = await #expect(throws: TenancyError.self) {
            try await replicated.names(
                try replicated.request(after: token), from: .primaryUnlessLost)
        }
        #expect(refused?.code == "shard-unavailable")
        #expect(
            try await replicated.names(try replicated.request(), from: .primaryUnlessLost) == [],
            "who wrote nothing gets what there is")
    }

    @Test("a replica that is promoted is no replica any more")
    func promoted() async throws {
        let services = try await offLoop { try LocalServices(shards: 1, replicas: true) }
        let replicated = try await ReplicatedPlatform.make(services: services)
        try await replicated.add("Dr Steady", try replicated.request())
        try await replicated.read { $0 == ["Dr Steady"] && replicated.replicaReads > 0 }
        try await replicated.onReplica("SELECT pg_promote()")
        try await replicated.onReplica("UPDATE practitioner SET name = 'Dr Split'")
        let before = replicated.replicaReads
        for _ in 0..<50 {
            #expect(try await replicated.names(try replicated.request()) == ["Dr Steady"])
        }
        #expect(replicated.replicaReads == before)
        try await replicated.read { _ in replicated.platform.metrics.identityRefusals.value > 0 }
    }

    /// The server's sessions outlive their parent for a moment and may still answer.
    private func untilLost(_ replicated: ReplicatedPlatform) async throws {
        let limit = replicated.deadline
        while !limit.isExpired(at: Loop.now) {
            do {
                _ = try await replicated.names(try replicated.request(), from: .primary)
            } catch let error as TenancyError {
                #expect(error.code == "shard-unavailable")
                return
            }
        }
        Issue.record("the primary still answers")
    }

    private func outageReads(_ replicated: ReplicatedPlatform) -> Int {
        let family = replicated.platform.registry.snapshot().families[
            "hc_replica_outage_reads_total"]
        return (family?.samples ?? [:]).values.reduce(0) { sum, value in
            guard case .counter(let count) = value else { return sum }
            return sum + Int(count)
        }
    }
}
