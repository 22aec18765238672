import COpenSSL
import HCCore
import HCTesting
import Testing

@testable import HCIO

/// The keys of session tickets by themselves: OpenSSL and our own session identity guard some of this once more, and
/// what is tested here must hold without them.
@Suite("Keys of session tickets", .onLoop) @LoopActor struct TLSTicketRingTests {
    private static let host = "sunrise.clinics.example"
    private let clock = ManualClock()

    /// Keys for an hour, sessions for six.
    private func ring(
        _ tickets: TLSTickets = TLSFixture.tickets(), purpose: String = "clients"
    ) -> TLSTicketRing {
        TLSTicketRing(tickets, purpose: Array(purpose.utf8), clocks: clock.clocks)
    }

    /// What stands in the clear at the head of a ticket.
    private struct Head {
        var name = [UInt8](repeating: 0, count: 16)
        var iv = [UInt8](repeating: 0, count: 16)

        /// The period is the first four bytes.
        mutating func setPeriod(_ period: Int64) {
            for index in 0..<4 {
                name[index] = UInt8(truncatingIfNeeded: period >> (24 - 8 * Int64(index)))
            }
        }
    }

    private func withContexts<Value>(
        _ body: (OpaquePointer, OpaquePointer) throws -> Value
    ) throws -> Value {
        let algorithm = try #require(EVP_MAC_fetch(nil, "HMAC", nil))
        defer { EVP_MAC_free(algorithm) }
        let cipher = try #require(EVP_CIPHER_CTX_new())
        defer { EVP_CIPHER_CTX_free(cipher) }
        let mac = try #require(EVP_MAC_CTX_new(algorithm))
        defer { EVP_MAC_CTX_free(mac) }
        return try body(cipher, mac)
    }

    private func seal(_ ring: TLSTicketRing, host: String = Self.host) throws -> Head {
        var head = Head()
        try withContexts { cipher, mac in
            #expect(
                ring.seal(host: host, name: &head.name, iv: &head.iv, cipher: cipher, mac: mac))
        }
        return head
    }

    private func open(
        _ ring: TLSTicketRing, _ head: Head, host: String = Self.host
    ) throws -> TLSTicketRing.Opening {
        try withContexts { cipher, mac in
            ring.open(host: host, name: head.name, iv: head.iv, cipher: cipher, mac: mac)
        }
    }

    @Test("a ticket is opened for its host and its purpose only, and with its name unchanged")
    func names() throws {
        let head = try seal(ring())
        #expect(try open(ring(), head) == .current)
        #expect(try open(ring(), head, host: "lakeside.clinics.example") == .unknown)
        #expect(try open(ring(), head, host: "") == .unknown)
        #expect(try open(ring(purpose: "operators"), head) == .unknown)
        #expect(try open(ring(TLSFixture.tickets(2)), head) == .unknown)
        for index in head.name.indices {
            var changed = head
            changed.name[index] ^= 1
            #expect(try open(ring(), changed) == .unknown, "byte \(index)")
        }
    }

    @Test("it is opened within the lifetime, and renewed from the next period on")
    func lifetime() throws {
        let ring = ring()
        let head = try seal(ring)
        for hours in 0...6 {
            #expect(try open(ring, head) == (hours == 0 ? .current : .renew), "\(hours) h")
            clock.advance(by: .seconds(3600))
        }
        #expect(try open(ring, head) == .unknown)
    }

    @Test("a machine may be one period ahead of another, no more")
    func ahead() throws {
        let behind = ring()
        clock.advance(by: .seconds(3600))
        let early = try seal(ring())
        clock.advance(by: .seconds(3600))
        let tooEarly = try seal(ring())
        clock.setWallClock(to: clock.now + .seconds(-2 * 3600))
        #expect(try open(behind, early) == .current)
        #expect(try open(behind, tooEarly) == .unknown)
    }

    @Test("a secret that is being retired opens and asks for a renewal")
    func retiredSecret() throws {
        let head = try seal(ring(TLSFixture.tickets(1)))
        #expect(try open(ring(TLSFixture.tickets(2, retired: 1)), head) == .renew)
    }

    @Test("keys of the past go, and invented periods make none")
    func bounded() throws {
        let ring = ring()
        for _ in 0..<100 {
            var head = try seal(ring)
            let period = clock.now.seconds / 3600
            for invented in [period - 7, period - 1000, period + 2, period + 1000, 0, 1 << 31] {
                head.setPeriod(invented)
                #expect(try open(ring, head) == .unknown)
            }
            #expect(ring.keyCount <= 7)
            clock.advance(by: .seconds(3600))
        }
    }
}
