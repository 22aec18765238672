package import HCCore
import HCIO

/// What the map of all clinics costs a process, measured in this one.
package struct DirectoryMeasurement: Sendable {
    package let tenants: Int
    /// From the control database, until every clinic can be found.
    package let loading: Duration
    /// Of the process, by what is resident before and after.
    package let bytes: Int
    /// Finding a clinic by its host, the hosts in random order.
    package let lookup: Duration
    /// The last good map on disk.
    package let fileBytes: Int
    package let fileWriting: Duration
    package let fileReading: Duration

    /// Loads the map as a worker does, and writes and reads it as a file.
    ///
    /// - Parameters:
    ///   - scratch: where the file may be; it is removed.
    ///   - random: in which order hosts are looked up.
    @LoopActor
    package static func make(
        configuration: PlatformConfiguration, clocks: Clocks, scratch: String, lookups: Int,
        using random: inout some RandomNumberGenerator
    ) async throws -> DirectoryMeasurement {
        var settings = DirectoryConfiguration(
            applicationName: "hc-admin", file: nil,
            conninfo: { try configuration.conninfo("control.router") })
        settings.loadTimeout = .seconds(300)
        let follower = DirectoryFollower(
            settings, clocks: clocks, logger: .silent, metrics: TenancyMetrics(.unread),
            blocking: BlockingPool())
        let before = try residentBytes()
        var start = clocks.monotonic()
        _ = try await follower.load(deadline: .after(settings.loadTimeout, from: start))
        let loading = clocks.monotonic() - start
        let bytes = try residentBytes() - before
        guard let map = follower.snapshot else {
            throw TenancyError.directoryUnavailable(retryAfter: .seconds(1))
        }
        var hosts = map.tenants.compactMap(\.hosts.first)
        hosts.shuffle(using: &random)
        var found = 0
        start = clocks.monotonic()
        for number in 0..<(hosts.isEmpty ? 0 : lookups)
        where map.find(host: hosts[number % hosts.count]) != nil {
            found += 1
        }
        let lookup = (clocks.monotonic() - start) / max(1, found)
        start = clocks.monotonic()
        guard try DirectoryFile.replace(scratch, with: map) else {
            throw DirectoryFile.Problem.content("another process writes it")
        }
        let fileWriting = clocks.monotonic() - start
        start = clocks.monotonic()
        let copy = try DirectoryFile.read(scratch)
        let fileReading = clocks.monotonic() - start
        guard copy.tenantCount == map.tenantCount,
            let state = try DirectoryFile.state(of: scratch, verified: false)
        else { throw DirectoryFile.Problem.content("another map") }
        return DirectoryMeasurement(
            tenants: map.tenantCount, loading: loading, bytes: bytes, lookup: lookup,
            fileBytes: state.end, fileWriting: fileWriting, fileReading: fileReading)
    }

    /// man 5 proc, statm: pages that are resident.
    private static func residentBytes() throws -> Int {
        let text = String(decoding: try Files.read("/proc/self/statm"), as: UTF8.self)
        return text.split(separator: " ").dropFirst().first.flatMap { Int($0) }.map { $0 * 4096 }
            ?? 0
    }
}
