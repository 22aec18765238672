import HCPostgres

extension LintCatalogue {
    /// As `hc_owner`, in the transaction that is looked at. What belongs to an extension is left out.
    static func queries(of set: MigrationLint.DatabaseSet) -> [Query] {
        [
            Query(
                """
                SELECT class.oid, relname::text, relkind, coalesce(pg_relation_filenode(class.oid), 0::oid),
                    coalesce(pg_stat_get_xact_numscans(class.oid), 0), nspname::text
                FROM pg_class AS class JOIN pg_namespace AS space ON space.oid = relnamespace
                WHERE nspname <> 'information_schema' AND nspname !~ '^pg_' AND nspname <> 'hc_lint'
                """),
            Query(
                """
                SELECT attrelid, attnum, attname::text, attnotnull, atthasmissing
                FROM pg_attribute
                JOIN pg_class AS class ON class.oid = attrelid AND relkind IN ('r', 'p', 'v', 'm', 'f')
                JOIN pg_namespace AS space ON space.oid = relnamespace
                WHERE attnum > 0 AND NOT attisdropped
                    AND nspname <> 'information_schema' AND nspname !~ '^pg_'
                """),
            Query(
                """
                SELECT oid, conrelid, conname::text, contype, convalidated, coalesce(conkey, '{}')::int8[]
                FROM pg_constraint WHERE conrelid >= 16384
                """),
            Query(
                "SELECT indexrelid, indrelid, indisvalid FROM pg_index WHERE indrelid >= 16384"),
            Query(
                """
                SELECT relation, mode FROM pg_locks
                WHERE pid = pg_backend_pid() AND locktype = 'relation' AND relation >= 16384
                """),
            Query("SELECT coalesce(current_setting('hc_lint.rewrites', true), '')"),
            set == .shard ? shardProblems : Query("SELECT NULL::text, NULL::text WHERE false"),
            functions,
        ]
    }

    /// Who may call a trigger's function calls nothing; what only the owner may call is called by other functions.
    private static let functions = Query(
        """
        SELECT pg_proc.oid, nspname::text, proname::text, prokind::text,
            proname || '(' || pg_get_function_arguments(pg_proc.oid) || ')', coalesce(pg_get_function_result(pg_proc.oid), ''),
            ARRAY(
                SELECT format_type(type, NULL)
                FROM unnest(proargtypes::oid[]) WITH ORDINALITY AS argument (type, place) ORDER BY place),
            ARRAY(
                SELECT coalesce(argument.name, '')
                FROM unnest(proargtypes::oid[], CASE WHEN proargmodes IS NULL THEN proargnames ELSE ARRAY(
                        SELECT named.name
                        FROM unnest(proargnames, proargmodes) WITH ORDINALITY AS named (name, mode, place)
                        WHERE mode IN ('i', 'b', 'v') ORDER BY place) END)
                    WITH ORDINALITY AS argument (type, name, place)
                WHERE type IS NOT NULL ORDER BY place),
            pronargs - pronargdefaults, provariadic <> 0,
            ARRAY(
                SELECT rolname::text FROM pg_roles
                WHERE rolname IN ('hc_app', 'hc_control', 'hc_mover', 'hc_router')
                    AND has_function_privilege(pg_roles.oid, pg_proc.oid, 'EXECUTE')
                ORDER BY 1)
        FROM pg_proc JOIN pg_namespace AS space ON space.oid = pronamespace
        WHERE nspname <> 'information_schema' AND nspname !~ '^pg_' AND nspname <> 'hc_lint'
            AND prorettype NOT IN ('trigger'::regtype, 'event_trigger'::regtype)
            AND NOT EXISTS (
                SELECT FROM pg_depend
                WHERE classid = 'pg_proc'::regclass AND objid = pg_proc.oid AND deptype = 'e')
        """)

    /// Every rule of the shards' schema that is broken, and by what. `migrations/README.md` has the rules.
    private static let shardProblems = Query(
        """
        WITH item AS (
            SELECT class.oid, relname::text AS name, relrowsecurity, relforcerowsecurity, relreplident,
                relpersistence, coalesce(relacl, acldefault('r', relowner)) AS rights,
                left(relname, 3) = 'hc_' AS platform, (
                    SELECT attnum FROM pg_attribute
                    WHERE attrelid = class.oid AND attname = 'tenant_id' AND NOT attisdropped) AS tenant
            FROM pg_class AS class JOIN pg_namespace AS space ON space.oid = relnamespace
            WHERE relkind IN ('r', 'p', 'm', 'f')
                AND nspname <> 'information_schema' AND nspname !~ '^pg_' AND nspname <> 'hc_lint'
        ), door AS (
            SELECT polrelid, polname::text AS name, polpermissive AS opens,
                polcmd = '*' AND polpermissive AND CASE
                    WHEN platform THEN polroles = ARRAY['hc_owner'::regrole::oid]
                    ELSE polroles = ARRAY[0::oid]
                        AND pg_get_expr(polqual, polrelid)
                            = '(tenant_id = ( SELECT hc_ctx_tenant() AS hc_ctx_tenant))'
                        AND pg_get_expr(polwithcheck, polrelid)
                            = '(tenant_id = ( SELECT hc_ctx_tenant() AS hc_ctx_tenant))'
                END IS TRUE AS right
            FROM pg_policy JOIN item ON item.oid = polrelid
        )
        SELECT 'tenant-column', name FROM item WHERE tenant IS NULL AND name <> 'hc_schema'
        UNION ALL
        SELECT 'primary-key', name
        FROM item LEFT JOIN pg_index ON indrelid = item.oid AND indisprimary
        WHERE tenant IS NOT NULL AND indkey[0] IS DISTINCT FROM tenant
        UNION ALL
        SELECT 'tenant-unique', name || ': ' || indexrelid::regclass
        FROM item JOIN pg_index ON indrelid = item.oid AND (indisunique OR indisexclusion)
        WHERE tenant IS NOT NULL AND NOT indisprimary AND indkey[0] <> tenant
        UNION ALL
        SELECT 'tenant-foreign-key', name || ': ' || conname
        FROM item JOIN pg_constraint ON conrelid = item.oid AND contype = 'f'
        WHERE NOT EXISTS (
            SELECT FROM pg_attribute AS here, pg_attribute AS there
            WHERE here.attrelid = conrelid AND here.attnum = conkey[1] AND here.attname = 'tenant_id'
                AND there.attrelid = confrelid AND there.attnum = confkey[1] AND there.attname = 'tenant_id')
        UNION ALL
        SELECT 'row-security', name FROM item
        WHERE tenant IS NOT NULL AND NOT (relrowsecurity AND relforcerowsecurity)
        UNION ALL
        SELECT 'policy', name FROM item
        WHERE tenant IS NOT NULL AND NOT EXISTS (SELECT FROM door WHERE polrelid = item.oid AND door.right)
        UNION ALL
        SELECT 'policy', item.name || ': ' || door.name FROM item JOIN door ON polrelid = item.oid
        WHERE opens AND NOT door.right
        UNION ALL
        SELECT 'grants', name || ': ' || CASE grantee WHEN 0 THEN 'everyone' ELSE grantee::regrole::text END
            || ' has ' || privilege_type
        FROM item, aclexplode(rights)
        WHERE grantee = 0
            OR grantee IN ('hc_app'::regrole, 'hc_mover'::regrole)
                AND privilege_type IN ('TRUNCATE', 'REFERENCES', 'TRIGGER')
            OR grantee = 'hc_app'::regrole AND platform AND name <> 'hc_schema'
        UNION ALL
        SELECT 'grants', name || ': ' || role || ' lacks ' || privilege
        FROM item, (VALUES ('hc_app', 'SELECT'), ('hc_mover', 'SELECT'), ('hc_mover', 'INSERT'),
            ('hc_mover', 'UPDATE'), ('hc_mover', 'DELETE')) AS needed (role, privilege)
        WHERE tenant IS NOT NULL AND NOT platform AND NOT has_table_privilege(role, item.oid, privilege)
            AND (privilege <> 'UPDATE' OR has_table_privilege('hc_app', item.oid, 'UPDATE'))
        UNION ALL
        SELECT 'sequence', relname::text
        FROM pg_class JOIN pg_namespace AS space ON space.oid = relnamespace
        WHERE relkind = 'S' AND nspname <> 'information_schema' AND nspname !~ '^pg_'
        UNION ALL
        SELECT 'replica-identity', name FROM item
        WHERE tenant IS NOT NULL AND relpersistence = 'p' AND relreplident <> 'f' AND NOT EXISTS (
            SELECT FROM pg_index
            WHERE indrelid = item.oid AND tenant = ANY (indkey)
                AND CASE relreplident WHEN 'd' THEN indisprimary WHEN 'i' THEN indisreplident ELSE false END)
        UNION ALL
        SELECT 'public-function', pg_proc.oid::regprocedure::text
        FROM pg_proc JOIN pg_namespace AS space ON space.oid = pronamespace,
            aclexplode(coalesce(proacl, acldefault('f', proowner)))
        WHERE grantee = 0 AND nspname <> 'information_schema' AND nspname !~ '^pg_' AND nspname <> 'hc_lint'
            AND NOT EXISTS (
                SELECT FROM pg_depend
                WHERE classid = 'pg_proc'::regclass AND objid = pg_proc.oid AND deptype = 'e')
        """)
}
