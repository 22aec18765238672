/// A text that is no snapshot: sent by another release, or cut.
package struct MetricsSnapshotError: Error, Equatable, Sendable, CustomStringConvertible {
    package let description: String
}

extension MetricsSnapshot {
    /// Writes `{"name":{"help":…,"kind":…,"samples":[{"labels":{…},…}]}}`; empty buckets are left out.
    package func write(to writer: inout JSONWriter) {
        writer.beginObject()
        for (name, family) in families.sorted(by: { $0.key < $1.key }) {
            writer.key(name)
            writer.beginObject()
            writer.member("help", family.help)
            writer.member("kind", family.kind.rawValue)
            writer.key("samples")
            writer.beginArray()
            for (labels, value) in family.samples.sorted(by: { $0.key < $1.key }) {
                MetricsSnapshot.write(labels, value, to: &writer)
            }
            writer.endArray()
            writer.endObject()
        }
        writer.endObject()
    }

    package var json: ByteBuffer {
        var writer = JSONWriter()
        write(to: &writer)
        return writer.finish()
    }

    private static func write(
        _ labels: MetricLabels, _ value: Value, to writer: inout JSONWriter
    ) {
        writer.beginObject()
        writer.key("labels")
        writer.beginObject()
        for pair in labels.pairs {
            writer.key(pair.name)
            writer.string(pair.value)
        }
        writer.endObject()
        switch value {
        case .counter(let count):
            // As text: JSON readers of others, and ours, are exact only to Int64.
            writer.member("count", String(count))
        case .gauge(let value):
            writer.member("value", value.description)
        case .histogram(let value):
            writer.member("first", value.layout.first)
            writer.member("decades", value.layout.decades)
            writer.member("scale", value.layout.scale)
            writer.member("sum", value.sum)
            writer.key("buckets")
            writer.beginArray()
            for (bucket, count) in value.counts.enumerated() where count > 0 {
                writer.integer(bucket)
                writer.integer(count)
            }
            writer.endArray()
        }
        writer.endObject()
    }

    /// Reads what `write(to:)` wrote.
    ///
    /// - Throws: `MetricsSnapshotError` for anything else; the sender is another process.
    package init(json: JSONValue) throws(MetricsSnapshotError) {
        self.init()
        guard let object = json.asObject else {
            throw MetricsSnapshotError(description: "a snapshot is an object")
        }
        for member in object.members {
            guard MetricLabels.isName(member.name, colons: true),
                let help = member.value["help"]?.asString,
                let kind = member.value["kind"]?.asString.flatMap(Kind.init(rawValue:)),
                let samples = member.value["samples"]?.asArray
            else {
                throw MetricsSnapshotError(description: "\(member.name) is no metric family")
            }
            var family = Family(help: help, kind: kind, samples: [:])
            for sample in samples {
                guard let labels = MetricsSnapshot.labels(of: sample),
                    let value = MetricsSnapshot.value(of: sample, kind: kind)
                else {
                    throw MetricsSnapshotError(description: "\(member.name) has a malformed sample")
                }
                family.samples[labels] = value
            }
            families[member.name] = family
        }
    }

    private static func labels(of sample: JSONValue) -> MetricLabels? {
        guard let object = sample["labels"]?.asObject else { return nil }
        var pairs: [(String, String)] = []
        for member in object.members {
            guard MetricLabels.isName(member.name, colons: false), let value = member.value.asString
            else { return nil }
            pairs.append((member.name, value))
        }
        return MetricLabels(pairs)
    }

    private static func value(of sample: JSONValue, kind: Kind) -> Value? {
        switch kind {
        case .counter: sample["count"]?.asString.flatMap { UInt64($0) }.map { .counter($0) }
        case .gauge: sample["value"]?.asString.flatMap { Double($0) }.map { .gauge($0) }
        case .histogram: histogram(of: sample).map { .histogram($0) }
        }
    }

    private static func histogram(of sample: JSONValue) -> HistogramValue? {
        guard let first = sample["first"]?.asInteger, let scale = sample["scale"]?.asInteger,
            let decades = sample["decades"]?.asInteger, let sum = sample["sum"]?.asInteger,
            let layout = HistogramLayout(
                first: first, decades: Int(truncatingIfNeeded: decades), scale: scale),
            let buckets = sample["buckets"]?.asArray, buckets.count.isMultiple(of: 2)
        else { return nil }
        var counts = [UInt64](repeating: 0, count: layout.bucketCount)
        for index in stride(from: 0, to: buckets.count, by: 2) {
            guard let bucket = buckets[index].asInteger, counts.indices.contains(Int(bucket)),
                let count = buckets[index + 1].asInteger, count > 0
            else { return nil }
            counts[Int(bucket)] = UInt64(count)
        }
        return HistogramValue(layout: layout, counts: counts, sum: sum)
    }
}
