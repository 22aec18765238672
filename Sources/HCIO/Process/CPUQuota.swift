internal import CLinux

/// How many processors this process really has.
package enum CPUQuota {
    /// Whole processors, at least 1: those it may run on (man sched_getaffinity), or fewer if a control
    /// group of it or of an ancestor gives less time than that.
    package static func cores() -> Int {
        let affinity = Int(hc_affinity_count())
        return cores(
            affinity: affinity > 0 ? affinity : 1, quotas: quotas(root: "", read: readText))
    }

    static func cores(affinity: Int, quotas: [Double]) -> Int {
        let quota = quotas.min() ?? .infinity
        return max(1, quota < Double(affinity) ? Int(quota) : affinity)
    }

    /// The quotas of the process' control groups in processors, version 1 and 2.
    ///
    /// - Parameter read: the text of a file, nil where there is none.
    static func quotas(root: String, read: (String) -> String?) -> [Double] {
        var quotas: [Double] = []
        for line in (read("\(root)/proc/self/cgroup") ?? "").split(separator: "\n") {
            // hierarchy:controllers:path (man cgroups, /proc/pid/cgroup).
            let fields = line.split(
                separator: ":", maxSplits: 2, omittingEmptySubsequences: false)
            guard fields.count == 3 else { continue }
            let controllers = fields[1].split(separator: ",")
            for directory in ancestors(String(fields[2])) {
                if fields[0] == "0", controllers.isEmpty {
                    let text = read("\(root)/sys/fs/cgroup\(directory)/cpu.max")
                    if let quota = text.flatMap(parseMaximum) { quotas.append(quota) }
                } else if controllers.contains("cpu") {
                    let base = "\(root)/sys/fs/cgroup/cpu\(directory)"
                    if let quota = parseVersion1(
                        quota: read("\(base)/cpu.cfs_quota_us"),
                        period: read("\(base)/cpu.cfs_period_us"))
                    {
                        quotas.append(quota)
                    }
                }
            }
        }
        return quotas
    }

    /// `/a/b` gives `/a/b`, `/a` and the empty path of the root. A namespace shows its own group as `/`.
    private static func ancestors(_ path: String) -> [String] {
        var names = path.split(separator: "/").filter { $0 != ".." }
        var paths: [String] = []
        while !names.isEmpty {
            paths.append("/" + names.joined(separator: "/"))
            names.removeLast()
        }
        return paths + [""]
    }

    /// `max 100000` or `150000 100000`: microseconds of processor time, and in how many.
    static func parseMaximum(_ text: String) -> Double? {
        let fields = text.split(whereSeparator: \.isWhitespace)
        guard fields.count == 2, let quota = Double(fields[0]), let period = Double(fields[1]),
            quota > 0, period > 0
        else { return nil }
        return quota / period
    }

    /// A quota of -1 is none.
    private static func parseVersion1(quota: String?, period: String?) -> Double? {
        guard let quota, let period else { return nil }
        return parseMaximum("\(quota) \(period)")
    }

    private static func readText(_ path: String) -> String? {
        do {
            return String(decoding: try Files.read(path, bytesMax: 65_536), as: UTF8.self)
        } catch {
            return nil
        }
    }
}
