import HCCore
import HCTesting
import Testing

@testable import HCTenancy

@Suite("Cached sessions")
struct SessionTests {
    private let entry = SessionEntry(
        accountID: UUID(high: 1, low: 2), roles: ["doctor", "admin"],
        expiresAt: Timestamp(seconds: 1_800_000_000))

    @Test("an entry is read as it was written")
    func text() {
        let text = SessionText.encode(entry, asOf: 17)
        #expect(SessionText.decode(Array(text.utf8)) == .entry(entry, asOf: 17))
        #expect(SessionText.decode(Array("revoked".utf8)) == .revoked)
        let without = entry.with(roles: [])
        #expect(
            SessionText.decode(Array(SessionText.encode(without, asOf: 1).utf8))
                == .entry(without, asOf: 1))
    }

    @Test(
        "what is no entry admits nobody",
        arguments: [
            "", "1", "1|2|3|4|5", "2|1|1|\(UUID.zero)|a", "1|x|1|\(UUID.zero)|a", "REVOKED",
            "1|2|changed",
        ])
    func malformed(text: String) {
        #expect(SessionText.decode(Array(text.utf8)) == .malformed)
    }

    @Test("entries from before the connection are not believed")
    func trust() {
        var trust = SessionTrust()
        let first = MonotonicTime(nanoseconds: 1)
        let second = MonotonicTime(nanoseconds: 2)
        #expect(!trust.believes(100))
        trust.answered(on: first, now: 50)
        #expect(!trust.believes(49))
        #expect(trust.believes(50))
        trust.answered(on: first, now: 60)
        #expect(trust.believes(50), "the same connection still stands")
        trust.answered(on: second, now: 70)
        #expect(!trust.believes(50), "Redis was away in between")
        #expect(trust.believes(71))
    }

    @Test("tombstones are delivered in order, and dropped when they are moot")
    func tombstones() {
        var queue = TombstoneQueue(capacityMax: 2, ageMax: .seconds(90))
        func tombstone(_ key: String, _ seconds: Int64) -> TombstoneQueue.Tombstone {
            TombstoneQueue.Tombstone(
                key: key, since: MonotonicTime(nanoseconds: seconds * 1_000_000_000))
        }
        expectEqual(queue.add(tombstone("a", 0)), nil)
        expectEqual(queue.add(tombstone("b", 60)), nil)
        expectEqual(queue.add(tombstone("c", 80)), tombstone("a", 0), "the oldest makes room")
        let now = MonotonicTime(nanoseconds: 155_000_000_000)
        expectEqual(queue.next(at: now), tombstone("c", 80), "b is older than any entry can be")
        queue.delivered(tombstone("b", 60))
        #expect(queue.count == 1)
        queue.delivered(tombstone("c", 80))
        #expect(queue.isEmpty)
    }
}

extension SessionEntry {
    func with(roles: [String]) -> SessionEntry {
        SessionEntry(accountID: accountID, roles: roles, expiresAt: expiresAt)
    }
}
