import HCCore
import HCCrypto

/// Gives each file of a directory the name under which it is served, and writes these names into the files that
/// refer to it. Pure.
///
/// A file's name holds a hash of its content, `app.3f9c…e1.js`, so that what is behind a name never changes and may
/// be kept for ever. Documents (`.html`) keep their names, for people and links know them. Directories become
/// parts of the name: `js/app.js` is `js-app.3f9c…e1.js`, so that every name is one segment of a path.
struct AssetManifest {
    struct Entry: Sendable, Equatable {
        /// The one segment behind the mount; empty for the index.
        let name: String
        let type: AssetType
        /// With the names of other files written in.
        let bytes: [UInt8]
        /// Hex digits of the SHA-256 of the bytes.
        let hash: String
    }

    private static let hashDigits = 16
    static let index = "index.html"

    /// In the order of their paths.
    private(set) var entries: [Entry] = []

    private let mount: String
    private let files: [String: [UInt8]]
    private var done: [String: Entry] = [:]
    /// Files whose references are being written: one that is met again refers to itself.
    private var open: [String] = []

    /// - Parameter mount: begins and ends with a slash.
    /// - Throws: `AssetError` for a type that is not known, and for files that refer to each other in a circle: their
    ///   names would depend on their names.
    init(_ files: [AssetDirectory.File], mount: String) throws(AssetError) {
        precondition(mount.hasPrefix("/") && mount.hasSuffix("/"), "a mount is a directory")
        self.mount = mount
        self.files = Dictionary(files.map { ($0.path, $0.bytes) }, uniquingKeysWith: { $1 })
        for file in files { entries.append(try entry(file.path, file.bytes)) }
    }

    private mutating func entry(_ path: String, _ bytes: [UInt8]) throws(AssetError) -> Entry {
        if let done = done[path] { return done }
        let type = try AssetManifest.type(of: path)
        guard !open.contains(path) else {
            throw AssetError("\(open.joined(separator: ", ")): these files refer to each other")
        }
        open.append(path)
        defer { open.removeLast() }
        let content = type.refers ? try rewritten(path, bytes, type) : bytes
        let hash: String
        do {
            hash = try AssetManifest.hash(content)
        } catch {
            throw AssetError("\(path): \(error)")
        }
        let made = Entry(
            name: AssetManifest.name(path, type, hash), type: type, bytes: content, hash: hash)
        done[path] = made
        return made
    }

    /// The beginning of the SHA-256 in hex digits.
    ///
    /// - Throws: `CryptoError` if there is no memory.
    static func hash(_ bytes: [UInt8]) throws -> String {
        String(try SHA256.hash(bytes).hex.prefix(hashDigits))
    }

    /// Replaces what stands in quotes or parentheses and is the path of another file.
    private mutating func rewritten(
        _ path: String, _ bytes: [UInt8], _ type: AssetType
    ) throws(AssetError) -> [UInt8] {
        var result: [UInt8] = []
        result.reserveCapacity(bytes.count + 256)
        var position = 0
        while position < bytes.count {
            let byte = bytes[position]
            result.append(byte)
            position += 1
            guard let closing = AssetManifest.closing(byte) else { continue }
            var end = position
            while end < bytes.count, AssetManifest.isPath(bytes[end]) { end += 1 }
            guard end > position, end < bytes.count, bytes[end] == closing else { continue }
            let text = String(decoding: bytes[position..<end], as: UTF8.self)
            guard let name = try resolve(text, from: path, type) else { continue }
            result.append(contentsOf: (mount + name).utf8)
            position = end
        }
        return result
    }

    /// The name of the file that `text` means in the file at `path`; nil if it means none.
    private mutating func resolve(
        _ text: String, from path: String, _ type: AssetType
    ) throws(AssetError) -> String? {
        var parts: [Substring]
        var rest = text[...]
        if rest.hasPrefix(mount) {
            parts = []
            rest = rest.dropFirst(mount.count)
        } else {
            guard !rest.hasPrefix("/") else { return nil }
            // A word in a script is a path only if it says so, as a module's does.
            guard type != .script || rest.hasPrefix("./") || rest.hasPrefix("../") else {
                return nil
            }
            parts = path.split(separator: "/").dropLast()
        }
        for part in rest.split(separator: "/", omittingEmptySubsequences: false) {
            switch part {
            case "": return nil
            case ".": continue
            case "..":
                guard !parts.isEmpty else { return nil }
                parts.removeLast()
            default: parts.append(part)
            }
        }
        let target = parts.joined(separator: "/")
        guard let bytes = files[target] else { return nil }
        // A document's name does not depend on its content: two may well refer to each other.
        let targetType = try AssetManifest.type(of: target)
        if targetType == .document { return AssetManifest.name(target, targetType, "") }
        return try entry(target, bytes).name
    }

    private static func name(_ path: String, _ type: AssetType, _ hash: String) -> String {
        if path == index { return "" }
        let flat = path.split(separator: "/").joined(separator: "-")
        guard type != .document, let dot = flat.lastIndex(of: ".") else { return flat }
        return "\(flat[..<dot]).\(hash)\(flat[dot...])"
    }

    private static func type(of path: String) throws(AssetError) -> AssetType {
        guard let dot = path.lastIndex(of: "."),
            let type = AssetType(fileExtension: path[path.index(after: dot)...].lowercased())
        else { throw AssetError("\(path): no media type is known for files of this name") }
        return type
    }

    private static func closing(_ byte: UInt8) -> UInt8? {
        switch byte {
        case 0x22, 0x27, 0x60: byte
        case 0x28: 0x29
        default: nil
        }
    }

    private static func isPath(_ byte: UInt8) -> Bool {
        switch byte {
        case 0x30...0x39, 0x41...0x5A, 0x61...0x7A, 0x2D, 0x2E, 0x2F, 0x5F: true
        default: false
        }
    }
}

/// What a file is, by the end of its name.
enum AssetType: Sendable, Equatable, CaseIterable {
    case document, style, script, json, manifest, text, xml
    case svg, png, jpeg, gif, webp, avif, icon
    case woff, woff2, wasm, pdf

    init?(fileExtension: String) {
        switch fileExtension {
        case "html": self = .document
        case "css": self = .style
        case "js", "mjs": self = .script
        case "json", "map": self = .json
        case "webmanifest": self = .manifest
        case "txt": self = .text
        case "xml": self = .xml
        case "svg": self = .svg
        case "png": self = .png
        case "jpg", "jpeg": self = .jpeg
        case "gif": self = .gif
        case "webp": self = .webp
        case "avif": self = .avif
        case "ico": self = .icon
        case "woff": self = .woff
        case "woff2": self = .woff2
        case "wasm": self = .wasm
        case "pdf": self = .pdf
        default: return nil
        }
    }

    var mediaType: StaticString {
        switch self {
        case .document: "text/html; charset=utf-8"
        case .style: "text/css; charset=utf-8"
        case .script: "text/javascript; charset=utf-8"
        case .json: "application/json"
        case .manifest: "application/manifest+json"
        case .text: "text/plain; charset=utf-8"
        case .xml: "application/xml"
        case .svg: "image/svg+xml"
        case .png: "image/png"
        case .jpeg: "image/jpeg"
        case .gif: "image/gif"
        case .webp: "image/webp"
        case .avif: "image/avif"
        case .icon: "image/vnd.microsoft.icon"
        case .woff: "font/woff"
        case .woff2: "font/woff2"
        case .wasm: "application/wasm"
        case .pdf: "application/pdf"
        }
    }

    /// Whether its text may name other files.
    var refers: Bool {
        switch self {
        case .document, .style, .script, .manifest, .svg: true
        default: false
        }
    }
}
