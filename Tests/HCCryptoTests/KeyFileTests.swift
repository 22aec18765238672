import Glibc
import HCCore
import Testing

@testable import HCCrypto

@Suite("key files")
struct KeyFileTests {
    private let good = "9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08"
    private let other = "60303ae22b998861bce3b28f33eec1be758a213c86c93c076dbe9f558c11c752"

    private func problem(_ text: String, mode: mode_t = 0o600) throws -> KeyFileError.Problem? {
        let directory = try TemporaryDirectory()
        let path = try directory.write(text, mode: mode)
        do throws(KeyFileError) {
            _ = try MasterKey.load(path: path)
            return nil
        } catch {
            #expect(error.path == path)
            #expect(error.description.contains(path))
            #expect(!error.description.contains(good.prefix(16)))
            return error.problem
        }
    }

    @Test("hex, base64 and named keys are read, the active one first")
    func reading() throws {
        let directory = try TemporaryDirectory()
        let bytes = try #require(Hex.decode(good))
        let binding = KeyBinding(tenant: .zero, purpose: "kek", version: 1)
        let secret = try SecretBytes(randomCount: 32)
        let wrapped = try MasterKey.load(path: try directory.write(good)).wrap(secret, as: binding)
        let spellings = [
            good + "\n", "  \(good)\r\n", good.uppercased(), "# a remark\n\n k1:\(good)\n",
            Base64.standard.encode(bytes), Base64.standard.encode(bytes) + "=\n",
            Base64.url.encode(bytes),
        ]
        for text in spellings {
            let key = try MasterKey.load(path: try directory.write(text))
            #expect(key.ids == ["k1"])
            #expect(try key.unwrap(wrapped, as: binding) == secret)
        }
        let both = try directory.write("k2:\(other)\nk1:\(good)\n", mode: 0o400)
        let ring = try MasterKey.load(path: both)
        #expect(ring.ids == ["k2", "k1"])
        #expect(try ring.unwrap(wrapped, as: binding) == secret)
        #expect(try TokenKeyRing.load(path: both).keyIDs == ["k2", "k1"])
    }

    @Test("a missing file, a directory and an unreadable path are told apart")
    func paths() throws {
        let directory = try TemporaryDirectory()
        for (path, expected) in [
            (directory.path + "/none", KeyFileError.Problem.missing),
            (directory.path, .notRegularFile),
            ("/dev/null", .notRegularFile),
        ] {
            do throws(KeyFileError) {
                _ = try TokenKeyRing.load(path: path)
                Issue.record("\(path) was accepted")
            } catch {
                #expect(error.problem == expected)
                #expect(error.description.hasPrefix("token key file \(path): "))
            }
        }
        let missing = KeyFileError(path: "/etc/hc/master", kind: "master key", problem: .missing)
        #expect(
            missing.description == "master key file /etc/hc/master: there is no such file. "
                + "Make one and keep a copy of it in a safe place: "
                + "openssl rand -hex 32 > /etc/hc/master; chmod 600 /etc/hc/master")
    }

    @Test(
        "a file that others can read or write is refused", arguments: [0o640, 0o604, 0o620, 0o601])
    func permissions(mode: Int) throws {
        #expect(
            try problem(good, mode: mode_t(mode)) == .permissionsTooOpen(mode: UInt32(mode)))
    }

    @Test("what is no key is refused, with its line")
    func malformed() throws {
        #expect(try problem("") == .empty)
        #expect(try problem("# nothing\n\n") == .empty)
        #expect(try problem("\n!!!") == .malformedLine(2))
        #expect(try problem(String(good.dropLast(2))) == .wrongLength(line: 1, bytes: 31))
        #expect(try problem(good + "00") == .wrongLength(line: 1, bytes: 33))
        #expect(try problem("k 1:\(good)") == .invalidIdentifier(line: 1))
        #expect(try problem(":\(good)") == .invalidIdentifier(line: 1))
        #expect(try problem("a:\(good)\na:\(other)") == .duplicateIdentifier(line: 2))
        #expect(try problem("a:\(good)\nb:\(good)") == .duplicateKey(line: 2))
        #expect(try problem(String(repeating: "#", count: 20_000)) == .tooLong)
    }

    @Test("a weak key is refused, with the reason")
    func weak() throws {
        func reason(_ text: String) throws -> String? {
            guard case .weak(1, let reason) = try problem(text) else { return nil }
            return reason
        }
        #expect(try reason(String(repeating: "00", count: 32)) == "all its bytes are equal")
        #expect(try reason(Hex.encode(Array(0..<32))) == "its bytes are a sequence")
        #expect(
            try reason(Hex.encode((0..<32).map { UInt8(255 - $0 * 2) }))
                == "its bytes are a sequence"
        )
        #expect(
            try reason(String(repeating: "0123456789abcdef", count: 4))
                == "it has only 8 distinct byte values")
        #expect(
            try reason(String(good.prefix(32)) + good.prefix(32)) != nil)
        #expect(
            try reason(Base64.standard.encode(Array("The quick brown fox jumps over 1".utf8)))
                == "its bytes are printable text, not random bytes")
        for text in ["CHANGE_ME", "changeme", "k1:replace-me", "your-secret-key-here", "example"] {
            #expect(try reason(text)?.hasPrefix("it is the placeholder") == true)
        }
    }

    @Test("random keys are never called weak")
    func random() {
        for _ in 0..<5000 {
            let bytes = SystemRandom.bytes(32)
            #expect(KeyFile.weakness(of: bytes) == nil, "\(Hex.encode(bytes))")
        }
    }
}

/// A directory of its own for one test, removed with what was written into it.
private final class TemporaryDirectory {
    let path: String
    private var files: [String] = []

    struct Failure: Error {
        var errno: Int32
    }

    init() throws {
        var template = Array("/tmp/hc-key-file-XXXXXX".utf8CString)
        guard mkdtemp(&template) != nil else { throw Failure(errno: errno) }
        path = template.withUnsafeBytes { bytes in
            String(decoding: bytes.prefix { $0 != 0 }, as: UTF8.self)
        }
    }

    func write(_ text: String, mode: mode_t = 0o600) throws -> String {
        let file = "\(path)/key\(files.count)"
        files.append(file)
        let descriptor = open(file, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0o600)
        guard descriptor >= 0 else { throw Failure(errno: errno) }
        defer { close(descriptor) }
        let bytes = Array(text.utf8)
        guard Glibc.write(descriptor, bytes, bytes.count) == bytes.count,
            fchmod(descriptor, mode) == 0
        else { throw Failure(errno: errno) }
        return file
    }

    deinit {
        for file in files { unlink(file) }
        rmdir(path)
    }
}
