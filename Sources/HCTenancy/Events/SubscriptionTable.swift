import HCCore

/// Who follows which topics of one clinic, and how far each has come. Pure.
///
/// A subscription that resumes is given what it missed out of the stream while new events go on coming: those are
/// held until the replay is there, and what is in both is given once. Invariant: a live subscription has been given
/// every event of its topic between where it began and `position`, once and in order, or was told of a gap.
struct SubscriptionTable<Subscriber: Hashable> {
    enum State: Equatable {
        /// The replay is on its way. Can transition to: live.
        case joining(Held)
        /// Has everything up to this place.
        case live(EventSequence)
    }

    struct Held: Equatable {
        var events: [TenantEvent] = []
        /// Up to here something is missing among the held.
        var brokenAt: EventSequence?
    }

    /// Where a subscription begins.
    enum Beginning: Equatable {
        /// With what is new from here on.
        case fresh(EventSequence)
        /// With these, which are all that were missed up to a place.
        case replay([TenantEvent], upTo: EventSequence)
        /// What was missed is not known; everything new from here on.
        case lost(EventSequence)
    }

    struct Joined: Equatable {
        var events: [TenantEvent]
        /// Something is missing before the first of them.
        var isBroken: Bool
    }

    struct Delivery: Hashable {
        var subscriber: Subscriber
        var topic: String
    }

    private let heldMax: Int
    private var topics: [String: [Subscriber: State]] = [:]
    private var byFollower: [Subscriber: Set<String>] = [:]

    init(heldMax: Int) {
        self.heldMax = heldMax
    }

    var isEmpty: Bool { byFollower.isEmpty }
    var subscribers: some Collection<Subscriber> { byFollower.keys }
    func topics(of subscriber: Subscriber) -> Set<String> { byFollower[subscriber] ?? [] }

    // MARK: Coming and going

    /// From now on the topic's events are held for the subscriber. One who follows it already begins anew.
    mutating func begin(_ subscriber: Subscriber, _ topic: String) {
        topics[topic, default: [:]][subscriber] = .joining(Held())
        byFollower[subscriber, default: []].insert(topic)
    }

    /// The beginning is known.
    ///
    /// - Returns: what to give now; nil if the subscriber has left meanwhile.
    mutating func finish(
        _ subscriber: Subscriber, _ topic: String, _ beginning: Beginning
    ) -> Joined? {
        guard case .joining(let held)? = topics[topic]?[subscriber] else { return nil }
        var joined = Joined(events: [], isBroken: false)
        var place: EventSequence
        switch beginning {
        case .fresh(let from): place = from
        case .lost(let from):
            place = from
            joined.isBroken = true
        case .replay(let missed, let end):
            joined.events = missed.filter { $0.topics.contains(topic) }
            place = end
        }
        if let broken = held.brokenAt, broken > place {
            place = broken
            joined.isBroken = true
        }
        for event in held.events where event.sequence > place {
            joined.events.append(event)
            place = event.sequence
        }
        topics[topic]?[subscriber] = .live(place)
        return joined
    }

    /// - Returns: whether it was there.
    @discardableResult
    mutating func leave(_ subscriber: Subscriber, _ topic: String) -> Bool {
        guard topics[topic]?.removeValue(forKey: subscriber) != nil else { return false }
        if topics[topic]?.isEmpty == true { topics[topic] = nil }
        byFollower[subscriber]?.remove(topic)
        if byFollower[subscriber]?.isEmpty == true { byFollower[subscriber] = nil }
        return true
    }

    mutating func leave(_ subscriber: Subscriber) {
        for topic in topics(of: subscriber) { leave(subscriber, topic) }
    }

    // MARK: Events

    /// Who will be given this event, as things stand.
    func audience(of event: TenantEvent) -> Set<Subscriber> {
        var found: Set<Subscriber> = []
        for topic in event.topics {
            for (subscriber, state) in topics[topic] ?? [:] {
                if case .live(let place) = state, event.sequence > place {
                    found.insert(subscriber)
                }
            }
        }
        return found
    }

    /// - Returns: whom to give the event now. Those who are joining get it later.
    mutating func arrive(_ event: TenantEvent) -> [Delivery] {
        var deliveries: [Delivery] = []
        for topic in event.topics {
            guard var states = topics[topic] else { continue }
            for (subscriber, state) in states {
                switch state {
                case .live(let place):
                    guard event.sequence > place else { continue }
                    states[subscriber] = .live(event.sequence)
                    deliveries.append(Delivery(subscriber: subscriber, topic: topic))
                case .joining(var held):
                    if held.events.count < heldMax {
                        held.events.append(event)
                    } else {
                        held.brokenAt = event.sequence
                        held.events = []
                    }
                    states[subscriber] = .joining(held)
                }
            }
            topics[topic] = states
        }
        return deliveries
    }

    /// Something before `place` is missing.
    ///
    /// - Returns: whom to tell now. Those who are joining are told when they have joined, unless they begin later.
    mutating func breakAll(at place: EventSequence) -> [Delivery] {
        var told: [Delivery] = []
        for (topic, states) in topics {
            for (subscriber, state) in states {
                switch state {
                case .live(let reached):
                    topics[topic]?[subscriber] = .live(max(reached, place))
                    told.append(Delivery(subscriber: subscriber, topic: topic))
                case .joining:
                    topics[topic]?[subscriber] = .joining(Held(brokenAt: place))
                }
            }
        }
        return told
    }
}
