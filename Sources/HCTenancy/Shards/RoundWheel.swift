/// Who may be served in which of the next rounds: one list for each round, and one bit for each list, so that the
/// rounds in which nobody may be served are skipped in constant time.
///
/// Rounds are numbered from 0 and never fall. A wheel of `count` lists holds the rounds `current ..< current + count`.
struct RoundWheel {
    /// A power of two, at least 64.
    let count: Int
    private(set) var current: Int64 = 0
    private var lists: [IndexList]
    private var occupied: [UInt64]

    init(count: Int) {
        precondition(count >= 64 && count & (count - 1) == 0, "a power of two from 64")
        self.count = count
        lists = Array(repeating: IndexList(), count: count)
        occupied = Array(repeating: 0, count: count / 64)
    }

    /// The last round that has a place.
    var last: Int64 { current + Int64(count) - 1 }

    /// Goes on to a round that is not in the past. The rounds in between must be empty.
    mutating func advance(to round: Int64) { current = max(current, round) }

    /// - Parameter round: within `current...last`.
    mutating func insert(
        _ index: Int32, in round: Int64, first: Bool, _ links: inout IndexLinks
    ) {
        precondition(round >= current && round <= last, "beyond the wheel")
        let slot = slot(round)
        if first {
            links.prepend(index, to: &lists[slot])
        } else {
            links.append(index, to: &lists[slot])
        }
        occupied[slot >> 6] |= 1 << UInt64(slot & 63)
    }

    mutating func remove(_ index: Int32, from round: Int64, _ links: inout IndexLinks) {
        let slot = slot(round)
        links.remove(index, from: &lists[slot])
        if lists[slot].isEmpty { occupied[slot >> 6] &= ~(1 << UInt64(slot & 63)) }
    }

    /// The first round in which somebody is, and who is first in it.
    var first: (round: Int64, index: Int32)? {
        let start = slot(current)
        // The word of the current round is looked at twice: first its upper part, at the end its lower part.
        for step in 0...occupied.count {
            let word = ((start >> 6) + step) % occupied.count
            var bits = occupied[word]
            if step == 0 { bits &= ~0 << UInt64(start & 63) }
            if step == occupied.count { bits &= (1 << UInt64(start & 63)) - 1 }
            guard bits != 0 else { continue }
            let slot = word << 6 + bits.trailingZeroBitCount
            return (current + Int64((slot - start) & (count - 1)), lists[slot].first)
        }
        return nil
    }

    private func slot(_ round: Int64) -> Int { Int(round & Int64(count - 1)) }
}
