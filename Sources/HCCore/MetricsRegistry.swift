import Synchronization

/// The metrics of one process by name and labels. Registering costs a lock and a search: rooms register
/// once and keep the metric.
///
/// A family has at most `labelSetsMax` label sets: what comes after shares one set whose values are all
/// `other`, and `hc_metrics_label_overflow_total` counts the registrations that went there. So a label
/// that clients can choose costs a bounded amount of memory.
package final class MetricsRegistry: Sendable {
    private enum Metric: Sendable {
        case counter(Counter)
        case gauge(Gauge)
        case histogram(Histogram)
    }

    private struct Family: Sendable {
        var help: String
        var kind: MetricsSnapshot.Kind
        var metrics: [MetricLabels: Metric] = [:]
    }

    package let labelSetsMax: Int
    private let families = Mutex<[String: Family]>([:])
    private let overflows = Counter()

    package static let overflowName = "hc_metrics_label_overflow_total"

    /// For those whose numbers nobody looks at: one for all of them, for metrics are never given back.
    package static let unread = MetricsRegistry()

    package init(labelSetsMax: Int = 200) {
        precondition(labelSetsMax > 0, "a family has room for something")
        self.labelSetsMax = labelSetsMax
    }

    /// The counter of that name and labels, made if it is new. A counter's name ends in `_total`.
    package func counter(
        _ name: StaticString, _ help: StaticString, labels: [(StaticString, String)] = []
    ) -> Counter {
        precondition("\(name)".hasSuffix("_total"), "a counter's name ends in _total: \(name)")
        let metric = register(name, help, .counter, labels) { .counter(Counter()) }
        guard case .counter(let counter) = metric else {
            preconditionFailure("\(name) is registered as something else")
        }
        return counter
    }

    package func gauge(
        _ name: StaticString, _ help: StaticString, labels: [(StaticString, String)] = []
    ) -> Gauge {
        let metric = register(name, help, .gauge, labels) { .gauge(Gauge()) }
        guard case .gauge(let gauge) = metric else {
            preconditionFailure("\(name) is registered as something else")
        }
        return gauge
    }

    /// The unit that is shown ends the name: `_seconds`, `_bytes`.
    package func histogram(
        _ name: StaticString, _ help: StaticString, layout: HistogramLayout = .latency,
        labels: [(StaticString, String)] = []
    ) -> Histogram {
        let metric = register(name, help, .histogram, labels) {
            .histogram(Histogram(layout: layout))
        }
        guard case .histogram(let histogram) = metric, histogram.layout == layout else {
            preconditionFailure("\(name) is registered as something else")
        }
        return histogram
    }

    /// All values now. They are read one after the other, not at one instant.
    package func snapshot() -> MetricsSnapshot {
        var snapshot = MetricsSnapshot()
        families.withLock { families in
            for (name, family) in families {
                let samples = family.metrics.mapValues { metric -> MetricsSnapshot.Value in
                    switch metric {
                    case .counter(let counter): .counter(counter.value)
                    case .gauge(let gauge): .gauge(gauge.value)
                    case .histogram(let histogram): .histogram(histogram.value)
                    }
                }
                snapshot.families[name] = MetricsSnapshot.Family(
                    help: family.help, kind: family.kind, samples: samples)
            }
        }
        snapshot.families[MetricsRegistry.overflowName] = MetricsSnapshot.Family(
            help: "Registrations that found the label sets of a family exhausted",
            kind: .counter, samples: [MetricLabels([]): .counter(overflows.value)])
        return snapshot
    }

    private func register(
        _ name: StaticString, _ help: StaticString, _ kind: MetricsSnapshot.Kind,
        _ labels: [(StaticString, String)], make: () -> Metric
    ) -> Metric {
        let name = "\(name)"
        precondition(MetricLabels.isName(name, colons: true), "no metric name: \(name)")
        for (label, _) in labels {
            precondition(
                MetricLabels.isName("\(label)", colons: false) && "\(label)" != "le",
                "no label name: \(label)")
        }
        let wanted = MetricLabels(labels.map { ("\($0.0)", $0.1) })
        return families.withLock { families in
            var family = families[name] ?? Family(help: "\(help)", kind: kind)
            precondition(family.kind == kind, "\(name) is registered as something else")
            if let metric = family.metrics[wanted] { return metric }
            var key = wanted
            if family.metrics.count >= labelSetsMax, !wanted.pairs.isEmpty {
                overflows.increment()
                key = MetricLabels(wanted.pairs.map { ($0.name, "other") })
                if let metric = family.metrics[key] { return metric }
            }
            let metric = make()
            family.metrics[key] = metric
            families[name] = family
            return metric
        }
    }
}

/// Label names and values in the order of the names.
package struct MetricLabels: Hashable, Comparable, Sendable {
    package struct Pair: Hashable, Comparable, Sendable {
        package let name: String
        package let value: String

        package static func < (left: Pair, right: Pair) -> Bool {
            (left.name, left.value) < (right.name, right.value)
        }
    }

    package let pairs: [Pair]

    package init(_ pairs: [(String, String)]) {
        self.pairs = pairs.map { Pair(name: $0.0, value: $0.1) }.sorted()
    }

    package subscript(name: String) -> String? {
        pairs.first { $0.name == name }?.value
    }

    /// With one more label, unless that name is there.
    package func with(_ name: String, _ value: String) -> MetricLabels {
        if self[name] != nil { return self }
        return MetricLabels(pairs.map { ($0.name, $0.value) } + [(name, value)])
    }

    package static func < (left: MetricLabels, right: MetricLabels) -> Bool {
        left.pairs.lexicographicallyPrecedes(right.pairs)
    }

    /// `[a-zA-Z_][a-zA-Z0-9_]*`, and colons in metric names (Prometheus data model).
    static func isName(_ text: String, colons: Bool) -> Bool {
        guard let first = text.utf8.first, !(0x30...0x39).contains(first) else { return false }
        return text.utf8.allSatisfy { byte in
            switch byte {
            case 0x30...0x39, 0x41...0x5a, 0x61...0x7a, UInt8(ascii: "_"): true
            case UInt8(ascii: ":"): colons
            default: false
            }
        }
    }
}
