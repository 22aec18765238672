import HCCore
package import HCIO
import HCPostgres

/// Which shards have another schema than most of them, and in what.
@LoopActor
package struct SchemaDrift {
    package struct Line: Sendable {
        package let shard: String
        package var version = 0
        package var fingerprint = ""
        /// Facts of its catalogue that most shards do not have, and those that it lacks, as `hc_schema_fingerprint()`
        /// counts them.
        package var extra: [String] = []
        package var missing: [String] = []
        /// What the shard knows of those of them that it has, and of some that it has not any more, by fact.
        package internal(set) var origins: [String: SchemaOrigin] = [:]
        /// Whether the shard keeps when its transactions were committed.
        package internal(set) var keepsTimes = false
        /// Why it could not be looked at.
        package var problem: String?
        package var isDifferent = false
    }

    let plane: ControlPlane
    /// What ends the part of the function's source that lists the facts.
    private static let end = "SELECT encode(sha256("

    package init(plane: ControlPlane) {
        self.plane = plane
    }

    /// One line for each shard, in the order of their ids.
    package func run() async throws -> [Line] {
        var lines: [Line] = []
        let shards = try await ShardRegistry(plane: plane).list(isInUse: true)
        for shard in shards {
            var line = Line(shard: shard.id)
            do {
                (line.version, line.fingerprint) = try await look(at: shard)
            } catch {
                line.problem = "\(error)"
            }
            lines.append(line)
        }
        let groups = Dictionary(
            grouping: lines.indices.filter { lines[$0].problem == nil },
            by: { lines[$0].fingerprint })
        let ordered = groups.values.sorted { ($0.count, -$0[0]) > ($1.count, -$1[0]) }
        guard let most = ordered.first, ordered.count > 1 else { return lines }
        let wanted = Set(try await facts(of: shards[most[0]]))
        for index in ordered.dropFirst().flatMap({ $0 }) {
            lines[index].isDifferent = true
            let found = Set(try await facts(of: shards[index]))
            lines[index].extra = found.subtracting(wanted).sorted()
            lines[index].missing = wanted.subtracting(found).sorted()
            (lines[index].origins, lines[index].keepsTimes) = try await SchemaOrigin.find(
                lines[index].extra + lines[index].missing, at: shards[index], plane)
        }
        return lines
    }

    private func look(at shard: Shard) async throws -> (Int, String) {
        try await plane.attempt("the schema of shard \(shard.id) cannot be read") {
            let row = try await plane.shard(reference: shard.reference, .owner).execute(
                Query(
                    "SELECT coalesce(max(version), 0), hc_schema_fingerprint() FROM hc_schema"),
                deadline: plane.deadline
            ).single()
            return (try row.int(0), try row.text(1))
        }
    }

    /// The lines over which the fingerprint is made. They come from the function's own source, so that what is shown and
    /// what is compared cannot be two things.
    private func facts(of shard: Shard) async throws -> [String] {
        try await plane.attempt("the schema of shard \(shard.id) cannot be read") {
            let connection = try await plane.shard(reference: shard.reference, .owner)
            let source = try await connection.execute(
                Query(
                    "SELECT prosrc FROM pg_proc WHERE oid = 'public.hc_schema_fingerprint()'::regprocedure"
                ), deadline: plane.deadline
            ).single().text(0)
            let parts = source.split(separator: SchemaDrift.end, omittingEmptySubsequences: false)
            guard parts.count == 2 else {
                throw ControlError(
                    .failed, code: "fingerprint-unknown",
                    "hc_schema_fingerprint() of shard \(shard.id) is not the one that migrations made",
                    remedy: "Compare it with the one in migrations/shard.")
            }
            return try await connection.execute(
                .unsafeSQL("\(parts[0]) SELECT line FROM fact WHERE line IS NOT NULL", []),
                deadline: plane.deadline
            ).rows.map { try $0.text(0) }
        }
    }
}
