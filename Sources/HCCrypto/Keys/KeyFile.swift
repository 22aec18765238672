import Glibc

/// Why a key file was refused. The description says what is wrong, where, and what to do.
package struct KeyFileError: Error, Hashable, Sendable, CustomStringConvertible {
    package enum Problem: Hashable, Sendable {
        case missing
        case unreadable(errno: Int32)
        case notRegularFile
        case permissionsTooOpen(mode: UInt32)
        case tooLong
        case empty
        case malformedLine(Int)
        case wrongLength(line: Int, bytes: Int)
        case weak(line: Int, reason: String)
        case invalidIdentifier(line: Int)
        case duplicateIdentifier(line: Int)
        case duplicateKey(line: Int)
        case library(CryptoError)
    }

    package var path: String
    /// `master key` or `token key`.
    package var kind: String
    package var problem: Problem

    package var description: String {
        "\(kind) file \(path): \(problem.text). \(remedy)"
    }

    private var remedy: String {
        let make = "openssl rand -hex 32 > \(path); chmod 600 \(path)"
        return switch problem {
        case .missing, .empty:
            "Make one and keep a copy of it in a safe place: \(make)"
        case .unreadable, .notRegularFile:
            "Give this program's user read access to a regular file at that path"
        case .permissionsTooOpen:
            "Only the owner may read it: chmod 600 \(path)"
        case .malformedLine, .wrongLength, .tooLong, .invalidIdentifier, .duplicateIdentifier,
            .duplicateKey:
            "Each line is [ID:]KEY, ID of letters, digits, '.', '_' and '-', KEY of 32 bytes in "
                + "hex or base64, the active key first; restore the file, or if it is new: \(make)"
        case .weak:
            "Nothing may be protected by such a key; make a random one: \(make)"
        case .library:
            "This is a fault of the OpenSSL installation; see the code"
        }
    }
}

extension KeyFileError.Problem {
    fileprivate var text: String {
        switch self {
        case .missing: "there is no such file"
        case .unreadable(let code): "cannot be read (\(String(cString: strerror(code))))"
        case .notRegularFile: "is not a regular file"
        case .permissionsTooOpen(let mode):
            "can be read or written by others (mode 0\(String(mode, radix: 8)))"
        case .tooLong: "is longer than \(KeyFile.bytesMax) bytes"
        case .empty: "holds no key"
        case .malformedLine(let line): "line \(line) is neither hex nor base64"
        case .wrongLength(let line, let bytes): "line \(line) has \(bytes) bytes instead of 32"
        case .weak(let line, let reason): "the key on line \(line) is weak: \(reason)"
        case .invalidIdentifier(let line): "line \(line) has an invalid identifier"
        case .duplicateIdentifier(let line): "line \(line) repeats an identifier"
        case .duplicateKey(let line): "line \(line) repeats a key"
        case .library(let error): error.description
        }
    }
}

/// Reads files of keys.
///
/// A file has one key a line: 32 bytes as 64 hex digits or as base64 (standard or URL alphabet,
/// padding optional), with an identifier and a colon before it if there is more than one:
///
///     # the active key comes first, the retired ones after it
///     k2:9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08
///     k1:60303ae22b998861bce3b28f33eec1be758a213c86c93c076dbe9f558c11c752
///
/// A key without an identifier gets `k1`. Empty lines and lines that begin with `#` are skipped.
enum KeyFile {
    struct Entry {
        var id: String
        var key: SecretBytes
    }

    static let bytesMax = 16 * 1024
    static let identifierCountMax = 32
    static let placeholders = [
        "changeme", "change_me", "change-me", "replaceme", "replace_me", "replace-me",
        "placeholder",
        "insert", "example", "secret", "password", "todo", "xxxx", "default", "your",
    ]

    static func load(path: String, kind: String) throws(KeyFileError) -> [Entry] {
        do throws(KeyFileError.Problem) {
            return try parse(try read(path))
        } catch {
            throw KeyFileError(path: path, kind: kind, problem: error)
        }
    }

    /// The file's text. Symbolic links are followed: that is how secrets are mounted.
    private static func read(_ path: String) throws(KeyFileError.Problem) -> [UInt8] {
        let descriptor = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK)
        guard descriptor >= 0 else {
            let code = errno
            throw code == ENOENT || code == ENOTDIR ? .missing : .unreadable(errno: code)
        }
        defer { close(descriptor) }
        var status = stat()
        guard fstat(descriptor, &status) == 0 else { throw .unreadable(errno: errno) }
        guard status.st_mode & S_IFMT == S_IFREG else { throw .notRegularFile }
        let mode = status.st_mode & 0o7777
        guard mode & 0o077 == 0 else { throw .permissionsTooOpen(mode: mode) }
        var text: [UInt8] = []
        var buffer = [UInt8](repeating: 0, count: 4096)
        while true {
            let count = Glibc.read(descriptor, &buffer, buffer.count)
            if count < 0 && errno == EINTR { continue }
            guard count >= 0 else { throw .unreadable(errno: errno) }
            if count == 0 { return text }
            text.append(contentsOf: buffer[..<count])
            guard text.count <= bytesMax else { throw .tooLong }
        }
    }

    static func parse(_ text: [UInt8]) throws(KeyFileError.Problem) -> [Entry] {
        var entries: [Entry] = []
        let lines = text.split(separator: UInt8(ascii: "\n"), omittingEmptySubsequences: false)
        for (index, bytes) in lines.enumerated() {
            let line = trimmed(bytes)
            guard let first = line.first, first != UInt8(ascii: "#") else { continue }
            let entry = try parseLine(String(decoding: line, as: UTF8.self), number: index + 1)
            guard !entries.contains(where: { $0.id == entry.id }) else {
                throw .duplicateIdentifier(line: index + 1)
            }
            guard !entries.contains(where: { $0.key == entry.key }) else {
                throw .duplicateKey(line: index + 1)
            }
            entries.append(entry)
        }
        guard !entries.isEmpty else { throw .empty }
        return entries
    }

    private static func trimmed(_ line: ArraySlice<UInt8>) -> ArraySlice<UInt8> {
        func isBlank(_ byte: UInt8) -> Bool { byte == 0x20 || byte == 0x09 || byte == 0x0D }
        var line = line.drop(while: isBlank)
        while let last = line.last, isBlank(last) { line.removeLast() }
        return line
    }

    private static func parseLine(
        _ line: String, number: Int
    ) throws(KeyFileError.Problem) -> Entry {
        var id = "k1"
        var digits = Substring(line)
        if let colon = line.firstIndex(of: ":") {
            id = String(line[..<colon])
            digits = line[line.index(after: colon)...]
            guard isIdentifier(id) else { throw .invalidIdentifier(line: number) }
        }
        let folded = digits.lowercased()
        for placeholder in placeholders where folded.contains(placeholder) && digits.count < 64 {
            // A random base64 key may hold a short word by chance, so a long one is judged by its bytes.
            guard decode(digits)?.count == 32 else {
                throw .weak(line: number, reason: "it is the placeholder '\(placeholder)'")
            }
        }
        guard let bytes = decode(digits) else { throw .malformedLine(number) }
        guard bytes.count == 32 else { throw .wrongLength(line: number, bytes: bytes.count) }
        if let reason = weakness(of: bytes) { throw .weak(line: number, reason: reason) }
        return Entry(id: id, key: SecretBytes(bytes))
    }

    static func isIdentifier(_ id: String) -> Bool {
        (1...identifierCountMax).contains(id.utf8.count)
            && id.utf8.allSatisfy { byte in
                switch byte {
                case UInt8(ascii: "a")...UInt8(ascii: "z"), UInt8(ascii: "A")...UInt8(ascii: "Z"),
                    UInt8(ascii: "0")...UInt8(ascii: "9"), UInt8(ascii: "."), UInt8(ascii: "_"),
                    UInt8(ascii: "-"):
                    true
                default: false
                }
            }
    }

    /// Hex if every character is a hex digit, else base64.
    private static func decode(_ digits: Substring) -> [UInt8]? {
        if let bytes = Hex.decode(digits) { return bytes }
        var digits = digits
        while digits.hasSuffix("=") { digits.removeLast() }
        return Base64.standard.decode(digits) ?? Base64.url.decode(digits)
    }

    /// Why 32 bytes cannot have been drawn at random, or nil.
    ///
    /// 32 random bytes have 30 distinct values on average; fewer than 16 do not happen by chance
    /// (below 1 in 2^60). A text that a person typed has only letters.
    static func weakness(of bytes: [UInt8]) -> String? {
        let distinct = Set(bytes).count
        if distinct == 1 { return "all its bytes are equal" }
        let steps = zip(bytes, bytes.dropFirst()).map { $1 &- $0 }
        if Set(steps).count == 1 { return "its bytes are a sequence" }
        if distinct < 16 { return "it has only \(distinct) distinct byte values" }
        if bytes.allSatisfy({ (0x20...0x7E).contains($0) }) {
            return "its bytes are printable text, not random bytes"
        }
        if bytes[..<16] == bytes[16...] { return "its halves are equal" }
        return nil
    }
}

extension KeyFileError.Problem: Error {}
