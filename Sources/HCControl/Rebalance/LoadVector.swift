/// What of a shard can run out, and what a clinic uses of it.
package enum LoadDimension: Int, CaseIterable, Sendable {
    /// Seconds in a second that the server works on its statements: busy backends.
    case execution
    /// Rows read and written in a second.
    case rows
    /// Bytes of write-ahead log in a second.
    case wal
    /// Seconds in a second that it holds connections of workers' pools.
    case pool
    /// Bytes of tables and indexes.
    case disk
    /// Most connections that it had at once.
    case connections

    package var name: String {
        switch self {
        case .execution: "execution"
        case .rows: "rows"
        case .wal: "wal"
        case .pool: "pool"
        case .disk: "disk"
        case .connections: "connections"
        }
    }
}

/// One number for each dimension: a clinic's load, a shard's, or a shard's capacity.
package struct LoadVector: Sendable, Equatable {
    /// One lane per dimension; the last two are always 0.
    var lanes: SIMD8<Double>

    init(lanes: SIMD8<Double>) {
        self.lanes = lanes
    }

    package init() {
        lanes = .zero
    }

    package init(_ value: (LoadDimension) -> Double) {
        lanes = .zero
        for dimension in LoadDimension.allCases { lanes[dimension.rawValue] = value(dimension) }
    }

    package subscript(dimension: LoadDimension) -> Double {
        get { lanes[dimension.rawValue] }
        set { lanes[dimension.rawValue] = newValue }
    }

    /// Neither below zero nor infinite nor no number.
    package var isSound: Bool {
        LoadDimension.allCases.allSatisfy { self[$0].isFinite && self[$0] >= 0 }
    }

    /// 1 / x, and 0 where x is 0: a capacity of 0 is one that nobody has told, and does not count.
    var inverse: SIMD8<Double> {
        let isTold = lanes .> 0
        return (SIMD8(repeating: 1) / lanes.replacing(with: 1, where: .!isTold))
            .replacing(with: 0, where: .!isTold)
    }

    /// What is planned for: the average, and a share of what the peak is above it. The peaks of clinics do not
    /// fall together, so their sum is too much; the average alone forgets them.
    package static func planned(
        average: LoadVector, peak: LoadVector, peakShare: Double
    ) -> LoadVector {
        let above = (peak.lanes - average.lanes).clamped(
            lowerBound: .zero, upperBound: SIMD8(repeating: .infinity))
        return LoadVector(lanes: average.lanes + above * peakShare)
    }

    package static func + (left: LoadVector, right: LoadVector) -> LoadVector {
        LoadVector(lanes: left.lanes + right.lanes)
    }

    package static func * (left: LoadVector, right: Double) -> LoadVector {
        LoadVector(lanes: left.lanes * right)
    }
}
