import HCCore
import HCCrypto
import HCIO
import HCPostgres

/// What one worker of a run writes into the history, the table `migration_run`. The end of a step is written with the
/// beginning of the next, in one transaction, or when there is none: until then the step counts as running, and whoever
/// takes the run over then sees by the shard's ledger that it was done.
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

    /// Writes down that a migration begins at a shard, and what is owed.
    ///
    /// - Parameter changesSchema: then only if no clinic is on the move from or to it.
    /// - Returns: nil if one is, or was: no beginning was written then.
    /// - Throws: `ControlError` (`rollout-lost`), with no beginning written, if the rollout is not this process' any more.
    func began(
        _ migration: Migration, named name: String, shard: String, fingerprint: String,
        changesSchema: Bool = false
    ) async throws -> UUID? {
        var random = SystemRandom()
        let id = UUID.v7(at: store.plane.clocks.now(), using: &random)
        let queries = [
            Query(
                """
                SELECT 1 FROM migration_rollout WHERE id = $1 AND attempt = $2 AND state = 'running'
                """, [.uuid(rollout.id), .int8(rollout.attempt)]),
            Query(
                """
                INSERT INTO migration_run (id, database, shard_id, version, name, checksum, wave, state,
                    fingerprint_before, rollout_id, started_at)
                SELECT $1, 'shard', $2, $3, $4, $5, $6, 'running', $7, $8, clock_timestamp()
                WHERE NOT ($9 AND EXISTS (
                    SELECT FROM move
                    WHERE $2 IN (source_shard, target_shard) AND state IN ('running', 'aborting', 'soaking')))
                    AND EXISTS (
                        SELECT FROM migration_rollout
                        WHERE id = $8 AND attempt = $10 AND state = 'running')
                RETURNING id
                """,
                [
                    .uuid(id), .text(shard), .int4(Int32(migration.version)),
                    .text(name), .text(migration.checksum), .int4(Int32(wave)),
                    .text(fingerprint), .uuid(rollout.id), .bool(changesSchema),
                    .int8(rollout.attempt),
                ]),
        ]
        let before = owed
        let results = try await store.write(
            before + queries, "the history of shard \(shard) cannot be written"
        ).dropFirst(before.count)
        owed = []
        owedShard = nil
        guard let mine = results.first, let begun = results.last, mine.count == 1,
            begun.count == 1 || changesSchema
        else {
            throw RolloutStore.lost
        }
        return try begun.singleIfPresent()?.uuid(0)
    }

    /// - Parameter record: what all processes are told of the shard with it.
    func ended(_ run: UUID, shard: String, fingerprint: String, record: Query? = nil) {
        owed = [StepHistory.ending(run, fingerprint: fingerprint, error: nil)]
        if let record { owed.append(record) }
        owedShard = shard
    }

    func failed(_ run: UUID, _ error: String) async throws {
        try await store.write(
            [StepHistory.ending(run, fingerprint: nil, error: error)],
            "the history of migrations cannot be written")
    }

    /// Writes what has not been written yet.
    func settle() async throws {
        guard !owed.isEmpty else { return }
        try await store.write(owed, "the history of migrations cannot be written")
        owed = []
        owedShard = nil
    }

    /// Writes down how it ended: with the new fingerprint, or with an error.
    private static func ending(_ run: UUID, fingerprint: String?, error: String?) -> Query {
        Query(
            """
            UPDATE migration_run SET state = CASE WHEN $3::text IS NULL THEN 'done' ELSE 'failed' END,
                fingerprint_after = $2, error = $3, finished_at = clock_timestamp()
            WHERE id = $1 AND state = 'running'
            """, [.uuid(run), .optional(fingerprint), .optional(error)])
    }
}
