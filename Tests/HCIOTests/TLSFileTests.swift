import HCCore
import HCTesting
import Synchronization
import Testing

@testable import HCIO

@Suite("Certificate files", .onLoop) @LoopActor struct TLSFileTests {
    private func load(
        _ files: TestCertificates, now: Timestamp = TLSFixture.now, previous: TLSCertificates? = nil
    ) -> TLSCertificates.Loading {
        TLSCertificates.load(
            directory: files.directory, baseDomain: "clinics.example", now: now, previous: previous)
    }

    @Test("a directory of pairs is found, with its names and its default")
    func directory() throws {
        let files = try TestCertificates()
        try files.make("a", hosts: ["a.example", "www.A.example"])
        try files.make("b", hosts: ["*.clinics.example"])
        let loading = load(files)
        #expect(loading.problems.isEmpty)
        let found = try #require(loading.certificates)
        #expect(found.all.map(\.name) == ["a", "b"])
        #expect(found.standard.name == "b")
        #expect(found.find(host: "www.a.example")?.name == "a")
        #expect(found.find(host: "x.clinics.example")?.name == "b")
        #expect(found.find(host: "clinics.example") == nil)
        #expect(found.find(host: "x.y.clinics.example") == nil)
        #expect(found.find(host: ".clinics.example") == nil)
        try files.make("default", hosts: ["c.example"])
        #expect(load(files).certificates?.standard.name == "default")
    }

    @Test("of two certificates for one name, the one that lasts longer is used")
    func renewal() throws {
        let files = try TestCertificates()
        try files.make("new", hosts: ["a.example", "*.b.example"], days: 60)
        try files.make("old", hosts: ["a.example", "*.b.example"], days: 10)
        let found = try #require(load(files).certificates)
        #expect(found.find(host: "a.example")?.name == "new")
        #expect(found.find(host: "x.b.example")?.name == "new")
    }

    @Test(
        "of each kind of key one is kept for a name, the one that lasts longer; ECDSA comes first")
    func kindsOfKeys() throws {
        let files = try TestCertificates()
        try files.make("a-rsa", hosts: ["a.example"], days: 90, key: .rsa(2048))
        try files.make("a-rsa-old", hosts: ["a.example"], days: 5, key: .rsa(2048))
        try files.make("a-ec", hosts: ["a.example"], days: 10)
        let found = try #require(load(files).certificates)
        #expect(found.choice(host: "a.example")?.all.map(\.name) == ["a-ec", "a-rsa"])
        #expect(found.find(host: "a.example")?.name == "a-ec")
    }

    @Test("each problem names its file and what to do")
    func problems() throws {
        let files = try TestCertificates()
        try files.make("good", hosts: ["good.example"])
        func expect(
            _ file: String, _ problem: String, _ remedy: String, now: Timestamp = TLSFixture.now
        ) {
            let loading = load(files, now: now)
            let found = loading.problems.first { $0.file == files.path(file) }
            #expect(found?.problem.contains(problem) == true, "\(file): \(loading.problems)")
            #expect(found?.remedy.contains(remedy) == true, "\(file): \(loading.problems)")
        }
        try files.make("keyless")
        try files.remove("keyless.key")
        expect("keyless.key", "there is no such file", "0600")
        try files.make("mixed")
        try files.openssl(["genrsa", "-out", files.path("mixed.key"), "2048"])
        expect("mixed.key", "is not the key of the certificate", "belong together")
        try files.make("open")
        try files.write(
            Array(try Repository.contents(of: files.path("open.key")).utf8), to: "open.key",
            mode: 0o644)
        expect("open.key", "can be read or written by others", "chmod 600")
        try files.make("locked")
        try files.openssl([
            "pkey", "-in", files.path("locked.key"), "-aes256", "-passout", "pass:secret", "-out",
            files.path("locked.tmp"),
        ])
        try files.move("locked.tmp", to: "locked.key")
        expect("locked.key", "is encrypted", "openssl pkey")
        try files.make("empty")
        try files.write([], to: "empty.crt")
        expect("empty.crt", "holds no certificate", "BEGIN")
        try files.make("damaged")
        try files.write(
            Array("-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n".utf8),
            to: "damaged.crt")
        expect("damaged.crt", "is damaged", "BEGIN")
        try files.make("nokey")
        try files.write(Array("no key\n".utf8), to: "nokey.key")
        expect("nokey.key", "holds no private key", "PRIVATE KEY")
        try files.make("long")
        let one = Array(try Repository.contents(of: files.path("long.crt")).utf8)
        let most = TLSCertificate.Limits.chainMax
        try files.write([[UInt8]](repeating: one, count: most + 1).flatMap { $0 }, to: "long.crt")
        expect("long.crt", "more than \(most)", "BEGIN")
        try files.make("weak", key: .rsa(1024))
        expect("weak.crt", "cannot be used", "2048 bits")
        // All the others are refused, and the one that is good is used.
        #expect(load(files).certificates?.all.map(\.name) == ["good"])
        let year = Duration.seconds(365 * 86_400)
        expect("good.crt", "expired at", "renewed", now: TLSFixture.now + year)
        expect("good.crt", "is valid only from", "clock", now: TLSFixture.now - year)
    }

    @Test("a directory that is not there or is empty is a problem")
    func noDirectory() throws {
        let files = try TestCertificates()
        #expect(load(files).problems.map(\.problem) == ["holds no certificate"])
        let missing = TLSCertificates.load(
            directory: files.path("none"), baseDomain: "a", now: TLSFixture.now)
        #expect(missing.certificates == nil && missing.problems.count == 1)
    }

    @Test(
        "an OCSP answer is refused if it is broken, old, about another certificate or says revoked")
    func staples() throws {
        let files = try TestCertificates()
        try files.make("ca")
        try files.make("a", authority: "ca")
        try files.make("b", authority: "ca")
        try files.staple("a", authority: "ca")
        #expect(load(files).certificates?.all.first { $0.name == "a" }?.stapleExpires != nil)
        let week = Duration.seconds(8 * 86_400)
        #expect(
            load(files, now: TLSFixture.now + week).problems.contains {
                $0.problem.contains("was good until")
            })
        try files.move("a.ocsp", to: "b.ocsp")
        #expect(load(files).problems.map(\.problem) == ["is about another certificate"])
        try files.staple("b", authority: "ca", isGood: false)
        #expect(
            load(files).problems.map(\.problem) == [
                "says that the certificate is revoked or unknown"
            ])
        try files.write([1, 2, 3], to: "b.ocsp")
        #expect(load(files).problems.map(\.problem) == ["is no OCSP response in DER"])
        // OCSPResponse with the status tryLater (RFC 6960 4.2.1).
        try files.write([0x30, 3, 0x0A, 1, 3], to: "b.ocsp")
        #expect(load(files).problems.map(\.problem) == ["is a responder's refusal"])
        // Without a staple the certificate is used all the same.
        #expect(load(files).certificates?.all.map(\.name) == ["a", "b", "ca"])
    }

    @Test("authorities of clients: a file without any is a problem")
    func authorities() throws {
        let files = try TestCertificates()
        try files.make("one")
        #expect(try TLSClientAuthority.load(file: files.path("one.crt")).certificates.count == 1)
        for (content, problem) in [
            ("", "holds no certificate"), ("text\n", "holds no certificate"),
            ("-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n", "is damaged"),
        ] {
            try files.write(Array(content.utf8), to: "none.crt")
            let found = #expect(throws: TLSFileProblem.self) {
                try TLSClientAuthority.load(file: files.path("none.crt"))
            }
            #expect(found?.problem.contains(problem) == true, "\(content)")
        }
    }

    // MARK: Following

    private struct Following {
        let files: TestCertificates
        let context: TLSContext
        let metrics: TLSMetrics
        let follower: TLSCertificateFollower
        let log: Log
    }

    private final class Log: Sendable {
        let lines = Mutex<[String]>([])
        var text: String { lines.withLock { $0.joined() } }
    }

    private func following() throws -> Following {
        let files = try TestCertificates()
        try files.make("base", hosts: ["*.clinics.example"])
        let loading = load(files)
        let metrics = TLSMetrics(MetricsRegistry())
        let context = try TLSContext(
            server: TLSServerConfiguration(certificates: try #require(loading.certificates)),
            clocks: .system, metrics: metrics)
        let log = Log()
        let logger = Logger(level: .info, clocks: .system) { line in
            let text = String(decoding: line, as: UTF8.self)
            log.lines.withLock { $0.append(text) }
        }
        let follower = TLSCertificateFollower(
            loading, directory: files.directory, baseDomain: "clinics.example",
            interval: .seconds(1),
            contexts: [context], blocking: BlockingPool(), clocks: .system, logger: logger)
        return Following(
            files: files, context: context, metrics: metrics, follower: follower, log: log)
    }

    @Test("a new certificate is used once its files have stayed the same for a look")
    func follow() async throws {
        let following = try following()
        let before = try #require(following.context.certificates).standard.fingerprint
        try await following.follower.look()
        try following.files.make("base", hosts: ["*.clinics.example"])
        try await following.follower.look()
        #expect(following.context.certificates?.standard.fingerprint == before)
        try await following.follower.look()
        #expect(following.context.certificates?.standard.fingerprint != before)
        #expect(following.metrics.reloads.value == 1)
        #expect(following.log.text.contains("certificates in use"))
        for _ in 0..<3 { try await following.follower.look() }
        #expect(following.metrics.reloads.value == 1)
    }

    @Test("a certificate that cannot be used is refused by name, and the one before stays")
    func refuse() async throws {
        let following = try following()
        let before = try #require(following.context.certificates).standard.fingerprint
        try following.files.openssl(["genrsa", "-out", following.files.path("base.key"), "2048"])
        try await following.follower.look()
        try await following.follower.look()
        #expect(following.context.certificates?.standard.fingerprint == before)
        #expect(following.metrics.refusedReloads.value == 1)
        #expect(following.log.text.contains("base.key"))
        #expect(following.log.text.contains("is not the key of the certificate"))
        // A handshake with the old one still works.
        let pair = try await TLSPair.shaken(
            following.context, try TLSFixture.client("x.clinics.example") { $0.authority = nil })
        #expect(pair.handshake != nil)
        pair.close()
    }

    @Test("when all files go, the certificates stay")
    func gone() async throws {
        let following = try following()
        try following.files.remove("base.crt")
        try await following.follower.look()
        try await following.follower.look()
        #expect(following.context.certificates?.standard.name == "base")
        #expect(following.metrics.refusedReloads.value == 1)
    }
}
