import HCCore
import HCTesting
import Testing

@testable import HCIO

@Suite("TLS sessions", .onLoop) @LoopActor struct TLSSessionTests {
    private nonisolated static let versions = [TLSVersion.tls13, .tls12]

    private func client(
        _ version: TLSVersion, _ name: String = "sunrise.clinics.example",
        resuming other: TLSContext? = nil
    ) throws -> TLSContext {
        let made = try TLSFixture.client(name) {
            $0.authority = nil
            $0.versionMax = version
        }
        if let other { made.resumeSession(of: other) }
        return made
    }

    /// A full handshake, after which `client` has a ticket.
    private func begin(_ server: TLSContext, _ client: TLSContext) async throws {
        let pair = try await TLSPair.shaken(server, client)
        #expect(pair.handshake?.isResumed == false)
        try await pair.settle()
        pair.close()
    }

    private func isResumed(_ server: TLSContext, _ client: TLSContext) async throws -> Bool {
        let pair = try await TLSPair.shaken(server, client)
        try await pair.settle()
        defer { pair.close() }
        return try #require(pair.handshake).isResumed
    }

    @Test("another worker with the same secret resumes a session", arguments: versions)
    func sharedSecret(_ version: TLSVersion) async throws {
        let metrics = TLSMetrics(MetricsRegistry())
        let first = try client(version)
        try await begin(try TLSFixture.server(), first)
        #expect(try await isResumed(try TLSFixture.server(metrics: metrics), first))
        #expect(metrics.handshakes(version, isResumed: true) == 1)
    }

    @Test("a worker with another secret begins anew", arguments: versions)
    func otherSecret(_ version: TLSVersion) async throws {
        let first = try client(version)
        try await begin(try TLSFixture.server(), first)
        let other = try TLSFixture.server { $0.tickets = TLSFixture.tickets(2) }
        #expect(try await !isResumed(other, first))
    }

    @Test(
        "a secret that is being retired still resumes, and the new ticket is of the new one",
        arguments: versions)
    func retiredSecret(_ version: TLSVersion) async throws {
        let first = try client(version)
        try await begin(try TLSFixture.server(), first)
        let rotated = try TLSFixture.server { $0.tickets = TLSFixture.tickets(2, retired: 1) }
        #expect(try await isResumed(rotated, first))
        // The ticket that the client has got for it is good where the old secret is gone.
        #expect(
            try await isResumed(try TLSFixture.server { $0.tickets = TLSFixture.tickets(2) }, first)
        )
    }

    @Test(
        "tickets of earlier periods are good within the lifetime, and renewed", arguments: versions)
    func rotation(_ version: TLSVersion) async throws {
        let clock = ManualClock(now: TLSFixture.now)
        let server = try TLSFixture.server(clocks: clock.clocks)
        let first = try client(version)
        try await begin(server, first)
        clock.advance(by: .seconds(5 * 3600))
        #expect(try await isResumed(server, first))
        // Eight hours after the first ticket, two beyond its lifetime: it is the renewed one that is taken.
        clock.advance(by: .seconds(3 * 3600))
        #expect(try await isResumed(server, first))
        clock.advance(by: .seconds(8 * 3600))
        #expect(try await !isResumed(server, first))
    }

    @Test("a machine whose clock is a little behind takes the tickets of one that is ahead")
    func clocksApart() async throws {
        let ahead = ManualClock(now: TLSFixture.now + .seconds(3600))
        let first = try client(.tls13)
        try await begin(try TLSFixture.server(clocks: ahead.clocks), first)
        #expect(try await isResumed(try TLSFixture.server(), first))
    }

    @Test("a ticket is for the host that it was made for", arguments: versions)
    func otherHost(_ version: TLSVersion) async throws {
        let server = try TLSFixture.server()
        let first = try client(version)
        try await begin(server, first)
        #expect(
            try await !isResumed(
                server, try client(version, "lakeside.clinics.example", resuming: first)))
        #expect(try await isResumed(server, try client(version, resuming: first)))
    }

    @Test(
        "a listener of another purpose, or with other client authorities, begins anew",
        arguments: versions)
    func otherPurpose(_ version: TLSVersion) async throws {
        let first = try client(version)
        try await begin(try TLSFixture.server(), first)
        #expect(try await !isResumed(try TLSFixture.server { $0.purpose = "operators" }, first))
    }

    @Test("without tickets no session is resumed", arguments: versions)
    func noTickets(_ version: TLSVersion) async throws {
        let server = try TLSFixture.server { $0.tickets = nil }
        let first = try client(version)
        try await begin(server, first)
        #expect(try await !isResumed(server, first))
    }

    // MARK: Client certificates

    private func mutual(_ authority: String = "authority") throws -> TLSContext {
        try TLSFixture.server {
            $0.clientAuthority = try TLSFixture.authority(authority)
            $0.purpose = "operators"
        }
    }

    private func client(_ version: TLSVersion, showing name: String?) throws -> TLSContext {
        try TLSFixture.client {
            $0.versionMax = version
            $0.certificate = try name.map { try TLSFixture.certificate($0) }
        }
    }

    @Test("a client with a certificate of the authority is let in, and named", arguments: versions)
    func clientCertificate(_ version: TLSVersion) async throws {
        let context = try client(version, showing: "client")
        let server = try mutual()
        let pair = try await TLSPair.shaken(server, context)
        #expect(pair.handshake?.peerSubject == "CN=client")
        try await pair.settle()
        pair.close()
        // A resumed session still knows who it is.
        let again = try await TLSPair.shaken(server, context)
        #expect(again.handshake?.isResumed == true)
        #expect(again.handshake?.peerSubject == "CN=client")
        again.close()
        // Other authorities have never seen this client.
        let other = try await TLSPair.shaken(try mutual("stranger"), context)
        #expect(other.serverFailure == .clientCertificateRefused)
    }

    @Test("a client without a certificate is refused", arguments: versions)
    func noClientCertificate(_ version: TLSVersion) async throws {
        let pair = TLSPair(try mutual(), try client(version, showing: nil))
        let failed = Waiter<TLSFailure>()
        pair.server.handshake { result in
            if case .failure(let failure) = result { failed.succeed(failure) }
        }
        pair.client.handshake { result in
            // In TLS 1.3 the client has ended its handshake before the server has looked.
            if case .success = result {
                pair.client.start(delegate: pair.heardByClient, reading: true)
            }
        }
        #expect(try await failed.wait(until: .soon).reason == .clientCertificateMissing)
        if version == .tls13 { try await pair.heardByClient.wait { $0.failure != nil } }
        pair.close()
    }

    @Test("a client of another authority is refused", arguments: versions)
    func strangeClientCertificate(_ version: TLSVersion) async throws {
        let pair = TLSPair(try mutual(), try client(version, showing: "stranger"))
        let failed = Waiter<TLSFailure>()
        pair.server.handshake { result in
            if case .failure(let failure) = result { failed.succeed(failure) }
        }
        pair.client.handshake { result in
            if case .success = result {
                pair.client.start(delegate: pair.heardByClient, reading: true)
            }
        }
        #expect(try await failed.wait(until: .soon).reason == .clientCertificateRefused)
        pair.close()
    }

    @Test("a client refuses a server of another authority, and one with another name")
    func serverCertificate() async throws {
        let strange = try await TLSPair.shaken(
            try TLSFixture.server(),
            try TLSFixture.client { $0.authority = try TLSFixture.authority("stranger") })
        #expect(strange.clientResult?.failure?.reason == .serverCertificateRefused)
        #expect(strange.serverFailure == .alertReceived)
        let misnamed = try await TLSPair.shaken(
            try TLSFixture.server(), try TLSFixture.client("sunrise.other.example"))
        #expect(misnamed.clientResult?.failure?.reason == .serverCertificateRefused)
    }
}
