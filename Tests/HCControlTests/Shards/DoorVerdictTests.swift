import Testing

@testable import HCControl

@Suite("What a door becomes on a server that took over")
struct DoorVerdictTests {
    private typealias Door = DoorVerdict.Door

    private func place(
        _ shard: String = "s1", _ epoch: Int64 = 4, _ state: String = "serving",
        tenant: String = "active"
    ) -> DoorVerdict.Place {
        DoorVerdict.Place(shard: shard, epoch: epoch, state: state, tenantState: tenant)
    }

    private func verdict(_ state: String, _ epoch: Int64, _ place: DoorVerdict.Place?)
        -> DoorVerdict
    {
        .of(Door(state: state, epoch: epoch), place, on: "s1")
    }

    @Test(
        "of a clinic that is elsewhere, every door that lets somebody in, or will, is closed",
        arguments: ["rw", "ro", "suspended", "draining", "fenced", "handover"])
    func elsewhere(_ state: String) {
        for epoch in [Int64(1), 3, 4] {
            #expect(verdict(state, epoch, place("s2")) == .leave(epoch: 4, to: "s2"))
        }
    }

    @Test("of a clinic that is elsewhere, doors that let nobody in stay, and a reservation goes")
    func closed() {
        for state in ["absent", "moved"] { #expect(verdict(state, 3, place("s2")) == .keep) }
        #expect(verdict("incoming", 3, place("s2")) == .dismiss)
        #expect(DoorVerdict.of(nil, place("s2"), on: "s1") == .keep)
    }

    @Test("of a clinic that is here, a forgotten un-gating or suspension is made up for")
    func here() {
        #expect(verdict("rw", 4, place()) == .keep)
        for state in ["draining", "fenced", "handover", "ro", "suspended"] {
            #expect(verdict(state, 4, place()) == .set(state: "rw"))
        }
        #expect(verdict("rw", 4, place(tenant: "readonly")) == .set(state: "ro"))
        #expect(verdict("rw", 4, place(tenant: "suspended")) == .set(state: "suspended"))
        #expect(verdict("suspended", 4, place(tenant: "suspended")) == .keep)
    }

    @Test("of a clinic that is here and whose arrival was forgotten, nobody is let in")
    func arrivalForgotten() {
        for state in ["absent", "incoming", "moved"] {
            guard case .lost(_, suspends: false) = verdict(state, 3, place()) else {
                Issue.record("\(state) is not lost")
                continue
            }
        }
        guard case .lost(_, suspends: true) = verdict("rw", 2, place()),
            case .lost(_, suspends: false) = DoorVerdict.of(nil, place(), on: "s1")
        else {
            Issue.record("what is old, or not there, is not lost")
            return
        }
    }

    @Test("what the map does not know is not served, and what it knows as deleted neither")
    func unknown() {
        #expect(verdict("rw", 1, nil) == .dismiss)
        #expect(verdict("incoming", 1, nil) == .dismiss)
        #expect(verdict("absent", 1, nil) == .keep)
        #expect(verdict("rw", 4, place("s1", 4, "closed")) == .set(state: "suspended"))
        #expect(verdict("absent", 4, place("s1", 4, "closed")) == .keep)
        #expect(verdict("rw", 1, place("s1", 1, "opening")) == .keep)
        #expect(DoorVerdict.of(nil, place("s1", 1, "opening"), on: "s1") == .keep)
    }

    @Test("a shard that knows a later place than the map is never made to follow it")
    func mapBehind() {
        for shard in ["s1", "s2"] {
            for state in ["rw", "moved", "incoming"] {
                #expect(verdict(state, 5, place(shard)) == .mapIsBehind)
            }
        }
    }
}
