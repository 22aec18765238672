import Testing

@testable import HCControl

@Suite struct PlacementPolicyTests {
    private func candidate(
        _ id: String, open: Bool = true, capacity: Int = 100, used: Int, tenants: Int = 0
    ) -> PlacementPolicy.Candidate {
        .init(id: id, isOpen: open, capacity: capacity, used: used, tenants: tenants)
    }

    @Test("a new clinic goes to the open shard with most room")
    func mostRoom() {
        let shards = [
            candidate("s1", used: 40), candidate("s2", used: 20),
            candidate("s3", open: false, used: 0),
        ]
        #expect(PlacementPolicy.choose(from: shards, weight: 1)?.id == "s2")
    }

    @Test("room is a share of the capacity, not a count")
    func share() {
        let shards = [
            candidate("big", capacity: 1000, used: 300), candidate("small", capacity: 10, used: 4),
        ]
        #expect(PlacementPolicy.choose(from: shards, weight: 1)?.id == "big")
    }

    @Test("a tie goes to the shard with fewer clinics, then to the lower id")
    func ties() {
        let shards = [candidate("s2", used: 1, tenants: 1), candidate("s1", used: 1, tenants: 1)]
        #expect(PlacementPolicy.choose(from: shards, weight: 1)?.id == "s1")
        let uneven = [candidate("s1", used: 1, tenants: 2), candidate("s2", used: 1, tenants: 1)]
        #expect(PlacementPolicy.choose(from: uneven, weight: 1)?.id == "s2")
    }

    @Test("a hundred empty clinics spread evenly")
    func even() {
        var shards = (1...4).map { candidate("s\($0)", used: 0) }
        for _ in 0..<100 {
            guard let chosen = PlacementPolicy.choose(from: shards, weight: 1),
                let index = shards.firstIndex(of: chosen)
            else { return #expect(Bool(false), "no shard was chosen") }
            shards[index].used += 1
            shards[index].tenants += 1
        }
        #expect(shards.map(\.tenants) == [25, 25, 25, 25])
    }

    @Test("full shards are not filled further")
    func full() {
        #expect(PlacementPolicy.choose(from: [candidate("s1", used: 100)], weight: 1) == nil)
        #expect(PlacementPolicy.choose(from: [candidate("s1", used: 96)], weight: 5) == nil)
        #expect(PlacementPolicy.choose(from: [candidate("s1", used: 95)], weight: 5)?.id == "s1")
    }
}

@Suite struct SlugTests {
    @Test(
        "a slug is one clean hostname label",
        arguments: [
            "sunrise", "hill-view", "a1b", "clinic-42", "abcdefghijklmnopqrstuvwxyzabcdefghijklmn",
        ])
    func good(text: String) throws {
        #expect(try Slug(text).text == text)
    }

    @Test(
        "anything else is refused with its reason",
        arguments: [
            "", "ab", "Sunrise", "sun rise", "-sun", "sun-", "su--n", "1sun", "sün", "www", "api",
            "a.b",
            "sun\0rise", "a'; drop table tenant; --", "abcdefghijklmnopqrstuvwxyzabcdefghijklmno",
        ])
    func bad(text: String) {
        #expect(throws: ControlError.self) { try Slug(text) }
    }
}
