import HCCore
import HCIO

/// One clinic's stream as a process follows it: where it reads, what waits, and who is to be told.
@LoopActor
final class TenantFeed {
    /// Where the clinic is.
    private(set) var place: TenantRecord
    private(set) var key: String
    private let limits: EventLimits

    var table: SubscriptionTable<Int>
    /// Nil until the stream's end is known.
    var machine: FeedMachine?
    /// Open once the stream is being read.
    private(set) var opened = HCIO.Gate()
    private(set) var isOpen = false
    /// Counts the times that reading began; what belongs to an older one is void.
    private(set) var attempt = 0
    /// The last entry that was read.
    private(set) var readPlace = Int64.zero
    var isDispatching = false

    private var subscribers: [Int: any EventSubscriber] = [:]
    private var keys: [ObjectIdentifier: Int] = [:]
    private var nextKey = 0
    private var inbox: [StreamEntry] = []
    private var isCut = false
    private var cause: EventMetrics.Cause?

    init(_ place: TenantRecord, limits: EventLimits) {
        self.place = place
        self.limits = limits
        key = place.redisPrefix + EventStream.name
        table = SubscriptionTable(heldMax: limits.heldMax)
    }

    // MARK: Subscribers

    /// Subscriptions: pairs of subscriber and topic.
    private(set) var count = 0

    func subscriber(_ key: Int) -> (any EventSubscriber)? { subscribers[key] }

    /// - Returns: the name of the subscriber in the table.
    func add(_ subscriber: any EventSubscriber, _ topics: [String]) -> Int {
        let key: Int
        if let known = keys[ObjectIdentifier(subscriber)] {
            key = known
        } else {
            key = nextKey
            nextKey += 1
            keys[ObjectIdentifier(subscriber)] = key
            subscribers[key] = subscriber
        }
        let known = table.topics(of: key)
        for topic in topics {
            if !known.contains(topic) { count += 1 }
            table.begin(key, topic)
        }
        return key
    }

    func remove(_ subscriber: any EventSubscriber, _ topics: [String]) {
        guard let key = keys[ObjectIdentifier(subscriber)] else { return }
        for topic in topics where table.leave(key, topic) { count -= 1 }
        if table.topics(of: key).isEmpty { drop(key, subscriber) }
    }

    func remove(_ subscriber: any EventSubscriber) {
        guard let key = keys[ObjectIdentifier(subscriber)] else { return }
        count -= table.topics(of: key).count
        table.leave(key)
        drop(key, subscriber)
    }

    private func drop(_ key: Int, _ subscriber: any EventSubscriber) {
        subscribers[key] = nil
        keys[ObjectIdentifier(subscriber)] = nil
    }

    // MARK: Beginning

    /// The place has to be found out, for the first time or again.
    func beginAgain() -> Int {
        attempt += 1
        isOpen = false
        if opened.isOpen { opened = HCIO.Gate() }
        inbox = []
        isCut = false
        return attempt
    }

    /// Redis is not what it was: what came since the last entry may be lost.
    func lost() { cause = .gap }

    func move(to record: TenantRecord) {
        place = record
        key = record.redisPrefix + EventStream.name
        cause = .moved
    }

    /// Reading begins behind this place.
    ///
    /// - Returns: why those who followed before have missed something; nil if it is the first time.
    func began(at place: EventSequence) -> EventMetrics.Cause? {
        machine = FeedMachine(position: place, recentMax: limits.recentMax)
        readPlace = place.number
        isOpen = true
        opened.open()
        defer { cause = nil }
        return cause
    }

    // MARK: Entries

    struct Batch {
        var entries: [StreamEntry]
        /// Entries before these were dropped here.
        var isCut: Bool
    }

    /// Takes what was read. What is too much is dropped, and found missing by what comes behind it.
    ///
    /// - Returns: whether there is something to deliver.
    func accept(_ entries: [StreamEntry]) -> Bool {
        guard let last = entries.last else { return false }
        readPlace = max(readPlace, last.sequence.number)
        if inbox.count + entries.count > limits.inboxMax {
            inbox = [last]
            isCut = true
        } else {
            inbox += entries
        }
        return true
    }

    func takeBatch() -> Batch? {
        guard !inbox.isEmpty else { return nil }
        let batch = Batch(entries: Array(inbox.prefix(limits.deliverBatchMax)), isCut: isCut)
        inbox.removeFirst(batch.entries.count)
        isCut = false
        return batch
    }
}
