import HCCore

/// What a connection does that waits, for the choice of who leaves when there is no room.
enum ConnectionIdleness: Equatable {
    /// Something is being answered: it stays.
    case busy
    /// It has not brought a complete request since it was accepted.
    case fresh(since: MonotonicTime)
    /// It waits for its next request.
    case idle(since: MonotonicTime)
}

/// Chooses who leaves when a new connection finds no room.
///
/// A flood of connections that say nothing must not drive out the clients that have proved to be ones, nor keep out
/// new ones, who prove it within a round trip. So while there are many that have brought no request yet, the oldest
/// of those leaves; with few of them, the connection that has been idle longest.
///
/// The hand goes on from where it stopped last, over a bounded number of places, and the oldest of what it meets is
/// taken: exact with few connections, close to it with many, and no list has to be kept for each request.
struct EvictionSweep: Sendable {
    enum Kind: String, Sendable, CaseIterable {
        case fresh
        case idle
    }

    /// Candidates that are compared, and places that are looked at for them.
    static let candidatesMax = 64
    static let placesMax = 1024
    /// Of candidates without a request so many are usual, or an eighth of all; with more it is they who make room.
    static let freshUsual = 4
    /// A connection that brings no request for this long makes room before any client that did.
    static let freshPatience: Duration = .seconds(5)

    private var hand = 0

    /// - Parameter idleness: of the connection at a place; nil for an empty place.
    mutating func next(
        of count: Int, now: MonotonicTime, idleness: (Int) -> ConnectionIdleness?
    ) -> (place: Int, kind: Kind)? {
        var fresh: (place: Int, since: MonotonicTime)?
        var idle: (place: Int, since: MonotonicTime)?
        var freshCount = 0
        var candidateCount = 0
        var looked = 0
        while looked < min(count, EvictionSweep.placesMax),
            candidateCount < EvictionSweep.candidatesMax
        {
            looked += 1
            hand = hand + 1 < count ? hand + 1 : 0
            switch idleness(hand) {
            case nil, .busy: continue
            case .fresh(let since):
                candidateCount += 1
                freshCount += 1
                if fresh.map({ since < $0.since }) ?? true { fresh = (hand, since) }
            case .idle(let since):
                candidateCount += 1
                if idle.map({ since < $0.since }) ?? true { idle = (hand, since) }
            }
        }
        if let fresh {
            let isFlood = freshCount > max(EvictionSweep.freshUsual, candidateCount / 8)
            if idle == nil || isFlood || now - fresh.since > EvictionSweep.freshPatience {
                return (fresh.place, .fresh)
            }
        }
        return idle.map { ($0.place, .idle) }
    }
}
