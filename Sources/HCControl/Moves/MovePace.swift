import HCIO

/// What a move leaves to its neighbours: what it reads or removes of many rows it does in pieces of some milliseconds, and
/// between two of them it rests nine times as long as they took, so that it never has more than a tenth of a core.
///
/// Both are needed. Whoever wakes up on a core that another has just been given waits until that one's turn is over, which
/// is milliseconds (EEVDF, `base_slice_ns` in Linux' sched-design): a longer piece takes that from each request that meets it,
/// and too short a rest lets too many meet one. What PostgreSQL does by itself, the copy, is held back by
/// `max_sync_workers_per_subscription` (`admin/moves.md`).
@LoopActor
struct MovePace {
    /// What a piece is to take.
    static let piece = Duration.milliseconds(2)
    private static let restsPerWork = 9
    private static let longest = Duration.seconds(2)

    /// How much the next piece does, in what the caller counts.
    private(set) var size: Int
    private let sizes: ClosedRange<Int>

    /// - Parameter sizes: of a piece. It begins with the least.
    init(sizes: ClosedRange<Int>) {
        size = sizes.lowerBound
        self.sizes = sizes
    }

    /// Rests, and makes the next piece so large that it takes about as long as it is to.
    ///
    /// - Parameter works: how long each part of the last piece took, one after the other; on as many servers.
    mutating func rest(after works: Duration...) async throws {
        try await Loop.shared.sleep(for: next(after: works))
    }

    /// The size of the next piece, and how long to rest before it.
    mutating func next(after works: [Duration]) -> Duration {
        let longest = works.max() ?? .zero
        if longest > MovePace.piece {
            size = max(sizes.lowerBound, size / 2)
        } else if longest < MovePace.piece / 2 {
            size = min(sizes.upperBound, size * 2)
        }
        return min(works.reduce(.zero, +) * MovePace.restsPerWork, MovePace.longest)
    }
}
