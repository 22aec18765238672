import CLinux

/// The variables that this process was started with.
package enum ProcessEnvironment {
    /// Read once: nobody changes them later, so no thread can see them change.
    package static let current: [String: String] = {
        var variables: [String: String] = [:]
        guard var entry = hc_environ() else { return variables }
        while let text = entry.pointee {
            let line = String(cString: text)
            if let separator = line.firstIndex(of: "=") {
                variables[String(line[..<separator])] = String(
                    line[line.index(after: separator)...])
            }
            entry += 1
        }
        return variables
    }()
}
