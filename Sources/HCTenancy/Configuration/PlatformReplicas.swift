import HCCore

extension PlatformConfiguration {
    /// How shards' replicas are read from.
    package struct Replicas: Sendable, Equatable {
        /// A read must not miss a commit that is older than this.
        package var lagMax: Duration
        /// Between two questions of a process how far primary and replicas are, while it reads from replicas.
        package var sampleInterval: Duration
        /// How long replicas answer for a primary that is lost, where a route allows it.
        package var outageMax: Duration
        /// Connections that one process holds to one replica at most, besides the one that samples.
        package var connectionsMax: Int

        package init(
            lagMax: Duration = .seconds(1), sampleInterval: Duration = .milliseconds(200),
            outageMax: Duration = .seconds(900), connectionsMax: Int = 4
        ) {
            self.lagMax = lagMax
            self.sampleInterval = sampleInterval
            self.outageMax = outageMax
            self.connectionsMax = connectionsMax
        }
    }
}

extension PlatformConfiguration.Replicas {
    init(_ reader: ConfigurationReader) {
        let standard = Self()
        lagMax = reader.duration(
            "lagMax", in: .milliseconds(50)...(.seconds(60)), default: standard.lagMax)
        sampleInterval = reader.duration(
            "sampleInterval", in: .milliseconds(10)...(.seconds(10)),
            default: standard.sampleInterval)
        outageMax = reader.duration(
            "outageMax", in: .zero...(.seconds(86_400)), default: standard.outageMax)
        connectionsMax = reader.integer(
            "connectionsMax", in: 1...1000, default: standard.connectionsMax)
        // A sample is that old when the next one comes: with less room no replica would ever be fresh. And the samples
        // that are remembered must reach back that far.
        if lagMax < sampleInterval * 2 {
            reader.report(
                "lagMax", "is less than two sampleIntervals: no replica would be fresh",
                "write a longer lagMax or a shorter sampleInterval")
        }
        if lagMax > sampleInterval * (PrimaryHistory.entriesMax / 2) {
            reader.report(
                "lagMax", "is more than \(PrimaryHistory.entriesMax / 2) sampleIntervals",
                "write a shorter lagMax or a longer sampleInterval")
        }
    }
}
