package import HCCore
import HCIO
import Synchronization

/// The time zones of the machine's tz database, read when first asked for.
///
/// Safe from any thread. A file is some kilobytes out of the page cache, read once: that is worth no hop
/// to the blocking pool. At most `zonesMax` are kept.
package final class ZoneCatalog: Sendable {
    package static let system = ZoneCatalog(directory: "/usr/share/zoneinfo")

    private static let zonesMax = 128
    private static let fileBytesMax = 64 * 1024

    private let directory: String
    private let cache = Mutex(LRUCache<String, TimeZoneRules>(capacityMax: zonesMax))

    package init(directory: String) {
        self.directory = directory
    }

    /// - Returns: nil if there is no such zone.
    package func rules(named name: String) -> TimeZoneRules? {
        if let rules = cache.withLock({ $0.find(name) }) { return rules }
        guard ZoneCatalog.isZoneName(name), let rules = load(name) else { return nil }
        cache.withLock { _ = $0.insert(rules, for: name) }
        return rules
    }

    private func load(_ name: String) -> TimeZoneRules? {
        do {
            let bytes = try Files.read(
                "\(directory)/\(name)", bytesMax: ZoneCatalog.fileBytesMax)
            return try TimeZoneRules(tzif: bytes)
        } catch {
            // Not there, a directory, or no TZif: in each case no zone of this name.
            return nil
        }
    }

    /// One to three parts of letters, digits, `_`, `+` and `-`, the first letter a capital: so no path out
    /// of the directory, and none of its files that are no zones (`posixrules`, `zone.tab`, `right/…`).
    static func isZoneName(_ name: String) -> Bool {
        guard name.utf8.count <= 64, let first = name.utf8.first, (0x41...0x5A).contains(first)
        else { return false }
        let parts = name.split(separator: "/", omittingEmptySubsequences: false)
        guard (1...3).contains(parts.count) else { return false }
        return parts.allSatisfy { part in
            !part.isEmpty
                && part.utf8.allSatisfy {
                    TextRules.isAlphanumeric($0) || $0 == UInt8(ascii: "_")
                        || $0 == UInt8(ascii: "+") || $0 == UInt8(ascii: "-")
                }
        }
    }
}
