/// The values of a process's metrics at one moment: what a worker sends its supervisor, which merges
/// those of all workers and shows them.
package struct MetricsSnapshot: Equatable, Sendable {
    package enum Kind: String, Sendable {
        case counter, gauge, histogram
    }

    package enum Value: Equatable, Sendable {
        case counter(UInt64)
        case gauge(Double)
        case histogram(HistogramValue)
    }

    package struct Family: Equatable, Sendable {
        package var help: String
        package var kind: Kind
        package var samples: [MetricLabels: Value]

        package init(help: String, kind: Kind, samples: [MetricLabels: Value]) {
            self.help = help
            self.kind = kind
            self.samples = samples
        }
    }

    /// By metric name.
    package var families: [String: Family] = [:]

    package init() {}

    /// Reads one value, for tests and heartbeats.
    package func value(_ name: String, labels: [(String, String)] = []) -> Value? {
        families[name]?.samples[MetricLabels(labels)]
    }

    /// Adds a live process's values: counters and histograms are summed, gauges stay apart under a label
    /// `worker`.
    ///
    /// - Returns: the names left out because the two disagree about their kind or buckets, as two
    ///   releases may while a roll is going on.
    @discardableResult
    package mutating func merge(_ other: MetricsSnapshot, worker: String) -> [String] {
        add(other, worker: worker)
    }

    /// Adds the counters and histograms of a process that is gone, so that totals never step back. Its
    /// gauges mean nothing any more.
    ///
    /// - Returns: as `merge`.
    @discardableResult
    package mutating func mergeTotals(_ other: MetricsSnapshot) -> [String] {
        add(other, worker: nil)
    }

    private mutating func add(_ other: MetricsSnapshot, worker: String?) -> [String] {
        var refused: Set<String> = []
        for (name, theirs) in other.families {
            if theirs.kind == .gauge, worker == nil { continue }
            var family =
                families[name] ?? Family(help: theirs.help, kind: theirs.kind, samples: [:])
            guard family.kind == theirs.kind else {
                refused.insert(name)
                continue
            }
            for (labels, value) in theirs.samples {
                switch (value, family.samples[labels]) {
                case (.gauge, _):
                    family.samples[labels.with("worker", worker ?? "")] = value
                case (_, nil):
                    family.samples[labels] = value
                case (.counter(let added), .counter(let sum)):
                    family.samples[labels] = .counter(sum &+ added)
                case (.histogram(let added), .histogram(var sum)) where added.layout == sum.layout:
                    for bucket in sum.counts.indices { sum.counts[bucket] &+= added.counts[bucket] }
                    sum.sum &+= added.sum
                    family.samples[labels] = .histogram(sum)
                default:
                    refused.insert(name)
                }
            }
            families[name] = family
        }
        return refused.sorted()
    }
}
