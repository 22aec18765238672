import HCCore
import HCIO
import HCPostgres

/// What one worker of a run writes into the history. The end of a step is written with the beginning of the next, in one
/// transaction, or when there is none: until then the step counts as running, and whoever takes the run over then sees by
/// the shard's ledger that it was done.
@LoopActor
final class StepHistory {
    private let store: RolloutStore
    private let rollout: Rollout
    let wave: Int
    /// The end of the last step, as long as it is not written.
    private var owed: [Query] = []
    /// Where that step was.
    private(set) var owedShard: String?

    init(_ store: RolloutStore, _ rollout: Rollout, wave: Int) {
        self.store = store
        self.rollout = rollout
        self.wave = wave
    }

    /// As `RolloutStore.began`.
    func began(
        _ migration: Migration, named name: String, shard: String, fingerprint: String,
        changesSchema: Bool = false
    ) async throws -> UUID? {
        let run = try await store.began(
            migration, named: name, shard: shard, wave: wave, fingerprint: fingerprint,
            changesSchema: changesSchema, rollout, after: owed
        ) {
            owed = []
            owedShard = nil
        }
        return run
    }

    /// - Parameter record: what all processes are told of the shard with it.
    func ended(_ run: UUID, shard: String, fingerprint: String, record: Query? = nil) {
        owed = [RolloutStore.ending(run, fingerprint: fingerprint, error: nil)]
        if let record { owed.append(record) }
        owedShard = shard
    }

    func failed(_ run: UUID, _ error: String) async throws {
        try await store.write(
            [RolloutStore.ending(run, fingerprint: nil, error: error)],
            "the history of migrations cannot be written")
    }

    /// Writes what has not been written yet.
    func settle() async throws {
        guard !owed.isEmpty else { return }
        try await store.write(owed, "the history of migrations cannot be written")
        owed = []
        owedShard = nil
    }
}
