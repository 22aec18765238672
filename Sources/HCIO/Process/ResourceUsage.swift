internal import CLinux

/// What this process uses of the machine.
package enum ResourceUsage {
    /// Memory of this process that is in RAM, in bytes (man proc_pid_statm, second field); 0 where /proc
    /// is not mounted. Reads a file: a few microseconds.
    package static var residentBytes: Int {
        do {
            let text = String(
                decoding: try Files.read("/proc/self/statm", bytesMax: 4096), as: UTF8.self)
            let fields = text.split(separator: " ")
            guard fields.count > 1, let pages = Int(fields[1]) else { return 0 }
            return pages * Int(sysconf(Int32(_SC_PAGESIZE)))
        } catch {
            return 0
        }
    }

    /// Raises the number of descriptors that this process may have open to what an ordinary process may
    /// raise it to (man setrlimit, RLIMIT_NOFILE).
    ///
    /// - Returns: how many it may have open now.
    @discardableResult
    package static func raiseOpenFilesLimit() throws(SystemError) -> Int {
        var limit: UInt = 0
        try SystemCall.make("setrlimit(RLIMIT_NOFILE)") { hc_raise_open_files_limit(&limit) }
        return Int(clamping: limit)
    }
}
