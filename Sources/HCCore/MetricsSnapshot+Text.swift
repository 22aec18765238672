extension MetricsSnapshot {
    /// The texts that scrapers read.
    package enum TextFormat: Sendable {
        /// Prometheus text exposition format 0.0.4.
        case prometheus
        /// OpenMetrics 1.0.0: counters are declared without `_total`, and the text ends with `# EOF`.
        case openMetrics

        package var contentType: StaticString {
            switch self {
            case .prometheus: "text/plain; version=0.0.4; charset=utf-8"
            case .openMetrics: "application/openmetrics-text; version=1.0.0; charset=utf-8"
            }
        }
    }

    /// Appends all families, in the order of their names, each declared once.
    package func render(as format: TextFormat = .prometheus, to buffer: inout ByteBuffer) {
        for (name, family) in families.sorted(by: { $0.key < $1.key }) {
            var declared = name[...]
            if format == .openMetrics, family.kind == .counter, name.hasSuffix("_total") {
                declared = name.dropLast(6)
            }
            buffer.append("# HELP ")
            buffer.append(utf8: declared)
            buffer.append(UInt8(ascii: " "))
            buffer.append(escaped: family.help, quotes: format == .openMetrics)
            buffer.append("\n# TYPE ")
            buffer.append(utf8: declared)
            buffer.append(UInt8(ascii: " "))
            buffer.append(utf8: family.kind.rawValue)
            buffer.append(UInt8(ascii: "\n"))
            for (labels, value) in family.samples.sorted(by: { $0.key < $1.key }) {
                MetricsSnapshot.render(name, labels, value, to: &buffer)
            }
        }
        if format == .openMetrics { buffer.append("# EOF\n") }
    }

    private static func render(
        _ name: String, _ labels: MetricLabels, _ value: Value, to buffer: inout ByteBuffer
    ) {
        switch value {
        case .counter(let count):
            line(name, "", labels, to: &buffer) { $0.append(decimal: count) }
        case .gauge(let value):
            line(name, "", labels, to: &buffer) { $0.append(number: value) }
        case .histogram(let value):
            let scale = Double(value.layout.scale)
            var seen: UInt64 = 0
            for bucket in value.counts.indices {
                seen &+= value.counts[bucket]
                let bound = value.layout.bound(of: bucket)
                let text = bound.map { (Double($0) / scale).description } ?? "+Inf"
                line(name, "_bucket", labels, bound: text, to: &buffer) { $0.append(decimal: seen) }
            }
            line(name, "_sum", labels, to: &buffer) {
                $0.append(number: Double(value.sum) / scale)
            }
            line(name, "_count", labels, to: &buffer) { $0.append(decimal: seen) }
        }
    }

    private static func line(
        _ name: String, _ suffix: StaticString, _ labels: MetricLabels, bound: String? = nil,
        to buffer: inout ByteBuffer, value: (inout ByteBuffer) -> Void
    ) {
        buffer.append(utf8: name)
        buffer.append(suffix)
        var pairs = labels.pairs.map { ($0.name, $0.value) }
        if let bound { pairs.append(("le", bound)) }
        if !pairs.isEmpty {
            var mark = UInt8(ascii: "{")
            for (label, value) in pairs {
                buffer.append(mark)
                mark = UInt8(ascii: ",")
                buffer.append(utf8: label)
                buffer.append("=\"")
                buffer.append(escaped: value, quotes: true)
                buffer.append(UInt8(ascii: "\""))
            }
            buffer.append(UInt8(ascii: "}"))
        }
        buffer.append(UInt8(ascii: " "))
        value(&buffer)
        buffer.append(UInt8(ascii: "\n"))
    }
}

extension ByteBuffer {
    /// Backslash and line feed are escaped everywhere, the quotation mark in label values.
    fileprivate mutating func append(escaped text: String, quotes: Bool) {
        for byte in text.utf8 {
            switch byte {
            case UInt8(ascii: "\\"): append("\\\\")
            case 0x0a: append("\\n")
            case UInt8(ascii: "\"") where quotes: append("\\\"")
            default: append(byte)
            }
        }
    }

    fileprivate mutating func append(number: Double) {
        if number.isNaN { return append("NaN") }
        if number.isInfinite { return append(number < 0 ? "-Inf" : "+Inf") }
        if let whole = Int64(exactly: number) {
            append(decimal: whole)
        } else {
            append(utf8: number.description)
        }
    }
}
