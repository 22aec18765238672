import HCCore
import HCTesting

@testable import HCIO

/// Certificates and contexts for tests, made once: making keys takes longer than the tests.
@LoopActor enum TLSFixture {
    static let files: Result<TestCertificates, any Error> = Result {
        let files = try TestCertificates()
        try files.make("authority")
        try files.make(
            "base", hosts: ["*.clinics.example", "clinics.example"], authority: "authority")
        try files.make("custom", hosts: ["praxis.example"], key: .rsa(2048), authority: "authority")
        try files.make("client", authority: "authority")
        try files.make("stranger", hosts: ["stranger.example"])
        try files.staple("base", authority: "authority")
        return files
    }

    static var now: Timestamp { Clocks.system.now() }

    static func certificate(_ name: String) throws -> TLSCertificate {
        try TLSCertificate.load(path: files.get().path(name), name: name, now: now).certificate
    }

    static func certificates(_ names: [String] = ["base", "custom"]) throws -> TLSCertificates {
        guard
            let made = TLSCertificates(
                try names.map { try certificate($0) }, baseDomain: "clinics.example")
        else { throw FixtureError("no certificates") }
        return made
    }

    static func authority(_ name: String = "authority") throws -> TLSClientAuthority {
        try TLSClientAuthority.load(file: files.get().path("\(name).crt"))
    }

    static func tickets(_ byte: UInt8 = 1, retired: UInt8? = nil) -> TLSTickets {
        let secrets = [byte] + (retired.map { [$0] } ?? [])
        return TLSTickets(
            secrets: secrets.map { byte in
                [UInt8](repeating: byte, count: 32).withUnsafeBytes { TLSTicketSecret($0) }
            }, period: .seconds(3600), lifetime: .seconds(6 * 3600))
    }

    static func server(
        metrics: TLSMetrics? = nil, clocks: Clocks = .system,
        _ change: (inout TLSServerConfiguration) throws -> Void = { _ in }
    ) throws -> TLSContext {
        var configuration = TLSServerConfiguration(
            certificates: try certificates(), applicationProtocols: ["h2", "http/1.1"],
            tickets: tickets())
        try change(&configuration)
        return try TLSContext(server: configuration, clocks: clocks, metrics: metrics)
    }

    static func client(
        _ name: String? = "sunrise.clinics.example",
        _ change: (inout TLSClientConfiguration) throws -> Void = { _ in }
    ) throws -> TLSContext {
        var configuration = TLSClientConfiguration()
        configuration.serverName = name
        configuration.authority = try authority()
        try change(&configuration)
        return try TLSContext(client: configuration)
    }
}

/// A server and a client whose handshake is made over a connection in memory.
@LoopActor final class TLSPair {
    let server: TLSStream
    let client: TLSStream
    let serverEnd: MemoryStream
    let clientEnd: MemoryStream
    let heardByServer = Recorder()
    let heardByClient = Recorder()
    private(set) var serverResult: Result<TLSHandshake, TLSFailure>?
    private(set) var clientResult: Result<TLSHandshake, TLSFailure>?

    init(_ serverContext: TLSContext, _ clientContext: TLSContext) {
        (serverEnd, clientEnd) = MemoryStream.pair()
        server = TLSStream(over: serverEnd, serverContext)
        client = TLSStream(over: clientEnd, clientContext)
    }

    /// Waits for both ends.
    func shake(reading: Bool = true) async throws {
        let done = Waiter<Void>()
        func check() { if serverResult != nil, clientResult != nil { done.succeed(()) } }
        server.handshake { result in
            self.serverResult = result
            if case .success = result {
                self.server.start(delegate: self.heardByServer, reading: reading)
            }
            check()
        }
        client.handshake { result in
            self.clientResult = result
            if case .success = result {
                self.client.start(delegate: self.heardByClient, reading: reading)
            }
            check()
        }
        try await done.wait(until: .soon)
    }

    static func shaken(
        _ serverContext: TLSContext, _ clientContext: TLSContext, reading: Bool = true
    ) async throws -> TLSPair {
        let pair = TLSPair(serverContext, clientContext)
        try await pair.shake(reading: reading)
        return pair
    }

    var handshake: TLSHandshake? {
        if case .success(let handshake)? = serverResult { return handshake }
        return nil
    }

    var serverFailure: TLSFailure.Reason? {
        if case .failure(let failure)? = serverResult { return failure.reason }
        return nil
    }

    /// Lets bytes pass that nobody waits for: the tickets behind a handshake.
    func settle() async throws {
        for _ in 0..<4 { try await Loop.shared.lookAround() }
    }

    func close() {
        client.close()
        server.close()
    }
}

/// Sends all of its bytes as fast as they are taken.
@LoopActor final class Sender {
    private let stream: any ByteStream
    private let bytes: [UInt8]
    private(set) var sent = 0
    private(set) var blockedCount = 0

    init(_ stream: any ByteStream, _ bytes: [UInt8], _ recorder: Recorder) {
        self.stream = stream
        self.bytes = bytes
        recorder.onEvent = { [weak self] in self?.send() }
    }

    func send() {
        while sent < bytes.count {
            let result = bytes.withUnsafeBytes {
                stream.write(UnsafeRawBufferPointer(rebasing: $0[sent...]))
            }
            guard case .wrote(let count) = result else {
                blockedCount += 1
                stream.setWriteInterest(true)
                return
            }
            sent += count
        }
        stream.setWriteInterest(false)
    }
}
