import HCCore
import HCTesting
import Testing

@testable import HCTenancy

/// Events whose sequence is their number.
private func event(_ number: Int64, _ topics: [String] = ["a"], id: UInt64? = nil) -> TenantEvent {
    TenantEvent(
        id: UUID(high: 9, low: id ?? UInt64(number)), sequence: place(number), name: "x.happened",
        topics: topics, entity: UUID(high: 8, low: UInt64(number)), version: number,
        at: Timestamp(seconds: number))
}

private func place(_ number: Int64) -> EventSequence {
    guard let place = EventSequence(number) else { preconditionFailure("no place: \(number)") }
    return place
}

@Suite("Events: along a stream")
struct FeedMachineTests {
    private func entry(
        _ number: Int64, after previous: Int64, id: UInt64? = nil
    ) -> StreamEntry {
        StreamEntry(sequence: place(number), previous: previous, event: event(number, id: id))
    }

    @Test("each entry names the one before: what is missing is noticed, once")
    func gaps() {
        var machine = FeedMachine(position: place(10), recentMax: 8)
        expectEqual(machine.take(entry(11, after: 10)), .event(event(11)))
        expectEqual(machine.take(entry(15, after: 13)), .gap(then: event(15)))
        expectEqual(machine.take(entry(16, after: 15)), .event(event(16)))
        #expect(machine.position == place(16))
    }

    @Test("what was seen is nothing, and an id that comes again is nothing")
    func repeats() {
        var machine = FeedMachine(position: place(10), recentMax: 8)
        expectEqual(machine.take(entry(11, after: 10)), .event(event(11)))
        expectEqual(machine.take(entry(11, after: 10)), .nothing)
        expectEqual(machine.take(entry(9, after: 8)), .nothing)
        expectEqual(machine.take(entry(12, after: 11, id: 11)), .nothing)
        #expect(machine.position == place(12))
        expectEqual(machine.take(entry(13, after: 12)), .event(event(13)))
    }

    @Test("a mark is a gap, whatever stands before it")
    func marks() {
        var machine = FeedMachine(position: place(10), recentMax: 8)
        let mark = StreamEntry(sequence: place(20), previous: 0, event: nil)
        expectEqual(machine.take(mark), .gap(then: nil))
        expectEqual(machine.take(entry(21, after: 20)), .event(event(21)))
    }

    @Test("an entry of another version of this program is no gap")
    func unknownEntries() throws {
        var machine = FeedMachine(position: place(10), recentMax: 8)
        let other = try #require(StreamEntry(number: 11, text: "10|something|new"))
        expectEqual(machine.take(other), .nothing)
        expectEqual(machine.take(entry(12, after: 11)), .event(event(12)))
    }

    @Test("only the last ids are remembered")
    func remembered() {
        var ids = RecentIDs(capacityMax: 2)
        let all = (1...3).map { UUID(high: 1, low: $0) }
        for id in all { expectEqual(ids.insert(id), true) }
        expectEqual(ids.insert(all[2]), false)
        expectEqual(ids.insert(all[1]), false)
        expectEqual(ids.insert(all[0]), true)
    }
}

@Suite("Events: entries")
struct StreamEntryTests {
    @Test("an event is read as it was written")
    func roundTrip() throws {
        let payload: JSONObject = [
            "id": "018f0000-0000-7000-8000-000000000001", "version": 7,
            "topics": ["calendar:x", "patient:y"],
        ]
        let row = OutboxRow(
            id: UUID(high: 1, low: 2), name: "appointment.booked", payload: payload,
            at: Timestamp(microseconds: 1_780_000_000_000_001))
        let entry = try #require(StreamEntry(number: 99, text: "98|" + StreamEntry.text(of: row)))
        #expect(entry.previous == 98)
        let event = try #require(entry.event)
        #expect(event.id == row.id)
        #expect(event.sequence == place(99))
        #expect(event.name == "appointment.booked")
        #expect(event.topics == ["calendar:x", "patient:y"])
        #expect(event.entity.description == "018f0000-0000-7000-8000-000000000001")
        #expect(event.version == 7)
        #expect(event.at == row.at)
    }

    @Test(
        "what is no entry is none",
        arguments: ["", "x", "|", "-1|", "x|y", "99999999999999999999|"])
    func garbage(text: String) {
        #expect(StreamEntry(number: 1, text: text) == nil)
    }

    @Test("places are numbers that JavaScript can hold")
    func places() {
        #expect(EventSequence(0) == nil)
        #expect(EventSequence(-1) == nil)
        #expect(EventSequence(1 << 53) == nil)
        #expect(EventSequence((1 << 53) - 1) != nil)
    }

    @Test("a chain without its first, a middle or with a mark is none")
    func chains() {
        func entry(_ number: Int64, _ previous: Int64) -> StreamEntry {
            StreamEntry(sequence: place(number), previous: previous, event: event(number))
        }
        let whole = [entry(2, 1), entry(5, 2), entry(6, 5)]
        #expect(StreamEntry.isChain(whole, from: place(1)))
        #expect(StreamEntry.isChain([], from: place(1)))
        #expect(!StreamEntry.isChain(Array(whole.dropFirst()), from: place(1)))
        #expect(!StreamEntry.isChain([whole[0], whole[2]], from: place(1)))
        #expect(!StreamEntry.isChain([whole[0], entry(7, 0)], from: place(1)))
    }
}

@Suite("Events: who follows what")
struct SubscriptionTableTests {
    private typealias Table = SubscriptionTable<String>

    private func deliveries(_ list: [Table.Delivery]) -> Set<Table.Delivery> { Set(list) }
    private func to(_ subscriber: String, _ topic: String = "a") -> Table.Delivery {
        Table.Delivery(subscriber: subscriber, topic: topic)
    }

    @Test("an event reaches those who follow one of its topics, by each that they follow")
    func topics() {
        var table = Table(heldMax: 8)
        for (who, topic) in [("x", "a"), ("y", "b"), ("z", "a"), ("z", "b"), ("w", "c")] {
            table.begin(who, topic)
            expectEqual(
                table.finish(who, topic, .fresh(place(1))), .init(events: [], isBroken: false))
        }
        let both = event(2, ["a", "b"])
        #expect(table.audience(of: both) == ["x", "y", "z"])
        #expect(
            deliveries(table.arrive(both)) == [to("x"), to("y", "b"), to("z"), to("z", "b")])
        #expect(table.arrive(both).isEmpty)
        #expect(table.audience(of: both).isEmpty)
    }

    @Test("what comes while a replay is on its way is given after it, and nothing twice")
    func heldBehindReplay() {
        var table = Table(heldMax: 8)
        table.begin("x", "a")
        for number: Int64 in 3...6 { #expect(table.arrive(event(number)).isEmpty) }
        // The replay ends in the middle of what was held.
        let missed = (1...4).map { event(Int64($0)) }
        expectEqual(
            table.finish("x", "a", .replay(missed, upTo: place(4))),
            .init(events: (1...6).map { event(Int64($0)) }, isBroken: false))
        #expect(table.arrive(event(6)).isEmpty)
        #expect(deliveries(table.arrive(event(7))) == [to("x")])
    }

    @Test("a replay that is ahead of the feed is not given again by it")
    func replayAhead() {
        var table = Table(heldMax: 8)
        table.begin("x", "a")
        let missed = (1...5).map { event(Int64($0)) }
        expectEqual(
            table.finish("x", "a", .replay(missed, upTo: place(5))),
            .init(events: missed, isBroken: false))
        for number: Int64 in 1...5 { #expect(table.arrive(event(number)).isEmpty) }
        #expect(deliveries(table.arrive(event(6))) == [to("x")])
    }

    @Test("of a replay only the topic's own events are given")
    func replayOfTopic() {
        var table = Table(heldMax: 8)
        table.begin("x", "a")
        let missed = [event(1, ["b"]), event(2, ["b", "a"]), event(3, ["c"])]
        expectEqual(
            table.finish("x", "a", .replay(missed, upTo: place(3))),
            .init(events: [missed[1]], isBroken: false))
    }

    @Test("who begins afresh hears nothing from before")
    func fresh() {
        var table = Table(heldMax: 8)
        table.begin("x", "a")
        #expect(table.arrive(event(3)).isEmpty)
        #expect(table.arrive(event(5)).isEmpty)
        expectEqual(
            table.finish("x", "a", .fresh(place(4))), .init(events: [event(5)], isBroken: false))
    }

    @Test("more than can be held is a gap")
    func heldOverflow() {
        var table = Table(heldMax: 2)
        table.begin("x", "a")
        for number: Int64 in 1...4 { #expect(table.arrive(event(number)).isEmpty) }
        expectEqual(
            table.finish("x", "a", .fresh(place(1))), .init(events: [event(4)], isBroken: true))
        // Unless it lies before the beginning.
        table.begin("y", "a")
        for number: Int64 in 5...8 { _ = table.arrive(event(number)) }
        expectEqual(
            table.finish("y", "a", .fresh(place(9))), .init(events: [], isBroken: false))
    }

    @Test("a gap is told to all who follow, and to those who are joining when they have joined")
    func breaks() {
        var table = Table(heldMax: 8)
        table.begin("x", "a")
        _ = table.finish("x", "a", .fresh(place(1)))
        table.begin("y", "a")
        #expect(deliveries(table.breakAll(at: place(5))) == [to("x")])
        #expect(table.arrive(event(4)).isEmpty)
        #expect(deliveries(table.arrive(event(6))) == [to("x")])
        expectEqual(
            table.finish("y", "a", .replay([event(2)], upTo: place(2))),
            .init(events: [event(2), event(6)], isBroken: true))
    }

    @Test("who has left hears nothing, also when the replay comes after that")
    func leaving() {
        var table = Table(heldMax: 8)
        table.begin("x", "a")
        table.leave("x")
        expectEqual(table.finish("x", "a", .fresh(place(1))), nil)
        table.begin("y", "a")
        table.begin("y", "b")
        _ = table.finish("y", "a", .fresh(place(1)))
        _ = table.finish("y", "b", .fresh(place(1)))
        expectEqual(table.leave("y", "a"), true)
        expectEqual(table.leave("y", "a"), false)
        #expect(deliveries(table.arrive(event(2, ["a", "b"]))) == [to("y", "b")])
        table.leave("y")
        #expect(table.isEmpty)
        #expect(table.arrive(event(3, ["a", "b"])).isEmpty)
    }

    @Test("whatever order events, replays and gaps come in, nobody hears twice or misses untold")
    func random() {
        for seed: UInt64 in 1...300 {
            var random = SeededRandom(seed: seed)
            var table = Table(heldMax: 4)
            var heard: [Int64] = []
            var isBroken = false
            var isLive = false
            let begin = Int64.random(in: 0...5, using: &random)
            var last: Int64 = 5
            var window: (after: Int64, end: Int64)?
            for _ in 0..<40 {
                switch Int.random(in: 0..<6, using: &random) {
                case 0 where !isLive && window == nil:
                    table.begin("x", "a")
                    window = (max(begin, 1), last)
                case 1 where !isLive && window != nil:
                    guard let asked = window else { continue }
                    let missed =
                        asked.after < asked.end
                        ? ((asked.after + 1)...asked.end).map { event($0) } : []
                    guard
                        let joined = table.finish(
                            "x", "a", .replay(missed, upTo: place(asked.end)))
                    else { continue }
                    isLive = true
                    isBroken = joined.isBroken
                    heard += joined.events.map(\.sequence.number)
                default:
                    last += 1
                    let given = table.arrive(event(last))
                    if !given.isEmpty { heard.append(last) }
                }
            }
            #expect(heard == heard.sorted(), "seed \(seed)")
            #expect(Set(heard).count == heard.count, "seed \(seed)")
            if isLive, !isBroken {
                let from = max(begin, 1)
                #expect(heard == Array((from + 1)...max(from + 1, last)), "seed \(seed)")
            }
        }
    }
}
