import Glibc
import HCCore
import HCIO

/// What must hold for any bytes whatsoever.
enum TLSFuzzHarness {
    /// Made once; the fuzzer has one thread, which is the loop's.
    private static let contexts: (server: TLSContext, client: TLSContext) = {
        Loop.shared.adopt()
        var template = Array("/tmp/hc-fuzz-XXXXXX".utf8CString)
        precondition(mkdtemp(&template) != nil, "mkdtemp")
        let directory = String(
            decoding: template.dropLast().map { UInt8(bitPattern: $0) }, as: UTF8.self)
        let make =
            "openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -days 30 -subj /CN=fuzz "
            + "-keyout \(directory)/a.key -out \(directory)/a.crt 2>/dev/null"
        precondition(system(make) == 0, "openssl makes a certificate")
        let loading = TLSCertificates.load(
            directory: directory, baseDomain: "a.example", now: Clocks.system.now())
        _ = system("rm -rf \(directory)")
        guard let certificates = loading.certificates else {
            preconditionFailure("\(loading.problems)")
        }
        return LoopActor.assumeIsolated {
            do {
                let secret = [UInt8](repeating: 7, count: 32).withUnsafeBytes {
                    TLSTicketSecret($0)
                }
                let server = try TLSContext(
                    server: TLSServerConfiguration(
                        certificates: certificates, applicationProtocols: ["h2", "http/1.1"],
                        tickets: TLSTickets(secrets: [secret]), plaintextAnswer: { _ in [0x21] }),
                    clocks: .system)
                var configuration = TLSClientConfiguration()
                configuration.serverName = "b.example"
                configuration.applicationProtocols = ["h2"]
                return (server, try TLSContext(client: configuration))
            } catch {
                preconditionFailure("\(error)")
            }
        }
    }()

    /// - Precondition: what is said about the stream is true; else the process ends here.
    static func check(_ bytes: [UInt8], mode: UInt8) {
        let contexts = contexts
        LoopActor.assumeIsolated {
            let connection = FuzzedConnection(contexts.server)
            if mode & 1 == 1 { connection.shake(with: contexts.client) }
            connection.feed(bytes, piece: mode & 2 == 0 ? bytes.count : 1 + Int(mode >> 2))
            connection.end()
            // The hooks of this tick; the streams that they held are gone after it.
            Loop.shared.atEndOfTick { Loop.shared.stop() }
            Loop.shared.run()
        }
    }
}

/// A server's stream, its owner, and the connection that a fuzzer writes into.
@LoopActor
private final class FuzzedConnection: ByteStreamDelegate {
    private let lower = FuzzedStream()
    private let stream: TLSStream
    private var isDone = false
    private var failures = 0
    private var ends = 0
    private var received = 0

    init(_ context: TLSContext) {
        stream = TLSStream(over: lower, context)
        stream.handshake { result in
            precondition(!self.isDone, "a handshake ends once")
            self.isDone = true
            guard case .success = result else { return }
            self.stream.start(delegate: self, reading: true)
            self.stream.setWriteInterest(true)
        }
    }

    /// A true client's handshake, in this very call.
    func shake(with context: TLSContext) {
        let clientLower = FuzzedStream()
        let client = TLSStream(over: clientLower, context)
        client.handshake { _ in }
        // The first flight needs no input.
        clientLower.deliver([])
        for _ in 0..<4 {
            lower.deliver(clientLower.take())
            clientLower.deliver(lower.take())
        }
        precondition(isDone && !stream.isClosed, "a true client is let in")
        client.cut()
    }

    func feed(_ bytes: [UInt8], piece: Int) {
        var position = 0
        while position < bytes.count, !lower.isClosed {
            let end = min(bytes.count, position + piece)
            lower.deliver(Array(bytes[position..<end]))
            position = end
            precondition(lower.written.count <= 256 << 10, "answers without bound")
        }
    }

    func end() {
        lower.end()
        stream.close()
        precondition(stream.isClosed, "the end of the connection is the stream's")
        precondition(received == 0, "content that did not come by TLS")
        precondition(failures + ends <= 1, "one end")
    }

    func stream(_ stream: any ByteStream, didReceive bytes: UnsafeRawBufferPointer) {
        received += bytes.count
    }

    func streamDidReachEnd(_ stream: any ByteStream) { ends += 1 }
    func streamIsWritable(_ stream: any ByteStream) {}
    func stream(_ stream: any ByteStream, didFail error: SystemError) { failures += 1 }
}

/// A connection whose other end is the fuzzer.
@LoopActor
private final class FuzzedStream: ByteStream {
    private var delegate: (any ByteStreamDelegate)?
    private(set) var written: [UInt8] = []
    private(set) var isClosed = false
    var remoteAddress: SocketAddress? { nil }
    var localAddress: SocketAddress? { nil }

    func start(delegate: any ByteStreamDelegate, reading: Bool) { self.delegate = delegate }
    func setReading(_ isOn: Bool) {}
    func setWriteInterest(_ isOn: Bool) {}
    func shutdownWrite() {}

    func write(_ bytes: UnsafeRawBufferPointer) -> StreamWrite {
        precondition(!isClosed, "written after the close")
        written.append(contentsOf: bytes)
        return .wrote(bytes.count)
    }

    func close() {
        isClosed = true
        delegate = nil
    }

    func deliver(_ bytes: [UInt8]) {
        bytes.withUnsafeBytes { delegate?.stream(self, didReceive: $0) }
    }

    func end() { delegate?.streamDidReachEnd(self) }

    func take() -> [UInt8] {
        defer { written = [] }
        return written
    }
}
