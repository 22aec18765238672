import CLinux
import HCCore
import HCIO

/// Why a directory cannot be served.
package struct AssetError: Error, Sendable, Equatable, CustomStringConvertible {
    package let description: String

    init(_ description: String) {
        self.description = description
    }
}

/// How much a directory of assets may hold: all of it stays in memory.
package struct AssetLimits: Sendable {
    package var filesMax = 512
    package var fileBytesMax = 8 << 20
    /// Of all files together, and again of their compressed forms.
    package var bytesMax = 32 << 20
    package var depthMax = 8

    package init() {}
}

/// Reads a directory of static files: names and bytes, once, at the start.
enum AssetDirectory {
    struct File: Sendable, Equatable {
        /// From the directory down, with slashes: `js/app.js`.
        let path: String
        let bytes: [UInt8]
    }

    /// Blocks. Names that begin with a dot are passed over.
    ///
    /// - Throws: `AssetError` for what cannot be read or is above a limit, and for links: what they lead to was
    ///   perhaps not meant to be served.
    static func read(_ directory: String, _ limits: AssetLimits) throws(AssetError) -> [File] {
        var files: [File] = []
        var left = limits.bytesMax
        try read(directory, below: "", depth: 0, limits, &files, &left)
        return files
    }

    private static func read(
        _ directory: String, below prefix: String, depth: Int, _ limits: AssetLimits,
        _ files: inout [File], _ left: inout Int
    ) throws(AssetError) {
        guard depth <= limits.depthMax else {
            throw AssetError("\(directory): more than \(limits.depthMax) directories deep")
        }
        do {
            for name in try Files.list(directory) where !name.hasPrefix(".") {
                let path = "\(directory)/\(name)"
                guard name.utf8.allSatisfy(isPlain) else {
                    throw AssetError(
                        "\(path): only letters, digits, '.', '_' and '-' may be in a name")
                }
                switch try kind(of: path) {
                case S_IFDIR:
                    try read(
                        path, below: "\(prefix)\(name)/", depth: depth + 1, limits, &files, &left)
                case S_IFREG:
                    guard files.count < limits.filesMax else {
                        throw AssetError("\(directory): more than \(limits.filesMax) files")
                    }
                    let bytes = try Files.read(path, bytesMax: limits.fileBytesMax)
                    left -= bytes.count
                    guard left >= 0 else {
                        throw AssetError(
                            "\(directory): more than \(limits.bytesMax) bytes in all files")
                    }
                    files.append(File(path: prefix + name, bytes: bytes))
                default: throw AssetError("\(path): neither a file nor a directory")
                }
            }
        } catch let error as AssetError {
            throw error
        } catch {
            throw AssetError("\(error)")
        }
    }

    private static func isPlain(_ byte: UInt8) -> Bool {
        switch byte {
        case 0x30...0x39, 0x41...0x5A, 0x61...0x7A, 0x2D, 0x2E, 0x5F: true
        default: false
        }
    }

    private static func kind(of path: String) throws(AssetError) -> Int32 {
        var status = stat()
        guard lstat(path, &status) == 0 else {
            throw AssetError("\(path): \(String(cString: strerror(hc_errno())))")
        }
        return Int32(bitPattern: status.st_mode) & S_IFMT
    }
}
