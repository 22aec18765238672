import Synchronization

/// A number that only grows: requests, bytes, refusals. Any thread; relaxed, so it orders nothing.
///
/// Metrics are places in memory and never given back, for a process has a bounded number of names: a value that says
/// where costs whoever counts no reference count, and each request is counted in a dozen of them.
package struct Counter: Sendable {
    // Nobody frees it, and the atomic is safe from any thread.
    private nonisolated(unsafe) let cell: UnsafeMutablePointer<Atomic<UInt64>>

    package init() {
        cell = .allocate(capacity: 1)
        cell.initialize(to: Atomic(0))
    }

    /// - Parameter amount: not negative.
    package func increment(by amount: Int = 1) {
        cell.pointee.wrappingAdd(UInt64(amount), ordering: .relaxed)
    }

    package var value: UInt64 { cell.pointee.load(ordering: .relaxed) }
}

/// A number that goes up and down: connections, queue length, seconds of lag. Any thread; relaxed.
package struct Gauge: Sendable {
    // Nobody frees it, and the atomic is safe from any thread, as a counter's.
    private nonisolated(unsafe) let bits: UnsafeMutablePointer<Atomic<UInt64>>

    package init() {
        bits = .allocate(capacity: 1)
        bits.initialize(to: Atomic(Double(0).bitPattern))
    }

    package func set(_ value: Double) {
        bits.pointee.store(value.bitPattern, ordering: .relaxed)
    }

    package func set(_ value: Int) {
        set(Double(value))
    }

    package func add(_ change: Int) {
        var old = bits.pointee.load(ordering: .relaxed)
        while true {
            let new = (Double(bitPattern: old) + Double(change)).bitPattern
            let (exchanged, original) = bits.pointee.weakCompareExchange(
                expected: old, desired: new, ordering: .relaxed)
            if exchanged { return }
            old = original
        }
    }

    package var value: Double { Double(bitPattern: bits.pointee.load(ordering: .relaxed)) }
}

/// The upper bounds of a histogram's buckets: 1, 2, … 9 times each power of ten, so that a quantile is
/// off by less than one step and a goal like 0.1 s is itself a bound.
package struct HistogramLayout: Hashable, Sendable {
    /// The smallest bound, in the unit that is observed.
    package let first: Int64
    package let decades: Int
    /// How many observed units make one of the units that are shown: 1e9 for nanoseconds and seconds.
    package let scale: Int64

    package init?(first: Int64, decades: Int, scale: Int64) {
        guard first > 0, scale > 0, (1...12).contains(decades),
            first <= Int64.max / HistogramLayout.power(decades)
        else { return nil }
        self.init(uncheckedFirst: first, decades: decades, scale: scale)
    }

    private init(uncheckedFirst first: Int64, decades: Int, scale: Int64) {
        self.first = first
        self.decades = decades
        self.scale = scale
    }

    /// Durations of 10 µs to 10 s, shown in seconds.
    package static let latency = HistogramLayout(
        uncheckedFirst: 10_000, decades: 6, scale: 1_000_000_000)
    /// Sizes of 100 bytes to 1 GB.
    package static let bytes = HistogramLayout(uncheckedFirst: 100, decades: 7, scale: 1)
    /// Counts of 1 to 10,000: rows, batch sizes.
    package static let counts = HistogramLayout(uncheckedFirst: 1, decades: 4, scale: 1)

    /// The last bucket has no bound.
    package var bucketCount: Int { 9 * decades + 2 }

    /// The upper bound (inclusive) of a bucket in observed units; nil for the last one.
    package func bound(of bucket: Int) -> Int64? {
        guard bucket < bucketCount - 1 else { return nil }
        return first * HistogramLayout.power(bucket / 9) * Int64(bucket % 9 + 1)
    }

    /// The bucket of a value: the first whose bound is not below it.
    package func bucket(of value: Int64) -> Int {
        if value <= first { return 0 }
        var unit = first
        for decade in 0..<decades {
            if value <= unit * 10 { return 9 * decade + Int((value - 1) / unit) }
            unit *= 10
        }
        return bucketCount - 1
    }

    private static func power(_ exponent: Int) -> Int64 {
        var result: Int64 = 1
        for _ in 0..<exponent { result *= 10 }
        return result
    }
}

/// How values are spread: latencies, sizes. Any thread; relaxed, so a snapshot taken meanwhile may have
/// a value in its bucket and not yet in the sum.
package struct Histogram: Sendable {
    package let layout: HistogramLayout
    // Nobody frees it, and the atomic is safe from any thread, as a counter's.
    private nonisolated(unsafe) let sum: UnsafeMutablePointer<Atomic<Int64>>
    // Nobody frees them, and each is an atomic: safe from any thread.
    private nonisolated(unsafe) let buckets: UnsafeMutablePointer<Atomic<UInt64>>

    package init(layout: HistogramLayout) {
        self.layout = layout
        sum = .allocate(capacity: 1)
        sum.initialize(to: Atomic(0))
        buckets = .allocate(capacity: layout.bucketCount)
        for bucket in 0..<layout.bucketCount { (buckets + bucket).initialize(to: Atomic(0)) }
    }

    /// Counts a value in the layout's observed unit; negative counts as zero.
    package func observe(_ value: Int64) {
        let value = max(0, value)
        buckets[layout.bucket(of: value)].wrappingAdd(1, ordering: .relaxed)
        sum.pointee.wrappingAdd(value, ordering: .relaxed)
    }

    package func observe(_ value: Int) {
        observe(Int64(value))
    }

    /// For layouts in nanoseconds.
    package func observe(_ duration: Duration) {
        observe(duration.inNanoseconds)
    }

    package var value: HistogramValue {
        HistogramValue(
            layout: layout,
            counts: (0..<layout.bucketCount).map { buckets[$0].load(ordering: .relaxed) },
            sum: sum.pointee.load(ordering: .relaxed)
        )
    }
}

/// What a histogram held at one moment.
package struct HistogramValue: Equatable, Sendable {
    package let layout: HistogramLayout
    /// By bucket, not cumulative; `layout.bucketCount` of them.
    package var counts: [UInt64]
    /// In observed units.
    package var sum: Int64

    package var count: UInt64 { counts.reduce(0, &+) }

    /// The upper bound, in observed units, of the bucket that holds the quantile, for example 0.95; nil
    /// if nothing was observed or the value lies beyond the last bound.
    package func quantile(_ quantile: Double) -> Int64? {
        let rank = max(1, (quantile * Double(count)).rounded(.up))
        var seen: UInt64 = 0
        for bucket in 0..<counts.count {
            seen &+= counts[bucket]
            if Double(seen) >= rank { return layout.bound(of: bucket) }
        }
        return nil
    }
}
