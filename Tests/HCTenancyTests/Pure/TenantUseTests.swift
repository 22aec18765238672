import HCCore
import HCTesting
import Testing

@testable import HCTenancy

@Suite("What clinics use is shown of the few that use most")
struct TenantUseTests {
    private func tenant(_ number: Int) -> TenantID {
        TenantID(UUID(high: 1, low: UInt64(number)))
    }

    private func view(
        _ number: Int, _ requests: Int, waiting: Int = 0
    ) -> TenantUse.View {
        var use = TenantUse.Use()
        use.requests = requests
        use.usedTime = .milliseconds(Int64(requests))
        return TenantUse.View(flow: tenant(number), waiting: waiting, active: 0, use: use)
    }

    @Test("however many clinics there are, so many are named, and the others are one line")
    func bounded() {
        var table = TenantUse(namedMax: 3)
        let lines = table.update((0..<1000).map { view($0, $0) }, forgotten: TenantUse.Use())
        #expect(lines.count == 4)
        #expect(Set(lines.compactMap(\.tenant)) == [tenant(997), tenant(998), tenant(999)])
        #expect(lines.map(\.use.requests).reduce(0, +) == (0..<1000).reduce(0, +))
    }

    @Test("who uses most now takes the place of who used most before, and nothing is lost")
    func change() {
        var table = TenantUse(namedMax: 1)
        _ = table.update([view(1, 100), view(2, 1)], forgotten: TenantUse.Use())
        var lines: [TenantUse.Line] = []
        for step in 1...10 {
            lines = table.update(
                [view(1, 100), view(2, 1 + step * 10)], forgotten: TenantUse.Use())
        }
        #expect(lines.compactMap(\.tenant) == [tenant(2)])
        #expect(lines.last?.tenant == nil)
        #expect((lines.last?.use.requests ?? 0) >= 101)
    }

    @Test("a clinic that the queue forgets is counted once", arguments: 1...5)
    func forgotten(seed: UInt64) {
        var random = SeededRandom(seed: seed)
        var table = TenantUse(namedMax: 2)
        var remembered: [Int: Int] = [:]
        var forgotten = TenantUse.Use()
        var total = 0
        var others = 0
        for _ in 0..<200 {
            let number = Int.random(in: 0..<10, using: &random)
            if let requests = remembered[number], Bool.random(using: &random) {
                remembered[number] = nil
                forgotten.requests += requests
                forgotten.usedTime += .milliseconds(Int64(requests))
            } else {
                let more = Int.random(in: 1...20, using: &random)
                remembered[number, default: 0] += more
                total += more
            }
            let lines = table.update(
                remembered.map { view($0.key, $0.value) }, forgotten: forgotten)
            #expect(lines.count <= 3)
            #expect((lines.last?.use.requests ?? 0) >= others, "seed \(seed): it stepped back")
            others = lines.last?.use.requests ?? 0
            #expect(lines.map(\.use.requests).reduce(0, +) <= total, "seed \(seed): counted twice")
        }
    }
}
