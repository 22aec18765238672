internal import CLinux

/// What a program tells of where it runs.
package enum CurrentProcess {
    package static var identifier: Int32 { getpid() }

    /// The name of the machine (man proc_sys_kernel), or `unknown`.
    package static var host: String {
        guard let bytes = try? Files.read("/proc/sys/kernel/hostname", bytesMax: 256),
            let line = String(validating: bytes, as: UTF8.self)?.split(separator: "\n").first
        else { return "unknown" }
        return String(line.prefix(253))
    }
}
