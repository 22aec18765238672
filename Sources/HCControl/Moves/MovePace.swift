import HCIO

/// What a move leaves to its neighbours: between two pieces of work that read or change many rows it rests twice as
/// long as the last one took, so that it never has more than a third of a core. What PostgreSQL does by itself, the copy, is
/// held back by `max_sync_workers_per_subscription` (`admin/moves.md`).
@LoopActor
enum MovePace {
    private static let restsPerWork = 2
    private static let longest = Duration.seconds(2)

    static func rest(after work: Duration) async throws {
        try await Loop.shared.sleep(for: min(work * restsPerWork, longest))
    }
}
