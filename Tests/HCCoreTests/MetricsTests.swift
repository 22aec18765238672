import HCCore
import Testing

@Suite("Metrics")
struct MetricsTests {
    @Test("every value falls in the bucket whose bound is the first not below it")
    func buckets() {
        for layout in [HistogramLayout.latency, .bytes, .counts] {
            let bounds = (0..<layout.bucketCount - 1).compactMap { layout.bound(of: $0) }
            #expect(bounds.count == layout.bucketCount - 1)
            #expect(bounds == bounds.sorted() && Set(bounds).count == bounds.count)
            #expect(layout.bound(of: layout.bucketCount - 1) == nil)
            for (bucket, bound) in bounds.enumerated() {
                #expect(layout.bucket(of: bound) == bucket)
                #expect(layout.bucket(of: bound + 1) == bucket + 1)
            }
            #expect(layout.bucket(of: 0) == 0)
            #expect(layout.bucket(of: .max) == layout.bucketCount - 1)
        }
        #expect(HistogramLayout.latency.bound(of: 36) == 100_000_000)
        #expect(HistogramLayout(first: 0, decades: 1, scale: 1) == nil)
        #expect(HistogramLayout(first: 1, decades: 0, scale: 1) == nil)
        #expect(HistogramLayout(first: 1, decades: 99, scale: 1) == nil)
        #expect(HistogramLayout(first: .max / 5, decades: 1, scale: 1) == nil)
    }

    @Test("a histogram counts, sums and gives quantiles by the bound of their bucket")
    func histogram() {
        let histogram = Histogram(layout: .latency)
        #expect(histogram.value.quantile(0.5) == nil)
        for milliseconds in 1...100 { histogram.observe(.milliseconds(milliseconds)) }
        #expect(histogram.value.count == 100)
        #expect(histogram.value.sum == 5_050_000_000)
        #expect(histogram.value.quantile(0.5) == 50_000_000)
        #expect(histogram.value.quantile(0.95) == 100_000_000)
        #expect(histogram.value.quantile(0) == 1_000_000)
        histogram.observe(.seconds(100))
        #expect(histogram.value.quantile(1) == nil)
        histogram.observe(-5 as Int64)
        #expect(histogram.value.counts[0] == 1)
    }

    @Test("a gauge is set and moved, a counter only grows")
    func values() {
        let gauge = Gauge()
        gauge.set(2.5)
        gauge.add(-3)
        #expect(gauge.value == -0.5)
        gauge.set(7)
        #expect(gauge.value == 7)
        let counter = Counter()
        counter.increment()
        counter.increment(by: 41)
        #expect(counter.value == 42)
    }

    @Test("counting from many tasks at once loses nothing")
    func concurrency() async {
        let registry = MetricsRegistry()
        await withTaskGroup(of: Void.self) { group in
            for _ in 0..<8 {
                group.addTask {
                    let counter = registry.counter("test_total", "Tests")
                    let gauge = registry.gauge("test", "Tests")
                    let histogram = registry.histogram("test_rows", "Rows", layout: .counts)
                    for number in 0..<10_000 {
                        counter.increment()
                        gauge.add(1)
                        histogram.observe(number)
                    }
                }
            }
        }
        let snapshot = registry.snapshot()
        #expect(snapshot.value("test_total") == .counter(80_000))
        #expect(snapshot.value("test") == .gauge(80_000))
        #expect(registry.histogram("test_rows", "Rows", layout: .counts).value.count == 80_000)
    }

    @Test("the same name and labels are the same metric, in whatever order the labels are")
    func registering() {
        let registry = MetricsRegistry()
        registry.counter("a_total", "A", labels: [("x", "1"), ("y", "2")]).increment()
        #expect(registry.counter("a_total", "A", labels: [("y", "2"), ("x", "1")]).value == 1)
        #expect(registry.counter("a_total", "A", labels: [("y", "2"), ("x", "2")]).value == 0)
    }

    @Test("label sets have a bound: what is beyond it is counted as other")
    func cardinality() {
        let registry = MetricsRegistry(labelSetsMax: 3)
        for number in 0..<10 {
            registry.counter("a_total", "A", labels: [("user", "u\(number)")]).increment()
        }
        registry.counter("a_total", "A", labels: [("user", "u0")]).increment()
        let snapshot = registry.snapshot()
        #expect(snapshot.families["a_total"]?.samples.count == 4)
        #expect(snapshot.value("a_total", labels: [("user", "u0")]) == .counter(2))
        #expect(snapshot.value("a_total", labels: [("user", "other")]) == .counter(7))
        #expect(snapshot.value(MetricsRegistry.overflowName) == .counter(7))
    }

    private static func worker(_ number: Int) -> MetricsSnapshot {
        let registry = MetricsRegistry()
        registry.counter("hc_requests_total", "Requests", labels: [("status", "200")])
            .increment(by: number)
        registry.gauge("hc_connections", "Connections").set(number * 10)
        let histogram = registry.histogram("hc_request_seconds", "Time")
        for _ in 0..<number { histogram.observe(.milliseconds(number)) }
        return registry.snapshot()
    }

    @Test("snapshots merge: counters and histograms are summed, gauges stay apart by worker")
    func merging() throws {
        var sum = MetricsSnapshot()
        #expect(sum.merge(Self.worker(1), worker: "1") == [])
        #expect(sum.merge(Self.worker(2), worker: "2") == [])
        #expect(sum.mergeTotals(Self.worker(3)) == [])
        #expect(sum.value("hc_requests_total", labels: [("status", "200")]) == .counter(6))
        #expect(sum.families["hc_connections"]?.samples.count == 2)
        #expect(sum.value("hc_connections", labels: [("worker", "2")]) == .gauge(20))
        guard case .histogram(let times)? = sum.value("hc_request_seconds") else {
            Issue.record("no histogram")
            return
        }
        #expect(times.count == 6)
        #expect(times.sum == (1 + 4 + 9) * 1_000_000)
    }

    @Test("families that two releases made differently are left out by name")
    func disagreement() {
        let registry = MetricsRegistry()
        registry.gauge("a", "A").set(1)
        _ = registry.histogram("b", "B", layout: .bytes)
        var sum = registry.snapshot()
        let other = MetricsRegistry()
        _ = other.histogram("a", "A")
        _ = other.histogram("b", "B", layout: .counts)
        #expect(sum.merge(other.snapshot(), worker: "2") == ["a", "b"])
        #expect(sum.value("a") == .gauge(1))
    }

    @Test("a snapshot survives the way to another process")
    func json() throws {
        let registry = MetricsRegistry()
        registry.counter("a_total", "A \"quoted\"", labels: [("x", "é\n")]).increment(by: .max)
        registry.counter("a_total", "A").increment(by: .max)
        registry.counter("a_total", "A").increment(by: 5)
        registry.gauge("b", "B").set(-0.1)
        registry.gauge("c", "C").set(.infinity)
        registry.histogram("d_bytes", "D", layout: .bytes).observe(1234)
        let snapshot = registry.snapshot()
        let read = try MetricsSnapshot(json: JSONReader.parse(snapshot.json.bytes))
        #expect(read == snapshot)
    }

    @Test(
        "what is no snapshot is refused",
        arguments: [
            "[]", #"{"a":1}"#, #"{"a b":{"help":"","kind":"gauge","samples":[]}}"#,
            #"{"a":{"help":"","kind":"meter","samples":[]}}"#,
            #"{"a":{"help":"","kind":"gauge","samples":[1]}}"#,
            #"{"a":{"help":"","kind":"gauge","samples":[{"labels":{},"value":1}]}}"#,
            #"{"a":{"help":"","kind":"gauge","samples":[{"labels":{"x":1},"value":"1"}]}}"#,
            #"{"a":{"help":"","kind":"counter","samples":[{"labels":{},"count":"-1"}]}}"#,
            #"{"a":{"help":"","kind":"histogram","samples":[{"labels":{},"first":1,"decades":1,"scale":1,"sum":1,"buckets":[11,1]}]}}"#,
            #"{"a":{"help":"","kind":"histogram","samples":[{"labels":{},"first":1,"decades":1,"scale":1,"sum":1,"buckets":[-1,1]}]}}"#,
            #"{"a":{"help":"","kind":"histogram","samples":[{"labels":{},"first":1,"decades":1,"scale":1,"sum":1,"buckets":[0]}]}}"#,
            #"{"a":{"help":"","kind":"histogram","samples":[{"labels":{},"first":1,"decades":1000000,"scale":1,"sum":1,"buckets":[]}]}}"#,
        ])
    func refused(text: String) throws {
        let json = try JSONReader.parse(text)
        #expect(throws: MetricsSnapshotError.self) { try MetricsSnapshot(json: json) }
    }

    @Test("the Prometheus text declares each family once, with cumulative buckets and escapes")
    func prometheus() throws {
        let layout = try #require(
            HistogramLayout(first: 500_000_000, decades: 1, scale: 1_000_000_000))
        let registry = MetricsRegistry()
        registry.counter("a_total", "Line\nback\\slash", labels: [("x", "q\"\\\n")]).increment()
        registry.counter("a_total", "", labels: [("x", "z")]).increment(by: 2)
        registry.gauge("b", "B").set(1.5)
        let histogram = registry.histogram("c_seconds", "C", layout: layout, labels: [("y", "1")])
        histogram.observe(.seconds(1))
        histogram.observe(.seconds(60))
        var buffer = ByteBuffer()
        registry.snapshot().render(to: &buffer)
        let expected = """
            # HELP a_total Line\\nback\\\\slash
            # TYPE a_total counter
            a_total{x="q\\"\\\\\\n"} 1
            a_total{x="z"} 2
            # HELP b B
            # TYPE b gauge
            b 1.5
            # HELP c_seconds C
            # TYPE c_seconds histogram
            c_seconds_bucket{y="1",le="0.5"} 0
            c_seconds_bucket{y="1",le="1.0"} 1
            c_seconds_bucket{y="1",le="1.5"} 1
            c_seconds_bucket{y="1",le="2.0"} 1
            c_seconds_bucket{y="1",le="2.5"} 1
            c_seconds_bucket{y="1",le="3.0"} 1
            c_seconds_bucket{y="1",le="3.5"} 1
            c_seconds_bucket{y="1",le="4.0"} 1
            c_seconds_bucket{y="1",le="4.5"} 1
            c_seconds_bucket{y="1",le="5.0"} 1
            c_seconds_bucket{y="1",le="+Inf"} 2
            c_seconds_sum{y="1"} 61
            c_seconds_count{y="1"} 2
            # HELP hc_metrics_label_overflow_total Registrations that found the label sets of a \
            family exhausted
            # TYPE hc_metrics_label_overflow_total counter
            hc_metrics_label_overflow_total 0

            """
        #expect(buffer.string == expected)
    }

    @Test("OpenMetrics declares counters without _total and ends with its mark")
    func openMetrics() {
        let registry = MetricsRegistry()
        registry.counter("a_total", "A \"b\"").increment()
        registry.gauge("g", "G").set(.nan)
        var buffer = ByteBuffer()
        registry.snapshot().render(as: .openMetrics, to: &buffer)
        #expect(buffer.string.hasPrefix("# HELP a A \\\"b\\\"\n# TYPE a counter\na_total 1\n"))
        #expect(buffer.string.contains("\ng NaN\n"))
        #expect(buffer.string.hasSuffix("\n# EOF\n"))
    }
}
