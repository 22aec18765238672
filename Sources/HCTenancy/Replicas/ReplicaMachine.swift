import HCCore

/// Which replica of a shard answers the next read, if any. Pure: time and log positions come in, a choice goes out.
///
/// The choice goes by samples, which may be outdated, and is only a guess: what counts is the position that comes with
/// the answer (`answered`). A replica that was restarted, or restored under its old name, is behind what was sampled.
struct ReplicaMachine {
    struct Limits {
        /// A read must not miss a commit that is older than this.
        var lagMax = Duration.seconds(1)
        /// How long replicas answer for a primary that is not heard of.
        var outageMax = Duration.seconds(900)
        var breaker = ReplicaBreaker.Limits()

        init() {}
    }

    enum Choice: Equatable {
        case replica(String)
        case primary(Reason)
    }

    /// Why no replica will do: that of the one that came closest.
    enum Reason: String, CaseIterable, Comparable {
        /// There is none, or all are closed.
        case none
        /// Its breaker is open.
        case broken
        /// Nobody knows yet how far it is.
        case unsampled
        /// More than `lagMax` behind.
        case lagging
        /// Fresh, but without the reader's own write.
        case behind

        static func < (left: Reason, right: Reason) -> Bool {
            left.closeness < right.closeness
        }
        private var closeness: Int { Reason.allCases.firstIndex(of: self) ?? 0 }
    }

    enum Verdict: Equatable {
        case accept
        /// The answer is too old, whatever the samples said.
        case reject(Reason)
    }

    struct Member {
        fileprivate(set) var record: ReplicaRecord
        fileprivate(set) var replayed: LogPosition?
        fileprivate(set) var breaker: ReplicaBreaker
        /// Of the smooth weighted round robin: grows by the weight when eligible, falls by the sum when chosen.
        fileprivate var turn = 0
    }

    private let limits: Limits
    private(set) var history = PrimaryHistory()
    private(set) var members: [Member] = []

    init(_ limits: Limits = Limits()) {
        self.limits = limits
    }

    /// Takes the replicas of a new map. What is known of one stays as long as its connection string does.
    mutating func follow(_ records: [ReplicaRecord]) {
        members = records.sorted { $0.name < $1.name }.map { record in
            guard
                var known = members.first(where: {
                    $0.record.name == record.name && $0.record.reference == record.reference
                })
            else { return Member(record: record, breaker: ReplicaBreaker(limits.breaker)) }
            known.record = record
            return known
        }
    }

    func member(_ name: String) -> Member? { members.first { $0.record.name == name } }

    // MARK: Samples

    /// - Parameter askedAt: before the question was sent.
    mutating func primarySampled(_ end: LogPosition, askedAt: MonotonicTime) {
        history.record(end, askedAt: askedAt)
    }

    func samplesWanted(now: MonotonicTime) -> [String] {
        members.filter { $0.record.state == .open && $0.breaker.maySample(now: now) }
            .map(\.record.name)
    }

    mutating func replicaSampled(_ name: String, _ replayed: LogPosition, now: MonotonicTime) {
        change(name) {
            $0.replayed = replayed
            $0.breaker.sampleSucceeded(now: now)
        }
    }

    mutating func sampleFailed(
        _ name: String, now: MonotonicTime, using generator: inout some RandomNumberGenerator
    ) {
        change(name) { $0.breaker.sampleFailed(now: now, using: &generator) }
    }

    /// What the replica may be missing at most: commits of this long. Nil: nobody knows.
    func lag(of name: String, now: MonotonicTime) -> Duration? {
        guard let replayed = member(name)?.replayed, let fresh = history.freshness(of: replayed)
        else { return nil }
        return max(.zero, now - fresh)
    }

    /// How much of the log it has not replayed, as of the last samples.
    func lagBytes(of name: String) -> UInt64? {
        guard let replayed = member(name)?.replayed, let end = history.end else { return nil }
        return end.bytes - min(end.bytes, replayed.bytes)
    }

    // MARK: Reads

    /// - Parameter position: what must have been replayed for the reader's own writes.
    mutating func choose(after position: LogPosition?, now: MonotonicTime) -> Choice {
        choose(after: position, asOf: now)
    }

    /// As above while the primary is lost: fresh is who had what the primary had when it was last heard of, but for
    /// the lag that is allowed.
    mutating func chooseInOutage(after position: LogPosition?, now: MonotonicTime) -> Choice {
        guard let lastHeard = history.lastHeard, now - lastHeard <= limits.outageMax else {
            return .primary(.unsampled)
        }
        return choose(after: position, asOf: lastHeard)
    }

    /// What is in the way of reading what has been replayed up to `replayed`, at the moment `moment`.
    private func obstacle(
        at replayed: LogPosition?, after position: LogPosition?, asOf moment: MonotonicTime
    ) -> Reason? {
        guard let replayed else { return .unsampled }
        guard let fresh = history.freshness(of: replayed), moment - fresh <= limits.lagMax else {
            return .lagging
        }
        if let position, replayed < position { return .behind }
        return nil
    }

    private mutating func choose(
        after position: LogPosition?, asOf moment: MonotonicTime
    ) -> Choice {
        var closest = Reason.none
        var eligible: [Int] = []
        for (index, member) in members.enumerated() where member.record.state == .open {
            if !member.breaker.admits {
                closest = max(closest, .broken)
            } else if let reason = obstacle(at: member.replayed, after: position, asOf: moment) {
                closest = max(closest, reason)
            } else {
                eligible.append(index)
            }
        }
        guard var chosen = eligible.first else { return .primary(closest) }
        var sum = 0
        for index in eligible {
            members[index].turn += members[index].record.weight
            sum += members[index].record.weight
            if members[index].turn > members[chosen].turn { chosen = index }
        }
        members[chosen].turn -= sum
        members[chosen].breaker.take()
        return .replica(members[chosen].record.name)
    }

    /// A read came back, with the position up to which the replica had replayed when it began.
    ///
    /// - Parameter now: when the read was begun: what is promised is promised for that moment.
    mutating func answered(
        _ name: String, _ replayed: LogPosition, after position: LogPosition?,
        since now: MonotonicTime, inOutage: Bool
    ) -> Verdict {
        change(name) {
            // Also when it is less than was sampled: the server was restarted or replaced.
            $0.replayed = replayed
            $0.breaker.readSucceeded()
        }
        let moment = inOutage ? history.lastHeard ?? now : now
        return obstacle(at: replayed, after: position, asOf: moment).map { .reject($0) } ?? .accept
    }

    /// The read failed by the replica's doing: it cannot be reached, or the connection broke.
    mutating func failed(
        _ name: String, now: MonotonicTime, using generator: inout some RandomNumberGenerator
    ) {
        change(name) { $0.breaker.readFailed(now: now, using: &generator) }
    }

    /// The read failed, and not by the replica's doing: it is alive.
    mutating func responded(_ name: String) {
        change(name) { $0.breaker.readSucceeded() }
    }

    /// It is another server than it should be: nothing is known of it any more, and nothing is read from it until
    /// it is sampled again.
    mutating func refused(_ name: String) {
        change(name) {
            $0.replayed = nil
            $0.breaker.readAbandoned()
        }
    }

    /// The read ended without a word about the replica.
    mutating func abandoned(_ name: String) {
        change(name) { $0.breaker.readAbandoned() }
    }

    private mutating func change(_ name: String, _ body: (inout Member) -> Void) {
        guard let index = members.firstIndex(where: { $0.record.name == name }) else { return }
        body(&members[index])
    }
}
