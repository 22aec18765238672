import HCCore
import HCPostgres

/// Copies in the shard database: answers that take much longer to compute than to read.
///
/// - M1. A change of counted tags adds one to their counts in its own transaction (`count`). So who sees a change
///   sees its count, and who does not see the one does not see the other.
/// - M2. The counts are read before the source, in an earlier snapshot: what a model says is at least as new as the
///   counts that it was made of.
/// - M3. A model is found only with the counts of the present, in one snapshot with them. By M1 and M2 nothing that
///   it was made of has changed then.
///
/// No lease and no hold is needed for that, and no clock but the database's own; a fill that comes late is refused
/// (M3 would not find it either).
struct ReadModels {
    let record: TenantRecord

    struct Found {
        /// Of the moment of the look.
        var counts: String
        var body: [UInt8]?
    }

    /// Adds one to the counts, after everything else that the change does: the rows stay locked until the commit.
    static func count(_ tags: [CacheTag], of tenant: TenantID) -> Query? {
        let names = Set(tags.filter(\.isCounted).map(\.name)).sorted()
        guard !names.isEmpty else { return nil }
        // In one order for everybody: two changes of the same tags wait for each other and not in a circle.
        return Query(
            """
            INSERT INTO cache_tag (tenant_id, tag, count)
            SELECT $1, tag, 1 FROM unnest($2::text[]) AS tag ORDER BY tag
            ON CONFLICT (tenant_id, tag) DO UPDATE SET count = cache_tag.count + 1
            """,
            [.id(tenant), .texts(names)])
    }

    func find(_ key: CacheKey) -> Query {
        Query(
            """
            WITH present AS (
                SELECT string_agg(coalesce(cache_tag.count, 0)::text, ',' ORDER BY wanted.place) AS counts
                FROM unnest($3::text[]) WITH ORDINALITY AS wanted (tag, place)
                LEFT JOIN cache_tag ON cache_tag.tenant_id = $1 AND cache_tag.tag = wanted.tag
            )
            SELECT present.counts, read_model.body
            FROM present
            LEFT JOIN read_model ON read_model.tenant_id = $1 AND read_model.name = $2
                AND read_model.epoch = $4 AND read_model.tags = array_to_string($3::text[], ',')
                AND read_model.counts = present.counts AND read_model.good_until > now()
            """,
            [.id(record.id), .text(key.name), .texts(key.tagNames), .int8(record.epoch)])
    }

    static func found(_ row: PostgresRow) throws -> Found {
        Found(counts: try row.text(0), body: try row.bytesIfPresent(1))
    }

    /// Writes a model, unless a tag has been counted since. No row is affected then.
    func fill(_ key: CacheKey, body: [UInt8], counts: String, life: Duration) -> Query {
        Query(
            """
            WITH present AS (
                SELECT string_agg(coalesce(cache_tag.count, 0)::text, ',' ORDER BY wanted.place) AS counts
                FROM unnest($3::text[]) WITH ORDINALITY AS wanted (tag, place)
                LEFT JOIN cache_tag ON cache_tag.tenant_id = $1 AND cache_tag.tag = wanted.tag
            )
            INSERT INTO read_model (tenant_id, name, epoch, tags, counts, body, made_at, good_until)
            SELECT $1, $2, $4, array_to_string($3::text[], ','), $5, $6, now(),
                now() + make_interval(secs => $7)
            FROM present WHERE present.counts = $5
            ON CONFLICT (tenant_id, name) DO UPDATE SET epoch = excluded.epoch, tags = excluded.tags,
                counts = excluded.counts, body = excluded.body, made_at = excluded.made_at,
                good_until = excluded.good_until
            """,
            [
                .id(record.id), .text(key.name), .texts(key.tagNames), .int8(record.epoch),
                .text(counts), .bytes(body), .double(life.inSeconds),
            ])
    }

    /// Removes what is over.
    func sweep() -> Query {
        Query(
            "DELETE FROM read_model WHERE tenant_id = $1 AND good_until <= now()", [.id(record.id)])
    }
}
