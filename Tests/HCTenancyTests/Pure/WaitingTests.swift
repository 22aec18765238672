import HCCore
import HCIO
import HCTesting
import Testing

@testable import HCTenancy

@Suite("Waiting has bounds", .onLoop)
@LoopActor
struct WaitingTests {
    private let one = Sample.tenant(1)
    private let two = Sample.tenant(2)

    private func after(_ duration: Duration) -> Deadline { .after(duration, from: Loop.now) }

    // MARK: Parking

    @Test("so many of a clinic may park, and a change wakes them all")
    func parking() async throws {
        let lot = ParkingLot()
        let limit = after(.seconds(30))
        let parked = (0..<2).map { _ in
            Loop.shared.makeTask {
                try await lot.park(one, limit: 2, until: limit)
            }
        }
        while lot.count < 2 { try await Loop.shared.sleep(for: .milliseconds(1)) }
        #expect(try await !lot.park(one, limit: 2, until: limit), "the lot of this clinic is full")
        lot.wake([two])
        #expect(lot.count == 2)
        lot.wake([one])
        for task in parked { #expect(try await task.value) }
        #expect(lot.count == 0)
        #expect(!limit.isExpired(at: Loop.now), "woken, not given up")
        #expect(try await lot.park(one, limit: 2, until: after(.milliseconds(1))), "nobody woke it")
        #expect(lot.count == 0)
    }

    @Test("a parked request that is cancelled leaves its place")
    func cancelledParking() async throws {
        let lot = ParkingLot()
        let limit = after(.seconds(30))
        let parked = Loop.shared.makeTask {
            try await lot.park(one, limit: 1, until: limit)
        }
        while lot.count < 1 { try await Loop.shared.sleep(for: .milliseconds(1)) }
        parked.cancel()
        await #expect(throws: CancellationError.self) { try await parked.value }
        #expect(lot.count == 0)
    }

    // MARK: Group commit

    private func row() throws -> AuditRow {
        let master = try Sample.master()
        let keys = try TenantKeys(
            of: one, wrapped: try WrappedKey.makeSet(for: one, master: master), master: master)
        return try AuditRow(
            AuditEvent(actor: .system, action: "read", entity: "patient", requestID: "r"),
            at: .epoch, keys: keys)
    }

    @Test("rows that come while a commit is under way are committed together next")
    func groups() async throws {
        var batches: [Int] = []
        let begun = Waiter<Void>()
        let released = Waiter<Void>()
        let committer = AuditCommitter(metrics: Sample.metrics) { _, rows, _ in
            batches.append(rows.count)
            if batches.count == 1 {
                begun.succeed(())
                try await released.wait(until: .never)
            }
        }
        let row = try row()
        let limit = after(.seconds(30))
        let first = Loop.shared.makeTask {
            try await committer.record(row, of: one, deadline: limit)
        }
        try await begun.wait(until: limit)
        let others = (0..<10).map { _ in
            Loop.shared.makeTask {
                try await committer.record(row, of: one, deadline: limit)
            }
        }
        // Another clinic does not wait for this one.
        try await committer.record(row, of: two, deadline: limit)
        released.succeed(())
        try await first.value
        for other in others { try await other.value }
        #expect(batches == [1, 1, 10])
        #expect(committer.activeCount == 0)
    }

    @Test("when a commit fails all its reads are refused, and the next group is tried on its own")
    func failure() async throws {
        var commits = 0
        let committer = AuditCommitter(metrics: Sample.metrics) { _, _, _ in
            commits += 1
            if commits == 1 { throw TenancyError.outcomeUnknown }
        }
        let row = try row()
        let limit = after(.seconds(30))
        await #expect(throws: TenancyError.auditUnavailable(retryAfter: .seconds(1))) {
            try await committer.record(row, of: one, deadline: limit)
        }
        try await committer.record(row, of: one, deadline: limit)
        #expect(commits == 2)
    }

    @Test("a full queue refuses at once")
    func fullQueue() async throws {
        var limits = AuditCommitter.Limits()
        limits.waitingMax = 3
        let released = Waiter<Void>()
        let committer = AuditCommitter(limits: limits, metrics: Sample.metrics) { _, _, _ in
            if released.isPending { try await released.wait(until: .never) }
        }
        let row = try row()
        let limit = after(.seconds(30))
        var refused = 0
        let tasks = (0..<8).map { _ in
            Loop.shared.makeTask {
                do {
                    try await committer.record(row, of: one, deadline: limit)
                } catch {
                    #expect((error as? TenancyError)?.code == "audit-unavailable")
                    refused += 1
                }
            }
        }
        while refused < 2 { try await Loop.shared.sleep(for: .milliseconds(1)) }
        released.succeed(())
        for task in tasks { await task.value }
        #expect((2...5).contains(refused))
    }
}
