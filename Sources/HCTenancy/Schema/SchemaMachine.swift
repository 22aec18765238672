import HCCore

/// Which shards a program serves, by what their ledgers say.
///
/// Pure: what was seen comes in, who has to be looked at comes out. A shard that nobody has looked at is judged by what
/// the control database last saw of it; if nothing is known of it, it is served, and the first connection tells.
struct SchemaMachine {
    struct Limits {
        /// How often one is looked at that is refused.
        var refusedInterval = Duration.seconds(2)
        /// How often one is looked at that has connections: the map tells of changes sooner.
        var openInterval = Duration.seconds(30)
        /// The same while the control database cannot be read, which is where changes are told, and where a contract sees
        /// for whom it has to wait.
        var cutOffInterval = Duration.seconds(1)
    }

    private struct Member {
        var identity: ShardIdentity
        var isInUse: Bool
        var noted: SchemaState?
        var seen: SchemaState?
        var lookedAt: MonotonicTime?
        var refusal: SchemaRefusal?

        mutating func judge(by range: SchemaRange) {
            refusal = (seen ?? noted).flatMap { range.refusal(of: $0) }
        }
    }

    /// A shard from which on it is judged otherwise; nil: it is served.
    struct Change: Equatable {
        var shard: ShardID
        var refusal: SchemaRefusal?
    }

    let range: SchemaRange
    private let limits: Limits
    private var members: [ShardID: Member] = [:]

    init(range: SchemaRange, limits: Limits = Limits()) {
        self.range = range
        self.limits = limits
    }

    // MARK: Events

    /// Takes the shards of a map. One that is another database now is judged anew; one of which the map tells another
    /// version is to be looked at.
    mutating func follow(_ records: some Collection<ShardRecord>) -> [Change] {
        var present: [ShardID: Member] = [:]
        var changes: [Change] = []
        for record in records {
            var member =
                members[record.id].flatMap { $0.identity == record.identity ? $0 : nil }
                ?? Member(identity: record.identity, isInUse: true)
            member.isInUse = record.state != .closed
            if member.noted != record.schema {
                member.noted = record.schema
                member.lookedAt = nil
            }
            member.judge(by: range)
            if member.refusal != members[record.id]?.refusal {
                changes.append(Change(shard: record.id, refusal: member.refusal))
            }
            present[record.id] = member
        }
        members = present
        return changes.sorted { $0.shard < $1.shard }
    }

    /// - Returns: nil if nothing is different.
    mutating func saw(_ state: SchemaState, of shard: ShardID, now: MonotonicTime) -> Change? {
        guard var member = members[shard] else { return nil }
        let before = member.refusal
        member.seen = state
        member.lookedAt = now
        member.judge(by: range)
        members[shard] = member
        return before == member.refusal ? nil : Change(shard: shard, refusal: member.refusal)
    }

    /// It could not be looked at, or is being looked at now.
    mutating func looked(at shard: ShardID, now: MonotonicTime) { members[shard]?.lookedAt = now }

    // MARK: Questions

    func refusal(of shard: ShardID) -> SchemaRefusal? { members[shard]?.refusal }

    var refused: [Change] {
        members.filter { $0.value.isInUse && $0.value.refusal != nil }
            .map { Change(shard: $0.key, refusal: $0.value.refusal) }
            .sorted { $0.shard < $1.shard }
    }

    /// False if there are shards and not one can be served.
    var isServing: Bool {
        let inUse = members.values.filter(\.isInUse)
        return inUse.isEmpty || inUse.contains { $0.refusal == nil }
    }

    /// Who has to be looked at.
    ///
    /// - Parameters:
    ///   - open: those to which there are connections. Others are looked at when they are opened, unless they are refused.
    ///   - isCutOff: the control database cannot be read.
    func due(open: Set<ShardID>, isCutOff: Bool, now: MonotonicTime) -> [ShardID] {
        let openInterval = isCutOff ? limits.cutOffInterval : limits.openInterval
        return members.filter { id, member in
            guard member.isInUse, member.refusal != nil || open.contains(id) else { return false }
            guard let lookedAt = member.lookedAt else { return true }
            return now - lookedAt
                >= (member.refusal == nil
                    ? openInterval : min(limits.refusedInterval, openInterval))
        }.keys.sorted()
    }
}
