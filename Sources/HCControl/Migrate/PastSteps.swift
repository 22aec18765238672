import HCCore
import HCIO
import HCPostgres

/// What the history tells of steps that were taken before, by any run.
@LoopActor
struct PastSteps {
    let plane: ControlPlane

    /// How a verification is called in the history.
    static func verification(of migration: Migration) -> String { "\(migration.name) (verify)" }

    /// What was worked on at shards, by any run, and not found good since: it may have been taken back in between, and
    /// applied once more.
    ///
    /// - Parameter versions: of migrations that have a verification.
    func unverified(of versions: [Int]) async throws -> [String: Set<Int>] {
        guard !versions.isEmpty else { return [:] }
        return try await plane.attempt("the history of migrations cannot be read") {
            let rows = try await plane.control().execute(
                Query(
                    """
                    SELECT DISTINCT shard_id, version FROM migration_run AS run
                    WHERE database = 'shard' AND version = ANY($1) AND name NOT LIKE '% (verify)' AND NOT EXISTS (
                        SELECT FROM migration_run AS good
                        WHERE good.shard_id = run.shard_id AND good.version = run.version
                            AND good.name LIKE '% (verify)' AND good.state = 'done'
                            AND good.started_at >= run.started_at)
                    """, [.int8s(versions.map(Int64.init))]), deadline: plane.deadline
            ).rows
            var found: [String: Set<Int>] = [:]
            for row in rows { found[try row.text(0), default: []].insert(try row.int(1)) }
            return found
        }
    }

    /// How long steps took at the shards that have them, in the mean, by their order.
    func durations(_ steps: [MigrationStep]) async throws -> [Int: Duration] {
        try await plane.attempt("the history of migrations cannot be read") {
            let rows = try await plane.control().execute(
                Query(
                    """
                    SELECT version, name, avg(extract(epoch FROM finished_at - started_at) * 1000)::int8
                    FROM migration_run
                    WHERE database = 'shard' AND state = 'done' AND version = ANY($1) GROUP BY version, name
                    """, [.int8s(steps.map { Int64($0.version) })]), deadline: plane.deadline
            ).rows
            var durations: [Int: Duration] = [:]
            for row in rows {
                let (version, name) = (try row.int(0), try row.text(1))
                guard let step = steps.first(where: { $0.version == version && $0.name == name })
                else { continue }
                durations[step.order] = .milliseconds(try row.int(2))
            }
            return durations
        }
    }
}
