import HCPostgres

/// What a database's schema was at one moment: its fingerprint, and by what can be told that it still is.
///
/// To make the fingerprint everything in the schema is written out as text, which costs more than most migrations do. So a
/// run makes it where the schema changes, and from then on asks for the stamp.
struct SchemaMark: Sendable, Equatable {
    var fingerprint: String
    /// Of the rows of the catalogue from which the fingerprint is made, by the transactions that wrote them; empty: not
    /// known.
    var stamp = ""

    /// What a migration's own transaction leaves for whoever asks next over the same connection.
    private static let setting: StaticString = "hc_migrate.stamp"

    /// The stamp now. Whoever changes, adds or removes an object of the schema writes or removes a row of
    /// these; rows below 16384 are PostgreSQL's own (PostgreSQL manual, 68.2.2). VACUUM and ANALYZE leave the stamp as it is,
    /// unless they write a catalogue anew.
    private static let stampSQL: StaticString = """
        SELECT count(*) || ':' || coalesce(bit_xor(hashtextextended(xmin::text || ctid::text, tableoid::int8)), 0)
        FROM (
            SELECT tableoid, xmin, ctid FROM pg_catalog.pg_class WHERE oid >= 16384
            UNION ALL SELECT tableoid, xmin, ctid FROM pg_catalog.pg_attribute WHERE attrelid >= 16384
            UNION ALL SELECT tableoid, xmin, ctid FROM pg_catalog.pg_attrdef
            UNION ALL SELECT tableoid, xmin, ctid FROM pg_catalog.pg_constraint WHERE oid >= 16384
            UNION ALL SELECT tableoid, xmin, ctid FROM pg_catalog.pg_index WHERE indexrelid >= 16384
            UNION ALL SELECT tableoid, xmin, ctid FROM pg_catalog.pg_policy
            UNION ALL SELECT tableoid, xmin, ctid FROM pg_catalog.pg_trigger
            UNION ALL SELECT tableoid, xmin, ctid FROM pg_catalog.pg_rewrite WHERE oid >= 16384
            UNION ALL SELECT tableoid, xmin, ctid FROM pg_catalog.pg_proc WHERE oid >= 16384
            UNION ALL SELECT tableoid, xmin, ctid FROM pg_catalog.pg_type WHERE oid >= 16384
            UNION ALL SELECT tableoid, xmin, ctid FROM pg_catalog.pg_extension
            UNION ALL SELECT tableoid, xmin, ctid FROM pg_catalog.pg_depend
                WHERE classid IN ('pg_catalog.pg_class'::regclass, 'pg_catalog.pg_proc'::regclass) AND objid >= 16384 AND deptype = 'e'
        ) AS part
        """

    static let question = Query(stampSQL)

    /// A statement of a migration's transaction, before it makes the fingerprint: what somebody else changes in between
    /// is then in the fingerprint and not in the stamp, and seen as a change.
    static let keep = "SELECT set_config('\(setting)', (\(stampSQL)), false)"

    /// What `keep` has kept for this session.
    static let kept = Query.unsafeSQL(
        "SELECT coalesce(current_setting('\(setting)', true), '')", [])
}
