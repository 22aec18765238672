/// How far a place's clocks are ahead of UTC at every instant: a TZif file (RFC 8536, version 2 or
/// later) as a value. Who reads the file is another room's business.
package struct TimeZoneRules: Equatable, Sendable {
    /// Instants at which the offset changes, ascending, in seconds since the epoch.
    private var transitions: [Int64]
    /// The offset from the transition of the same position on.
    private var offsets: [Int]
    private var offsetBeforeAll: Int
    /// For what comes after the last transition; nil if its offset holds for ever.
    private var footer: PosixTimeZone?

    package static let utc = TimeZoneRules(fixedOffsetSeconds: 0)

    /// - Parameter fixedOffsetSeconds: seconds ahead of UTC.
    package init(fixedOffsetSeconds: Int) {
        transitions = []
        offsets = []
        offsetBeforeAll = fixedOffsetSeconds
        footer = nil
    }

    /// Parses the bytes of a TZif file.
    ///
    /// - Throws: `TimeZoneRulesError` for a version 1 file, a file with leap seconds (we count none) or
    ///   one that breaks a rule of RFC 8536 3.2 or 3.3. At most 256 KiB are read.
    package init(tzif bytes: [UInt8]) throws(TimeZoneRulesError) {
        var reader = try TZifReader(bytes)
        let data = try reader.parse()
        transitions = data.transitions
        offsets = data.offsets
        offsetBeforeAll = data.offsetBeforeAll
        footer = data.footer
    }

    // MARK: From UTC

    /// Seconds ahead of UTC at an instant.
    package func offsetSeconds(at time: Timestamp) -> Int {
        offset(atSecond: time.seconds)
    }

    /// What the clocks of the place show, without the fraction of the second.
    ///
    /// - Parameter time: in the years 0001 to 9999 on that clock; the ends are clamped.
    package func local(at time: Timestamp) -> LocalDateTime {
        let seconds = Int(time.seconds) + offsetSeconds(at: time)
        let day = CalendarDate.floorDivide(seconds, 86_400)
        guard let date = CalendarDate(daysSinceEpoch: day) else {
            return seconds < 0
                ? .midnight(of: .first) : LocalDateTime(date: .last, secondOfDay: 86_399)
        }
        return LocalDateTime(date: date, secondOfDay: seconds - day * 86_400)
    }

    private func offset(atSecond second: Int64) -> Int {
        guard let last = transitions.last else {
            return footer?.offset(at: second) ?? offsetBeforeAll
        }
        if second >= last, let footer { return footer.offset(at: second) }
        let after = firstTransition(after: second)
        return after == 0 ? offsetBeforeAll : offsets[after - 1]
    }

    /// The position of the first transition later than `second`, or the count of them.
    private func firstTransition(after second: Int64) -> Int {
        var low = 0
        var high = transitions.count
        while low < high {
            let middle = (low + high) / 2
            if transitions[middle] <= second { low = middle + 1 } else { high = middle }
        }
        return low
    }

    // MARK: To UTC

    /// What a local time means.
    package enum Meaning: Equatable, Sendable {
        case one(Timestamp)
        /// The clocks jumped over it, at that instant.
        case gap(at: Timestamp)
        /// The clocks showed it twice.
        case ambiguous(earlier: Timestamp, later: Timestamp)
    }

    package func instant(of local: LocalDateTime) -> Meaning {
        let clock = local.clockSeconds
        // No clock is more than 26 hours from UTC (RFC 8536 3.2), so every offset that could apply is in
        // force somewhere in this window.
        let window = (clock - 93_600)...(clock + 93_600)
        var before = offset(atSecond: window.lowerBound)
        var candidates: Set<Int> = [before]
        var jump: Int64?
        for change in changes(in: window) {
            candidates.insert(change.offset)
            if clock >= change.second + Int64(before), clock < change.second + Int64(change.offset)
            {
                jump = change.second
            }
            before = change.offset
        }
        let instants = candidates.map { (clock - Int64($0), $0) }
            .filter { offset(atSecond: $0.0) == $0.1 }.map { Timestamp(seconds: $0.0) }.sorted()
        if let earlier = instants.first, let later = instants.last {
            return earlier == later ? .one(earlier) : .ambiguous(earlier: earlier, later: later)
        }
        return .gap(at: Timestamp(seconds: jump ?? clock - Int64(before)))
    }

    package func instant(
        date: CalendarDate, hour: Int, minute: Int, second: Int = 0
    ) -> Meaning? {
        LocalDateTime(date: date, hour: hour, minute: minute, second: second).map(instant(of:))
    }

    /// The first instant of a local day: midnight, the jump over it where there is none, the earlier one
    /// where there are two. For a date that was skipped, the instant at which it was.
    package func startOfDay(_ date: CalendarDate) -> Timestamp {
        switch instant(of: .midnight(of: date)) {
        case .one(let instant): instant
        case .gap(let instant): instant
        case .ambiguous(let earlier, _): earlier
        }
    }

    private func changes(in window: ClosedRange<Int64>) -> [(second: Int64, offset: Int)] {
        var changes: [(second: Int64, offset: Int)] = []
        var position = firstTransition(after: window.lowerBound)
        while position < transitions.count, transitions[position] <= window.upperBound {
            changes.append((transitions[position], offsets[position]))
            position += 1
        }
        guard let footer, window.upperBound > transitions.last ?? .min else { return changes }
        let years = [window.lowerBound, window.upperBound].map { second in
            let day = CalendarDate.floorDivide(Int(second), 86_400)
            return CalendarDate(uncheckedDaysSinceEpoch: day).year
        }
        for change in footer.changes(years: (years[0] - 1)...(years[1] + 1))
        where window.contains(change.second) && change.second > transitions.last ?? .min {
            changes.append(change)
        }
        return changes
    }
}
