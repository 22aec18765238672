import HCPostgres

// How averages, peaks and counters are kept in `tenant_load`: 64-bit numbers, big-endian.

extension LoadSample.Kept {
    /// From the columns week, seen_seconds, loads, counted of `tenant_load`, at 1; NULL where there is none yet.
    init(_ row: PostgresRow) throws(PostgresError) {
        self.init()
        guard let loads = try row.bytesIfPresent(3) else { return }
        history = LoadHistory(
            words: words(loads), week: try row.int(1), seen: Double(try row.int(2)))
        // At another shard they begin anew.
        if let counted = try row.bytesIfPresent(4) {
            counters = LoadSample.Counters(words: words(counted))
        }
    }
}

extension LoadHistory {
    /// - Precondition: 24 words, as the table checks.
    init(words: [UInt64], week: Int, seen: Double) {
        let vectors = (0..<4).map { number in
            LoadVector { Double(bitPattern: words[6 * number + $0.rawValue]) }
        }
        self.init(
            hour: vectors[0], day: vectors[1], peakNow: vectors[2], peakBefore: vectors[3],
            week: week, seen: seen)
    }

    init(_ bytes: [UInt8], week: Int, seen: Double) {
        self.init(words: HCControl.words(bytes), week: week, seen: seen)
    }

    var encoded: [UInt8] {
        [hour, day, peakNow, peakBefore].flatMap { vector in
            LoadDimension.allCases.flatMap { bytes(vector[$0].bitPattern) }
        }
    }
}

extension LoadSample.Counters {
    init(words: [UInt64]) {
        let values = words.map { Int(Int64(bitPattern: $0)) }
        self.init(
            execution: values[0], pool: values[1], rows: values[2], rowsChanged: values[3])
    }

    var encoded: [UInt8] {
        [execution, pool, rows, rowsChanged].flatMap { bytes(UInt64(bitPattern: Int64($0))) }
    }
}

private func bytes(_ word: UInt64) -> [UInt8] {
    (0..<8).map { UInt8(truncatingIfNeeded: word >> (56 - 8 * $0)) }
}

private func words(_ bytes: [UInt8]) -> [UInt64] {
    stride(from: 0, to: bytes.count - 7, by: 8).map { start in
        bytes[start..<(start + 8)].reduce(0) { $0 << 8 | UInt64($1) }
    }
}
