import HCCore
import HCIO

/// One clinic in the ledger of a process. Belongs to it alone.
final class CopyRegistration {
    private struct Held {
        var names: VoidedNames
        var until: MonotonicTime
    }

    private struct Past {
        var generation: UInt64
        var names: VoidedNames
    }

    /// Whether copies may be used. Numbers, for they are looked at by each request.
    struct Standing {
        /// Whether Redis counts this process among those who are told of the clinic's voids, ...
        var isRegistered = false
        /// ... which it forgets some time after this.
        var staleAt = MonotonicTime.zero
        /// Too many holds to remember each: no copy is used before this time.
        fileprivate(set) var blockedUntil = MonotonicTime.zero

        func isUsable(at now: MonotonicTime) -> Bool {
            isRegistered && now >= blockedUntil && now < staleAt
        }
    }

    var standing = Standing()
    private let holdsMax: Int
    private var holds: [VoidID: Held] = [:]

    /// The last voids, oldest first, ...
    private var recent: RingBuffer<Past>
    /// ... and the newest of those that are forgotten.
    private var floor: UInt64

    /// - Parameter generation: voids up to it are not known.
    init(after generation: UInt64, limits: CoherenceLimits) {
        floor = generation
        holdsMax = limits.holdsMax
        recent = RingBuffer(capacityMax: limits.recentMax)
    }

    // MARK: Voids

    func void(_ names: VoidedNames, generation: UInt64) {
        if let forgotten = recent.appendDroppingFirst(Past(generation: generation, names: names)) {
            floor = forgotten.generation
        }
    }

    func wasVoided(since before: UInt64, _ names: [String]) -> Bool {
        if before < floor { return true }
        // The newest come last, and most tickets are younger than all of them.
        for index in (0..<recent.count).reversed() {
            guard recent[index].generation > before else { return false }
            if names.contains(where: { recent[index].names.contains($0) }) { return true }
        }
        return false
    }

    // MARK: Holds

    func isHeld(_ name: String, at now: MonotonicTime) -> Bool { wasHeld(name, since: now) }

    /// Holds that have run out are remembered: during them, too, somebody may have begun to read.
    func wasHeld(_ name: String, since time: MonotonicTime) -> Bool {
        if holds.isEmpty { return false }
        return holds.values.contains { $0.until > time && $0.names.contains(name) }
    }

    /// - Parameter generation: later than that of every ticket.
    func insert(_ hold: CopyLedger.Hold, generation: UInt64, at now: MonotonicTime) {
        if holds.count >= holdsMax {
            for (id, held) in holds where held.until <= now {
                remove(id, generation: generation)
            }
        }
        if holds.count < holdsMax || holds[hold.id] != nil {
            holds[hold.id] = Held(names: hold.names, until: now + hold.left)
        } else {
            standing.blockedUntil = max(standing.blockedUntil, now + hold.left)
        }
    }

    func remove(_ id: VoidID, generation: UInt64) {
        guard let held = holds.removeValue(forKey: id) else { return }
        void(held.names, generation: generation)
    }
}
