import HCCore
package import HCIO
import HCPostgres

/// What PostgreSQL knows of who changed an object and when, which is little: whose it is now, and, with
/// `track_commit_timestamp`, when the row of the catalogue that says what it is was committed. It does not keep the role
/// that did it, and of what was dropped nothing but that a column was.
package struct SchemaOrigin: Sendable, Equatable {
    package let owner: String
    /// RFC 3339; nil: not known.
    package let changedAt: String?

    /// Each object with the head of the facts that are made of it (`hc_schema_fingerprint()`). Of a column that was dropped the
    /// catalogue has the table still, and of a right that was taken away the list of rights.
    private static let question = Query(
        """
        WITH relation AS (
            SELECT class.oid, class.xmin, relname, relowner FROM pg_class AS class
            WHERE relnamespace = 'public'::regnamespace
        ), object (head, owner, changed) AS (
            SELECT format('%s %s ', kind, relname), relowner, xmin
            FROM relation, unnest(ARRAY['relation', 'view', 'grant']) AS kind
            UNION ALL
            SELECT format('column %s %s', relname, CASE WHEN NOT attisdropped THEN attname || ' ' END),
                relowner, pg_attribute.xmin
            FROM relation JOIN pg_attribute ON attrelid = relation.oid AND attnum > 0
            UNION ALL
            SELECT format('constraint %s %s ', relname, conname), relowner, pg_constraint.xmin
            FROM relation JOIN pg_constraint ON conrelid = relation.oid
            UNION ALL
            SELECT format('index %s %s %s', indisvalid, indisreplident, pg_get_indexdef(indexrelid)),
                relowner, pg_index.xmin
            FROM relation JOIN pg_index ON indrelid = relation.oid
            UNION ALL
            SELECT format('policy %s %s ', relname, polname), relowner, pg_policy.xmin
            FROM relation JOIN pg_policy ON polrelid = relation.oid
            UNION ALL
            SELECT format('trigger %s %s %s', relname, tgenabled, pg_get_triggerdef(pg_trigger.oid)),
                relowner, pg_trigger.xmin
            FROM relation JOIN pg_trigger ON tgrelid = relation.oid AND NOT tgisinternal
            UNION ALL
            SELECT format('function CREATE OR REPLACE %s public.%s(',
                CASE prokind WHEN 'p' THEN 'PROCEDURE' ELSE 'FUNCTION' END, quote_ident(proname)), proowner, xmin
            FROM pg_proc WHERE pronamespace = 'public'::regnamespace
            UNION ALL
            SELECT format('extension %s', extname), extowner, xmin FROM pg_extension
        )
        SELECT head, pg_get_userbyid(owner), CASE WHEN current_setting('track_commit_timestamp')::boolean
            THEN to_char(pg_xact_commit_timestamp(changed) AT TIME ZONE 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS"Z"') END
        FROM object ORDER BY length(head) DESC, 3 DESC NULLS LAST
        """)

    /// - Parameter facts: what differs.
    /// - Returns: what is known of each, by fact; and whether the shard keeps times.
    @LoopActor
    static func find(
        _ facts: [String], at shard: Shard, _ plane: ControlPlane
    ) async throws -> (origins: [String: SchemaOrigin], keepsTimes: Bool) {
        try await plane.attempt("the schema of shard \(shard.id) cannot be read") {
            let results = try await plane.shard(reference: shard.reference, .owner).execute(
                [question, Query("SELECT current_setting('track_commit_timestamp')::boolean")],
                deadline: plane.deadline)
            // The longest head says most, and of several the newest.
            let objects = try results[0].rows.map { row in
                (
                    head: try row.text(0),
                    origin: SchemaOrigin(
                        owner: try row.text(1), changedAt: try row.textIfPresent(2))
                )
            }
            var origins: [String: SchemaOrigin] = [:]
            for fact in facts {
                origins[fact] = objects.first { fact.hasPrefix($0.head) }?.origin
            }
            return (origins, try results[1].single().bool(0))
        }
    }
}
