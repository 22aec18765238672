import HCCore
import Testing

@testable import HCTenancy

@Suite("A program serves the shards whose schema it knows")
struct SchemaMachineTests {
    private static let range = SchemaRange(lowest: 5, highest: 7)
    private let start = MonotonicTime.zero

    private func machine(_ shards: [ShardRecord]) -> SchemaMachine {
        var machine = SchemaMachine(range: Self.range)
        _ = machine.follow(shards)
        return machine
    }

    private static func shard(
        _ id: String, _ state: SchemaState? = nil, timeline: Int = 1,
        _ door: ShardRecord.State = .open
    ) -> ShardRecord {
        ShardRecord(
            id: ShardID(id), reference: id, state: door,
            identity: ShardIdentity(
                systemIdentifier: "7", timeline: timeline, databaseOID: 16384),
            connectionLimit: 100, schema: state)
    }

    @Test(
        "what only adds is served; what is missing, and what was taken away, is not",
        arguments: [
            (4, 1, SchemaRefusal.behind(version: 4, lowest: 5)),
            (5, 1, nil), (7, 1, nil), (7, 7, nil),
            (9, 1, nil), (9, 7, nil),
            (9, 8, .ahead(servesFrom: 8, highest: 7)),
            (0, 1, .behind(version: 0, lowest: 5)),
        ] as [(Int, Int, SchemaRefusal?)])
    func rule(version: Int, servesFrom: Int, refusal: SchemaRefusal?) {
        let state = SchemaState(version: version, servesFrom: servesFrom)
        #expect(Self.range.refusal(of: state) == refusal)
    }

    @Test("what was seen counts more than what the map tells, which counts more than nothing")
    func precedence() {
        let old = SchemaState(version: 4)
        var machine = machine([Self.shard("s1"), Self.shard("s2", old), Self.shard("s3", old)])
        #expect(machine.refused.map(\.shard.text) == ["s2", "s3"])
        #expect(
            machine.saw(SchemaState(version: 5), of: ShardID("s2"), now: start)
                == .init(shard: ShardID("s2"), refusal: nil))
        #expect(
            machine.saw(SchemaState(version: 6), of: ShardID("s2"), now: start) == nil,
            "served as before")
        #expect(machine.saw(old, of: ShardID("s1"), now: start)?.refusal != nil)
        #expect(machine.refused.map(\.shard.text) == ["s1", "s3"])
        #expect(machine.saw(old, of: ShardID("s9"), now: start) == nil, "the map has none")
    }

    @Test("a database that takes a shard's place is judged anew")
    func otherDatabase() {
        var machine = machine([Self.shard("s1")])
        _ = machine.saw(SchemaState(version: 4), of: ShardID("s1"), now: start)
        #expect(machine.follow([Self.shard("s1")]).isEmpty)
        #expect(machine.refusal(of: ShardID("s1")) != nil)
        #expect(
            machine.follow([Self.shard("s1", timeline: 2)])
                == [.init(shard: ShardID("s1"), refusal: nil)])
    }

    @Test("it serves while one shard is left; retired ones do not count")
    func serving() {
        let old = SchemaState(version: 4)
        #expect(machine([]).isServing)
        #expect(machine([Self.shard("s1", old), Self.shard("s2")]).isServing)
        #expect(!machine([Self.shard("s1", old), Self.shard("s2", old)]).isServing)
        #expect(!machine([Self.shard("s1", old), Self.shard("s2", nil, .closed)]).isServing)
        #expect(machine([Self.shard("s1", old, .closed)]).isServing)
        #expect(machine([Self.shard("s1", old, .closed)]).refused.isEmpty)
    }

    @Test(
        "who is refused is looked at often, who is open now and then, and at once if the map tells")
    func due() {
        let (first, second) = (ShardID("s1"), ShardID("s2"))
        var machine = machine([
            Self.shard("s1", SchemaState(version: 4)), Self.shard("s2"), Self.shard("s3"),
        ])
        func due(_ seconds: Int, cutOff: Bool = false) -> [String] {
            machine.due(open: [second], isCutOff: cutOff, now: start + .seconds(seconds))
                .map(\.text)
        }
        #expect(due(0) == ["s1", "s2"], "nobody has looked; s3 has no connections")
        machine.looked(at: first, now: start)
        _ = machine.saw(SchemaState(version: 6), of: second, now: start)
        #expect(due(1) == [])
        #expect(due(2) == ["s1"])
        #expect(due(30) == ["s1", "s2"])
        #expect(due(1, cutOff: true) == ["s1", "s2"])
        _ = machine.follow([Self.shard("s1"), Self.shard("s2", SchemaState(version: 7))])
        #expect(due(1).contains("s2"))
    }

    @Test("a refusal says what to do")
    func reasons() {
        #expect("\(SchemaRefusal.behind(version: 4, lowest: 5))".contains("hc-admin migrate up"))
        #expect("\(SchemaRefusal.ahead(servesFrom: 8, highest: 7))".contains("newer release"))
    }
}
