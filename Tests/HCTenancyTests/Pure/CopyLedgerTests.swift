import HCCore
import HCIO
import HCTesting
import Testing

@testable import HCTenancy

@Suite("Which copies a process may use")
struct CopyLedgerTests {
    private let tenant = TenantID(UUID(high: 1, low: 1))
    private let other = TenantID(UUID(high: 1, low: 2))
    private var limits = CoherenceLimits()

    private func at(_ milliseconds: Int64) -> MonotonicTime {
        MonotonicTime(nanoseconds: milliseconds * 1_000_000)
    }

    private func hold(_ id: String, _ names: [String], _ left: Duration) -> CopyLedger.Hold {
        CopyLedger.Hold(id: VoidID(text: id), names: VoidedNames(names), left: left)
    }

    /// Expectations do not change what they look at: so it stands behind a reference.
    private final class Ledger {
        var machine: CopyLedger

        init(_ limits: CoherenceLimits) { machine = CopyLedger(limits: limits) }

        func mayUse(_ tenant: TenantID, at now: MonotonicTime) -> Bool {
            machine.mayUse(tenant, at: now)
        }
        func ticket(_ tenant: TenantID, at now: MonotonicTime) -> CopyTicket? {
            machine.ticket(tenant, at: now)
        }
        func takeWanted(at now: MonotonicTime) -> (register: [TenantID], forget: [TenantID]) {
            machine.takeWanted(at: now)
        }
        @discardableResult
        func voided(_ tenant: TenantID, _ hold: CopyLedger.Hold, at now: MonotonicTime) -> Bool {
            machine.voided(tenant, hold, at: now)
        }
    }

    /// A ledger with a lease from 0 on, registered for the clinic.
    private func ledger() -> Ledger {
        let ledger = Ledger(limits)
        ledger.machine.extended(askedAt: at(0))
        #expect(!ledger.mayUse(tenant, at: at(0)))
        #expect(ledger.takeWanted(at: at(0)).register == [tenant])
        ledger.machine.registered(tenant, [], era: ledger.machine.era, at: at(1))
        return ledger
    }

    @Test("copies need a lease and a registration, and end with either")
    func life() {
        let ledger = ledger()
        #expect(ledger.mayUse(tenant, at: at(1)))
        #expect(!ledger.mayUse(other, at: at(1)))
        #expect(ledger.mayUse(tenant, at: at(1799)))
        #expect(!ledger.mayUse(tenant, at: at(1800)))
        ledger.machine.extended(askedAt: at(1000))
        #expect(ledger.mayUse(tenant, at: at(2799)))
        ledger.machine.lost()
        #expect(!ledger.mayUse(tenant, at: at(1)))
    }

    @Test("a clinic whose registration is only asked for has no copies, with a lease or without")
    func notYetRegistered() throws {
        let ledger = Ledger(limits)
        ledger.machine.extended(askedAt: at(0))
        #expect(!ledger.mayUse(tenant, at: at(0)))
        _ = ledger.takeWanted(at: at(0))
        #expect(!ledger.mayUse(tenant, at: at(1)))
        #expect(ledger.ticket(tenant, at: at(1)) == nil)
        ledger.machine.registered(tenant, [], era: ledger.machine.era, at: at(2))
        let ticket = try #require(ledger.ticket(tenant, at: at(2)))
        #expect(ledger.machine.isCurrent(ticket, tenant, ["a"], at: at(3)))
        // What was read goes no further than the lease, though it may be had again.
        #expect(!ledger.machine.isCurrent(ticket, tenant, ["a"], at: at(1800)))
        ledger.machine.extended(askedAt: at(1900))
        #expect(ledger.machine.isCurrent(ticket, tenant, ["a"], at: at(1901)))
    }

    @Test("a registration is renewed before Redis forgets it, and nothing is used meanwhile")
    func staleRegistration() throws {
        let ledger = ledger()
        let end = at(1) + limits.registrationLife
        ledger.machine.extended(askedAt: end - .seconds(1))
        let ticket = try #require(ledger.ticket(tenant, at: end - .milliseconds(1)))
        #expect(!ledger.mayUse(tenant, at: end))
        #expect(ledger.takeWanted(at: end).register == [tenant])
        // Redis may have counted nobody until it was asked again.
        #expect(!ledger.machine.isCurrent(ticket, tenant, ["a"], at: end))
        ledger.machine.registered(tenant, [], era: ledger.machine.era, at: end)
        #expect(ledger.mayUse(tenant, at: end))
    }

    @Test(
        "holds that a registration brings count for what began to be read before it, however many")
    func holdsOfRegistration() throws {
        let ledger = ledger()
        let end = at(1) + limits.registrationLife
        ledger.machine.extended(askedAt: end - .seconds(1))
        let ticket = try #require(ledger.ticket(tenant, at: end - .milliseconds(1)))
        #expect(!ledger.mayUse(tenant, at: end))
        _ = ledger.takeWanted(at: end)
        let many = (0..<limits.holdsMax).map { hold("\($0)", ["b"], .milliseconds(100)) }
        ledger.machine.registered(
            tenant, many + [hold("last", ["a"], .milliseconds(100))], era: ledger.machine.era,
            at: end)
        let after = end + .milliseconds(200)
        #expect(!ledger.machine.isCurrent(ticket, tenant, ["a"], at: after))
        let later = try #require(ledger.ticket(tenant, at: after))
        #expect(ledger.machine.isCurrent(later, tenant, ["a"], at: after))
    }

    @Test("what was read before a void is not kept, unless the void was about something else")
    func tickets() throws {
        let ledger = ledger()
        let ticket = try #require(ledger.ticket(tenant, at: at(1)))
        #expect(ledger.machine.isCurrent(ticket, tenant, ["a"], at: at(2)))
        #expect(ledger.voided(tenant, hold("1", ["b"], .zero), at: at(3)))
        #expect(ledger.machine.isCurrent(ticket, tenant, ["a"], at: at(4)))
        #expect(!ledger.machine.isCurrent(ticket, tenant, ["a", "b"], at: at(4)))
        let later = try #require(ledger.ticket(tenant, at: at(5)))
        #expect(ledger.machine.isCurrent(later, tenant, ["b"], at: at(5)))
        #expect(ledger.voided(tenant, hold("2", ["*"], .zero), at: at(6)))
        #expect(!ledger.machine.isCurrent(ticket, tenant, ["a"], at: at(7)))
        #expect(!ledger.machine.isCurrent(later, tenant, ["b"], at: at(7)))
    }

    @Test("a ticket that is older than what is remembered of voids is of no use")
    func forgotten() throws {
        let ledger = ledger()
        let ticket = try #require(ledger.ticket(tenant, at: at(1)))
        for number in 0..<limits.recentMax {
            ledger.voided(tenant, hold("\(number)", ["b"], .zero), at: at(2))
        }
        #expect(ledger.machine.isCurrent(ticket, tenant, ["a"], at: at(3)))
        ledger.voided(tenant, hold("last", ["b"], .zero), at: at(2))
        #expect(!ledger.machine.isCurrent(ticket, tenant, ["a"], at: at(3)))
    }

    @Test("a held name is neither used nor kept until its release or its end")
    func holds() throws {
        let ledger = ledger()
        ledger.voided(tenant, hold("1", ["a"], .milliseconds(100)), at: at(10))
        #expect(ledger.machine.isHeld(tenant, "a", at: at(109)))
        #expect(!ledger.machine.isHeld(tenant, "a", at: at(110)))
        #expect(!ledger.machine.isHeld(tenant, "b", at: at(20)))
        let ticket = try #require(ledger.ticket(tenant, at: at(20)))
        #expect(!ledger.machine.isCurrent(ticket, tenant, ["a"], at: at(30)))
        #expect(ledger.machine.isCurrent(ticket, tenant, ["b"], at: at(30)))
    }

    @Test(
        "what began to be read during a hold is not kept, however the hold ended",
        arguments: [false, true])
    func readDuringHold(isReleased: Bool) throws {
        let ledger = ledger()
        ledger.voided(tenant, hold("1", ["a"], .milliseconds(100)), at: at(10))
        let ticket = try #require(ledger.ticket(tenant, at: at(20)))
        if isReleased { ledger.machine.released(tenant, VoidID(text: "1")) }
        #expect(!ledger.machine.isHeld(tenant, "a", at: at(120)))
        #expect(!ledger.machine.isCurrent(ticket, tenant, ["a"], at: at(120)))
        let later = try #require(ledger.ticket(tenant, at: at(120)))
        #expect(ledger.machine.isCurrent(later, tenant, ["a"], at: at(121)))
        // Nor when the hold itself has made room for others.
        for number in 0..<limits.holdsMax {
            ledger.voided(tenant, hold("n\(number)", ["b"], .milliseconds(5)), at: at(200))
        }
        #expect(!ledger.machine.isCurrent(ticket, tenant, ["a"], at: at(300)))
    }

    @Test("with more holds than are remembered nothing is used until the last is over")
    func tooManyHolds() {
        let ledger = ledger()
        for number in 0...limits.holdsMax {
            ledger.voided(
                tenant, hold("\(number)", ["a"], .milliseconds(100 + number)), at: at(10))
        }
        #expect(!ledger.mayUse(tenant, at: at(10 + 100 + Int64(limits.holdsMax) - 1)))
        #expect(ledger.mayUse(tenant, at: at(10 + 100 + Int64(limits.holdsMax))))
    }

    @Test("a message about a clinic counts from the moment its registration is asked for")
    func registering() throws {
        let ledger = Ledger(limits)
        ledger.machine.extended(askedAt: at(0))
        _ = ledger.mayUse(tenant, at: at(0))
        _ = ledger.takeWanted(at: at(0))
        // Overtakes the answer to the registration, which was made before it.
        ledger.voided(tenant, hold("1", ["a"], .milliseconds(100)), at: at(1))
        ledger.machine.registered(tenant, [], era: ledger.machine.era, at: at(2))
        #expect(ledger.mayUse(tenant, at: at(3)))
        #expect(ledger.machine.isHeld(tenant, "a", at: at(3)))
    }

    @Test("an answer that was asked for under another name counts for nothing")
    func eras() throws {
        let ledger = Ledger(limits)
        ledger.machine.extended(askedAt: at(0))
        _ = ledger.mayUse(tenant, at: at(0))
        _ = ledger.takeWanted(at: at(0))
        let era = ledger.machine.era
        ledger.machine.lost()
        ledger.machine.extended(askedAt: at(1))
        _ = ledger.mayUse(tenant, at: at(1))
        _ = ledger.takeWanted(at: at(1))
        ledger.machine.registered(tenant, [], era: era, at: at(2))
        #expect(!ledger.mayUse(tenant, at: at(3)))
    }

    @Test("who has lost its lease asks for nothing under its new name before it has another")
    func newName() {
        let ledger = ledger()
        ledger.machine.lost()
        #expect(!ledger.mayUse(tenant, at: at(2)))
        #expect(ledger.takeWanted(at: at(2)).register == [])
        ledger.machine.extended(askedAt: at(3))
        #expect(!ledger.mayUse(tenant, at: at(3)))
        #expect(ledger.takeWanted(at: at(3)).register == [tenant])
    }

    @Test("a clinic that is asked for anew is not used before the answer")
    func askedAnew() {
        let ledger = ledger()
        for number in 0...limits.holdsMax {
            ledger.voided(tenant, hold("\(number)", ["a"], .milliseconds(100)), at: at(10))
        }
        #expect(!ledger.mayUse(tenant, at: at(20)), "with so many holds nothing is used")
        #expect(ledger.takeWanted(at: at(20)).register == [tenant])
        #expect(!ledger.mayUse(tenant, at: at(200)), "Redis may have forgotten who is told")
        ledger.machine.registered(tenant, [], era: ledger.machine.era, at: at(201))
        #expect(ledger.mayUse(tenant, at: at(201)))
    }

    @Test("so many clinics wait to be registered; whoever comes later asks again")
    func wanted() {
        var limits = CoherenceLimits()
        limits.wantedMax = 1
        let ledger = Ledger(limits)
        ledger.machine.extended(askedAt: at(0))
        for tenant in [tenant, other] { #expect(!ledger.mayUse(tenant, at: at(0))) }
        #expect(ledger.takeWanted(at: at(0)).register == [tenant])
        #expect(!ledger.mayUse(other, at: at(1)))
        #expect(ledger.takeWanted(at: at(1)).register == [other])
    }

    @Test("a clinic that made room for another begins without copies and without tickets")
    func evicted() throws {
        var limits = CoherenceLimits()
        limits.tenantsMax = 1
        let ledger = Ledger(limits)
        ledger.machine.extended(askedAt: at(0))
        func register(_ tenant: TenantID) -> [TenantID] {
            _ = ledger.mayUse(tenant, at: at(0))
            let forgotten = ledger.takeWanted(at: at(0)).forget
            ledger.machine.registered(tenant, [], era: ledger.machine.era, at: at(1))
            return forgotten
        }
        #expect(register(tenant) == [])
        let ticket = try #require(ledger.ticket(tenant, at: at(1)))
        #expect(register(other) == [tenant])
        #expect(!ledger.mayUse(tenant, at: at(2)))
        // Nobody has told us of voids meanwhile.
        ledger.voided(other, hold("1", ["a"], .zero), at: at(2))
        #expect(register(tenant) == [other])
        #expect(!ledger.machine.isCurrent(ticket, tenant, ["a"], at: at(3)))
    }

    @Test("messages survive their way, and what is none is nothing")
    func messages() {
        let messages: [CoherenceMessage] = [
            .void(
                tenant, VoidID(text: "p:1"), names: ["a", "slots:b"], life: .microseconds(1500),
                process: "q"),
            .release(tenant, VoidID(text: "p:1")),
            .acknowledgement(VoidID(text: "p:1"), process: "q"),
        ]
        for message in messages { #expect(CoherenceMessage(message.text) == message) }
        for text in [
            "", "v", "v\nx\n1\n2\n3\n4", "v\n\(tenant)\n1\n-2\n3\n4", "r\n1", "a\n1", "z\n1",
        ] {
            #expect(CoherenceMessage(text) == nil, "\(text)")
        }
    }

    @Test(
        "whatever is late, paused or forgotten: no copy is used that is not what the source says",
        arguments: [UInt64](1...25))
    func simulation(seed: UInt64) {
        var simulation = CopySimulation(seed: seed)
        simulation.run(milliseconds: 25_000)
        #expect(simulation.stale == [], "seed \(seed)")
        #expect(simulation.copiesUsed > 100, "seed \(seed): the simulation shows nothing")
        #expect(simulation.commits > 20, "seed \(seed): the simulation shows nothing")
    }
}
