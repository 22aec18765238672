internal import CLinux

/// Bytes that another process gets as a descriptor: a file without a name.
package enum MemoryFile {
    /// - Returns: a file with these bytes, close-on-exec, which nobody can change any more (man memfd_create).
    package static func make(_ name: String, _ bytes: [UInt8]) throws(SystemError)
        -> OwnedDescriptor
    {
        let file = OwnedDescriptor(try SystemCall.make("memfd_create") { hc_memory_file(name) })
        let fd = file.rawValue
        try write(bytes, to: fd)
        try SystemCall.make("fcntl(F_ADD_SEALS)") { hc_seal(fd) }
        return file
    }

    /// - Returns: an empty file that whoever has it open can write to.
    package static func makeEmpty(_ name: String) throws(SystemError) -> OwnedDescriptor {
        OwnedDescriptor(try SystemCall.make("memfd_create") { hc_memory_file(name) })
    }

    /// Appends.
    package static func write(_ bytes: [UInt8], to descriptor: Int32) throws(SystemError) {
        var rest = bytes[...]
        while !rest.isEmpty {
            let count = try SystemCall.make("write(memfd)") {
                rest.withUnsafeBytes { CLinux.write(descriptor, $0.baseAddress, $0.count) }
            }
            rest = rest.dropFirst(count)
        }
    }

    /// The whole content. Its place in the file, which all who have it open share, does not matter.
    ///
    /// - Throws: SystemError; EFBIG if there are more than `bytesMax` bytes.
    package static func read(_ descriptor: Int32, bytesMax: Int) throws(SystemError) -> [UInt8] {
        var bytes: [UInt8] = []
        var chunk = [UInt8](repeating: 0, count: 65_536)
        while true {
            let count = try SystemCall.make("pread") {
                pread(descriptor, &chunk, chunk.count, bytes.count)
            }
            if count == 0 { return bytes }
            guard bytes.count + count <= bytesMax else {
                throw SystemError(errno: EFBIG, call: "pread")
            }
            bytes += chunk[..<count]
        }
    }
}
