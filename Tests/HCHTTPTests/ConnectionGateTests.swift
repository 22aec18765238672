import HCCore
import HCIO
import HCTesting
import Testing

@testable import HCHTTP

@Suite("the gate that counts connections", .onLoop)
@LoopActor
struct ConnectionGateTests {
    private func address(_ text: String) throws -> SocketAddress {
        try #require(SocketAddress(host: text, port: 4000))
    }

    private func gate(max: Int = 100, perAddress: Int = 2, trusted: [String] = []) throws
        -> ConnectionGate
    {
        ConnectionGate(
            connectionsMax: max, perAddressMax: perAddress,
            trusted: TrustedProxies(try trusted.map { try #require(AddressBlock($0)) }))
    }

    private func admit(_ gate: ConnectionGate, _ text: String) throws -> ConnectionPass? {
        guard case .admitted(let pass) = gate.admit(try address(text), by: .plain) else {
            return nil
        }
        return pass
    }

    @Test("an IPv6 subscriber is a /64, an IPv4 one an address, in either form")
    func subscribers() throws {
        let gate = try gate()
        #expect(try admit(gate, "2001:db8:1:2::1") != nil)
        #expect(try admit(gate, "2001:db8:1:2:ffff::2") != nil)
        #expect(try admit(gate, "2001:db8:1:2::3") == nil)
        #expect(try admit(gate, "2001:db8:1:3::1") != nil)
        #expect(try admit(gate, "192.0.2.1") != nil)
        #expect(try admit(gate, "::ffff:192.0.2.1") != nil)
        #expect(try admit(gate, "192.0.2.1") == nil)
        #expect(try admit(gate, "192.0.2.2") != nil)
        #expect(gate.openCount == 6)
        #expect(gate.subscriberCount == 4)
    }

    @Test("an end is counted once, and an address without connections is forgotten")
    func ends() throws {
        let gate = try gate()
        let pass = try #require(try admit(gate, "192.0.2.1"))
        let other = try #require(try admit(gate, "192.0.2.1"))
        pass.end()
        pass.end()
        #expect(gate.openCount == 1)
        #expect(gate.count(of: try address("192.0.2.1")) == 1)
        other.end()
        #expect(gate.openCount == 0)
        #expect(gate.subscriberCount == 0)
    }

    @Test("whom a proxy names is counted in its place, and refused if he has too many")
    func proxied() throws {
        let gate = try gate(trusted: ["10.0.0.0/8"])
        let client = try address("192.0.2.1")
        var passes: [ConnectionPass] = []
        for _ in 0..<4 { passes.append(try #require(try admit(gate, "10.1.1.1"))) }
        #expect(gate.subscriberCount == 0, "a proxy has no limit of its own")
        #expect(passes[0].proxied(for: client, isSecure: true))
        #expect(passes[1].proxied(for: client, isSecure: false))
        #expect(!passes[2].proxied(for: client, isSecure: false))
        #expect(passes[0].address == client)
        #expect(passes[0].isSecureAtProxy)
        #expect(passes[3].proxied(for: try address("10.9.9.9"), isSecure: false))
        for pass in passes { pass.end() }
        #expect(gate.openCount == 0)
        #expect(gate.subscriberCount == 0)
    }

    @Test("counts are those of a naive ledger, whatever comes and goes")
    func ledger() throws {
        let seed = UInt64.random(in: .min ... .max)
        var random = SeededRandom(seed: seed)
        let gate = try gate(max: 40, perAddress: 5, trusted: ["10.0.0.0/8"])
        let pool = try (0..<12).map { try address($0 < 3 ? "10.0.0.\($0)" : "192.0.2.\($0)") }
        var open: [ConnectionPass] = []
        for _ in 0..<20_000 {
            switch Int.random(in: 0..<10, using: &random) {
            case 0..<5:
                let address = try #require(pool.randomElement(using: &random))
                if case .admitted(let pass) = gate.admit(address, by: .plain) { open.append(pass) }
            case 5..<7:
                let address = try #require(pool.randomElement(using: &random))
                _ = open.randomElement(using: &random)?.proxied(for: address, isSecure: false)
            default:
                guard !open.isEmpty else { continue }
                open.remove(at: Int.random(in: 0..<open.count, using: &random)).end()
            }
            #expect(gate.openCount == open.count, "seed \(seed)")
            #expect(open.count <= 40)
        }
        for address in pool {
            let count = open.count { $0.address == address }
            let isProxy = TrustedProxies([AddressBlock("10.0.0.0/8")].compactMap { $0 }).contains(
                address)
            #expect(gate.count(of: address) == (isProxy ? 0 : count), "seed \(seed)")
            #expect(isProxy || count <= 5, "seed \(seed)")
        }
    }
}

@Suite("who leaves when there is no room")
struct EvictionSweepTests {
    private static func time(_ seconds: Int64) -> MonotonicTime { .zero + .seconds(seconds) }

    private func choose(_ places: [ConnectionIdleness?], at seconds: Int64 = 100) -> Int? {
        var sweep = EvictionSweep()
        return sweep.next(of: places.count, now: Self.time(seconds)) { places[$0] }?.place
    }

    @Test("nobody, where nobody is idle")
    func none() {
        #expect(choose([]) == nil)
        #expect(choose([nil, .busy, .busy, nil]) == nil)
    }

    @Test("the one that has been idle longest")
    func oldest() {
        #expect(
            choose([
                .busy, .idle(since: Self.time(80)), nil, .idle(since: Self.time(70)),
                .idle(since: Self.time(90)),
            ]) == 3)
    }

    @Test("a newcomer keeps its place for a round trip, and loses it if it says nothing for long")
    func newcomer() {
        let idle = ConnectionIdleness.idle(since: Self.time(50))
        #expect(choose([.fresh(since: Self.time(99)), idle]) == 1)
        #expect(choose([.fresh(since: Self.time(94)), idle]) == 0)
        #expect(choose([.fresh(since: Self.time(99)), .busy]) == 0)
    }

    @Test("many newcomers that say nothing make room themselves, the oldest first")
    func flood() {
        let idle = [ConnectionIdleness?](repeating: .idle(since: Self.time(1)), count: 30)
        let fresh = (0..<10).map { ConnectionIdleness?.some(.fresh(since: Self.time(99 - $0))) }
        #expect(choose(idle + fresh) == 39)
    }

    @Test("of many who could leave so many are compared")
    func candidates() {
        var looked = 0
        var sweep = EvictionSweep()
        let found = sweep.next(of: EvictionSweep.placesMax, now: Self.time(1)) { _ in
            looked += 1
            return .idle(since: Self.time(0))
        }
        #expect(found != nil)
        #expect(looked == EvictionSweep.candidatesMax)
    }

    @Test("the sweep looks at so many places and goes on where it stopped")
    func bounded() {
        var looked = 0
        var sweep = EvictionSweep()
        let count = 10_000
        #expect(
            sweep.next(of: count, now: Self.time(1)) { _ in
                looked += 1
                return .busy
            } == nil)
        #expect(looked == EvictionSweep.placesMax)
        // The only idle one is found within as many sweeps as the table has such stretches.
        var found = false
        for _ in 0...count / EvictionSweep.placesMax where !found {
            found =
                sweep.next(of: count, now: Self.time(1)) { place in
                    place == 5000 ? .idle(since: Self.time(0)) : .busy
                } != nil
        }
        #expect(found)
    }
}
