package import HCCore
package import HCIO
import HCRedis

/// Whoever follows topics: a socket. All calls come on the loop, in the order of the clinic's stream.
@LoopActor
package protocol EventSubscriber: AnyObject {
    /// The subscription has begun: every event of the topics behind `sequence` will come. With `isBroken`, what
    /// was missed since the place asked for is not known: everything is to be read anew.
    func didJoin(_ topics: [EventTopicBeginning], request: EventJoinRequest)
    func receive(_ event: TenantEvent, topic: String)
    /// Events of the topic up to `sequence` are missing: what they were about is to be read anew.
    func missed(topic: String, upTo sequence: EventSequence)
}

package struct EventTopicBeginning: Hashable, Sendable {
    package let topic: String
    package let sequence: EventSequence
    package let isBroken: Bool
}

/// Names one call of `EventFeed.join`, for the subscriber itself.
package struct EventJoinRequest: Hashable, Sendable {
    package let id: String?

    package init(id: String?) {
        self.id = id
    }
}

/// Who decides, each time before events are delivered, which subscribers may still hear anything.
@LoopActor
package protocol EventAudience: AnyObject {
    /// Looks at these subscribers again. Those who may not hear more leave the feed before this returns.
    func review(_ subscribers: [any EventSubscriber], of tenant: TenantID) async
}

/// The feed of this process: reads the streams of the clinics that somebody here follows, over one connection of its
/// own, and gives their events to subscribers.
///
/// A clinic's events are delivered one after the other; clinics do not wait for each other. Losing Redis ends nothing:
/// reading goes on where it stood, and what Redis lost meanwhile is told as a gap.
@LoopActor
package final class EventFeed: Service {
    let stream: EventStream
    let reader: RedisClient
    let limits: EventLimits
    let metrics: EventMetrics
    private let logger: Logger
    private let find: @LoopActor (TenantID) -> TenantRecord?
    package weak var audience: (any EventAudience)?

    private var feeds: [TenantID: TenantFeed] = [:]
    /// Ends the wait for somebody to follow.
    private var news: Waiter<Void>?
    private let wakeKey: String
    private var wakePlace = "0-0"
    private var isWaking = false
    private var run: (connection: MonotonicTime, id: String)?

    init(
        stream: EventStream, reader: RedisClient, limits: EventLimits, metrics: EventMetrics,
        logger: Logger, find: @escaping @LoopActor (TenantID) -> TenantRecord?
    ) {
        self.stream = stream
        self.reader = reader
        self.limits = limits
        self.metrics = metrics
        self.logger = logger
        self.find = find
        var random = SystemRandomNumberGenerator()
        wakeKey = "events:wake:\(String(random.next(), radix: 16))"
    }

    // MARK: Subscribing

    /// Follows topics, from `after` on if that place is in the replay window.
    ///
    /// `didJoin`, then the events that were missed, are given to the subscriber before this returns, unless it left
    /// meanwhile.
    ///
    /// - Throws: `TenancyError.eventsUnavailable` while Redis is away: nothing was begun.
    package func join(
        _ subscriber: any EventSubscriber, topics: [String], after: EventSequence?,
        request: EventJoinRequest, in tenant: TenantRecord, deadline: Deadline
    ) async throws(TenancyError) {
        // Nobody hears anything that nobody looks after.
        guard let audience else { throw .eventsUnavailable(retryAfter: .seconds(1)) }
        let feed = feeds[tenant.id] ?? open(tenant)
        let key = feed.add(subscriber, topics)
        countSubscriptions()
        let place: TenantRecord
        let window: EventStream.Window
        do {
            // The feed stands at a place before the window is looked at: what is new then is held for us.
            try await feed.opened.wait(until: deadline)
            place = feed.place
            window = try await stream.window(
                of: place, after: after,
                deadline: deadline.earlier(of: .after(limits.redisTimeout, from: Loop.now)))
            await audience.review([subscriber], of: tenant.id)
        } catch {
            leave(subscriber, topics: topics, of: tenant.id)
            throw .eventsUnavailable(retryAfter: .seconds(1))
        }
        guard feeds[tenant.id] === feed else { return }
        let beginning = beginning(window, after: after, feed.place.isElsewhere(than: place))
        var begun: [EventTopicBeginning] = []
        var missed: [(String, TenantEvent)] = []
        for topic in topics {
            guard let joined = feed.table.finish(key, topic, beginning) else { continue }
            let from = after.flatMap { joined.isBroken ? nil : $0 } ?? window.end
            begun.append(
                EventTopicBeginning(topic: topic, sequence: from, isBroken: joined.isBroken))
            missed += joined.events.map { (topic, $0) }
            if joined.isBroken { metrics.resync(.window) }
        }
        guard !begun.isEmpty else { return }
        subscriber.didJoin(begun, request: request)
        missed.sort { $0.1.sequence < $1.1.sequence }
        for (topic, event) in missed { deliver(event, topic, to: subscriber) }
    }

    private func beginning(
        _ window: EventStream.Window, after: EventSequence?, _ hasMoved: Bool
    ) -> SubscriptionTable<Int>.Beginning {
        guard let after else { return hasMoved ? .lost(window.end) : .fresh(window.end) }
        guard let missed = window.missed, !hasMoved else { return .lost(window.end) }
        precondition(missed.last.map { $0.sequence > after } ?? true, "what was missed came later")
        return .replay(missed.compactMap(\.event), upTo: missed.last?.sequence ?? after)
    }

    /// Follows these topics no more.
    package func leave(_ subscriber: any EventSubscriber, topics: [String], of tenant: TenantID) {
        guard let feed = feeds[tenant] else { return }
        feed.remove(subscriber, topics)
        closeIfUnused(feed)
        countSubscriptions()
    }

    /// Follows nothing any more.
    package func leave(_ subscriber: any EventSubscriber, of tenant: TenantID) {
        guard let feed = feeds[tenant] else { return }
        feed.remove(subscriber)
        closeIfUnused(feed)
        countSubscriptions()
    }

    /// The place up to which everything has been given to those who follow the clinic here; nil if nobody does.
    package func position(of tenant: TenantID) -> EventSequence? {
        guard let feed = feeds[tenant], feed.isOpen else { return nil }
        return feed.machine?.position
    }

    private func deliver(_ event: TenantEvent, _ topic: String, to subscriber: any EventSubscriber)
    {
        metrics.delivered.increment()
        subscriber.receive(event, topic: topic)
    }

    private func countSubscriptions() {
        metrics.subscriptions.set(feeds.values.reduce(0) { $0 + $1.count })
        metrics.followed.set(feeds.count)
    }

    // MARK: Opening and closing

    private func open(_ tenant: TenantRecord) -> TenantFeed {
        let feed = TenantFeed(find(tenant.id) ?? tenant, limits: limits)
        feeds[tenant.id] = feed
        begin(feed)
        return feed
    }

    private func closeIfUnused(_ feed: TenantFeed) {
        guard feed.table.isEmpty else { return }
        feeds[feed.place.id] = nil
        feed.opened.open()
    }

    /// Finds out where the clinic's stream ends, and begins to read there. Tried until it is known.
    private func begin(_ feed: TenantFeed) {
        let attempt = feed.beginAgain()
        Loop.shared.spawn { [self] in
            var backoff = Backoff(initial: .milliseconds(20), maximum: .seconds(1))
            var random = SystemRandomNumberGenerator()
            while feeds[feed.place.id] === feed, feed.attempt == attempt {
                do {
                    let window = try await stream.window(
                        of: feed.place, after: nil,
                        deadline: .after(limits.redisTimeout, from: Loop.now))
                    guard feeds[feed.place.id] === feed, feed.attempt == attempt else { return }
                    opened(feed, at: window.end)
                    return
                } catch {
                    do throws(CancellationError) {
                        try await Loop.shared.sleep(for: backoff.next(using: &random))
                    } catch {
                        return
                    }
                }
            }
        }
    }

    private func opened(_ feed: TenantFeed, at place: EventSequence) {
        let cause = feed.began(at: place)
        // Those who followed before have missed what nobody can name.
        if let cause { tellGap(feed, upTo: place, cause) }
        news?.succeed(())
        wake()
    }

    /// The map has changed: a clinic that is elsewhere now has another stream.
    func follow(_ changed: [TenantID], _ map: DirectorySnapshot) {
        for tenant in changed {
            guard let feed = feeds[tenant], let record = map.find(tenant),
                record.isElsewhere(than: feed.place)
            else { continue }
            feed.move(to: record)
            begin(feed)
        }
    }

    // MARK: Reading

    package var serviceName: String { "event feed" }

    package func run() async throws {
        var backoff = Backoff(initial: .milliseconds(20), maximum: .seconds(1))
        var random = SystemRandomNumberGenerator()
        while !Task.isCancelled {
            let open = feeds.values.filter(\.isOpen)
            guard !open.isEmpty else {
                let news = Waiter<Void>()
                self.news = news
                defer { self.news = nil }
                try await news.wait(until: .never)
                continue
            }
            do throws(RedisError) {
                try await reader.waitUntilReady(deadline: .never)
                guard try await isSameRun() else { continue }
                let reply = try await reader.send(
                    command(open),
                    deadline: .after(limits.blockTime + .seconds(3), from: Loop.now))
                backoff.reset()
                guard take(reply, of: open) else { continue }
                try await pause(limits.readPause)
            } catch {
                if Task.isCancelled { throw CancellationError() }
                try await Loop.shared.sleep(for: backoff.next(using: &random))
            }
        }
        throw CancellationError()
    }

    private func pause(_ time: Duration) async throws(RedisError) {
        do throws(CancellationError) {
            try await Loop.shared.sleep(for: time)
        } catch {
            throw .cancelled(sent: false)
        }
    }

    /// - Returns: false if it is another run of Redis than before: then every stream is looked at anew first.
    private func isSameRun() async throws(RedisError) -> Bool {
        guard let connection = reader.connectedSince else { throw .unavailable }
        if let run, run.connection == connection { return true }
        let id = try await reader.runID(
            deadline: .after(limits.redisTimeout, from: Loop.now))
        guard reader.connectedSince == connection else { throw .connectionLost }
        let isSame = run == nil || run?.id == id
        run = (connection, id)
        if isSame { return true }
        wakePlace = "0-0"
        for feed in feeds.values where feed.isOpen {
            feed.lost()
            begin(feed)
        }
        return false
    }

    private func command(_ open: [TenantFeed]) -> [RedisArgument] {
        ["XREAD", "COUNT", .integer(limits.readCountMax), "BLOCK"]
            + [.integer(limits.blockTime.inMilliseconds), "STREAMS", .text(wakeKey)]
            + open.map { .text($0.key) } + [.text(wakePlace)]
            + open.map { .text("\($0.readPlace)-0") }
    }

    /// - Returns: whether there was anything.
    private func take(_ reply: RESPValue, of open: [TenantFeed]) -> Bool {
        guard let streams = reply.asArray else { return false }
        var byKey: [String: TenantFeed] = [:]
        for feed in open { byKey[feed.key] = feed }
        for stream in streams {
            guard let pair = stream.asArray, pair.count == 2, let key = pair[0].asString,
                let entries = pair[1].asArray
            else { continue }
            if key == wakeKey {
                wakePlace = entries.last?.asArray?.first?.asString ?? wakePlace
            } else if let feed = byKey[key], feeds[feed.place.id] === feed, feed.key == key {
                take(entries, of: feed)
            }
        }
        return true
    }

    private func take(_ replies: [RESPValue], of feed: TenantFeed) {
        guard feed.isOpen, let entries = EventStream.entries(replies) else {
            // Not ours, or not whole: begin anew behind it.
            logger.error(
                "a clinic's stream of events is malformed", [("tenant", .identifier(feed.place.id))]
            )
            feed.lost()
            begin(feed)
            return
        }
        if feed.accept(entries) { dispatch(feed) }
    }

    /// Ends a read that waits, so that the next one reads what is followed now.
    private func wake() {
        guard !isWaking else { return }
        isWaking = true
        Loop.shared.spawn { [self] in
            do throws(RedisError) {
                _ = try await stream.redis.pipeline(
                    [
                        ["XADD", .text(wakeKey), "MAXLEN", "1", "*", "w", "1"],
                        ["PEXPIRE", .text(wakeKey), 60_000],
                    ], deadline: .after(limits.redisTimeout, from: Loop.now))
            } catch {
                // Then the read ends by itself, a little later.
                logger.debug("the event reader was not woken", [("reason", .string("\(error)"))])
            }
            isWaking = false
        }
    }

    // MARK: Delivering

    /// One task per clinic at a time.
    private func dispatch(_ feed: TenantFeed) {
        guard !feed.isDispatching else { return }
        feed.isDispatching = true
        Loop.shared.spawn { [self] in
            while let batch = feed.takeBatch() { await deliver(batch, of: feed) }
            feed.isDispatching = false
        }
    }

    private func deliver(_ batch: TenantFeed.Batch, of feed: TenantFeed) async {
        let attempt = feed.attempt
        await review(batch.entries.compactMap(\.event), of: feed)
        // Closed, or somewhere else, meanwhile.
        guard feeds[feed.place.id] === feed, feed.attempt == attempt else { return }
        for entry in batch.entries {
            switch feed.machine?.take(entry) {
            case .event(let event): give(event, of: feed)
            case .gap(let event):
                // The entry itself is there: what is missing lies before it.
                let end = event == nil ? entry.sequence : entry.sequence.predecessor
                tellGap(feed, upTo: end, batch.isCut ? .overflow : .gap)
                if let event { give(event, of: feed) }
            case .nothing, nil: break
            }
        }
    }

    /// Until everybody who would be given one of these has been looked at again. Each round looks at those who came
    /// during the one before.
    private func review(_ events: [TenantEvent], of feed: TenantFeed) async {
        var reviewed: Set<Int> = []
        while true {
            var concerned: Set<Int> = []
            for event in events { concerned.formUnion(feed.table.audience(of: event)) }
            concerned.subtract(reviewed)
            guard !concerned.isEmpty, feeds[feed.place.id] === feed else { return }
            reviewed.formUnion(concerned)
            let subscribers = concerned.compactMap { feed.subscriber($0) }
            guard let audience else {
                for subscriber in subscribers { leave(subscriber, of: feed.place.id) }
                return
            }
            await audience.review(subscribers, of: feed.place.id)
        }
    }

    private func give(_ event: TenantEvent, of feed: TenantFeed) {
        for delivery in feed.table.arrive(event) {
            // One subscriber's end may end others': the table is the truth.
            guard let subscriber = feed.subscriber(delivery.subscriber) else { continue }
            deliver(event, delivery.topic, to: subscriber)
        }
    }

    private func tellGap(
        _ feed: TenantFeed, upTo place: EventSequence, _ cause: EventMetrics.Cause
    ) {
        let told = feed.table.breakAll(at: place)
        metrics.resync(cause, count: told.count)
        for delivery in told {
            feed.subscriber(delivery.subscriber)?.missed(topic: delivery.topic, upTo: place)
        }
    }
}
