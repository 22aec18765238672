import HCCore
import HCPostgres
import HCTenancy

/// The statements of ``TenantDigest``. Names come from the catalogue and are quoted; values are parameters.
enum TenantDigestSQL {
    /// What could make equal rows read differently, for this transaction. The row's bytes are the types' binary form,
    /// which no setting changes but the client's encoding; the others are for keys and foreign types, which are text.
    /// Without row_security = off a role that may not see every clinic's rows would find both sides equally empty.
    /// No worker processes and no compiler: the neighbours' cores are theirs.
    static let settings = Query(
        """
        SELECT set_config(name, value, true)
        FROM (VALUES
            ('DateStyle', 'ISO, YMD'), ('TimeZone', 'UTC'), ('IntervalStyle', 'postgres'),
            ('extra_float_digits', '1'), ('bytea_output', 'hex'), ('client_encoding', 'UTF8'),
            ('xmlbinary', 'base64'), ('lc_monetary', 'C'), ('quote_all_identifiers', 'off'),
            ('search_path', 'pg_catalog'), ('row_security', 'off'), ('jit', 'off'),
            ('max_parallel_workers_per_gather', '0')
        ) AS setting (name, value)
        """)

    /// Rows are found by their keys, whatever the planner believes. Of a range of a key of several columns it expects up to a
    /// quarter of the table, for it looks at the first column alone and takes the two ends as having nothing to do with each
    /// other; and of a table that was copied a moment ago it knows little. It would read all of the table for each chunk.
    /// Where nothing may be sorted, only the key's own index brings rows in its order: see ``keyOrder(of:)``.
    static let byKey = Query(
        """
        SELECT set_config(name, 'off', true)
        FROM unnest(ARRAY[
            'enable_seqscan', 'enable_bitmapscan', 'enable_sort', 'enable_incremental_sort',
            'enable_hashjoin', 'enable_mergejoin'
        ]) AS name
        """)

    /// Behind everything that this transaction's snapshot shows; and the snapshot.
    static let position = Query(
        "SELECT (pg_current_wal_insert_lsn() - '0/0'::pg_lsn)::bigint, pg_current_snapshot()::text")

    /// Types below 16384 are those of initdb (PostgreSQL's transam.h, FirstNormalObjectId).
    static let columns = Query(
        """
        SELECT tenant_table.name, attribute.attname::text,
            format_type(attribute.atttypid, attribute.atttypmod),
            format_type(attribute.atttypid, NULL),
            attribute.atttypid < 16384,
            attribute.attcollation <> 0,
            array_position(key.indkey::int2[], attribute.attnum)
        FROM public.hc_tenant_tables() AS tenant_table (name)
        JOIN pg_class class ON class.relname = tenant_table.name
            AND class.relnamespace = 'public'::regnamespace
        JOIN pg_attribute attribute ON attribute.attrelid = class.oid AND attribute.attnum > 0
            AND NOT attribute.attisdropped AND attribute.attgenerated = ''
        LEFT JOIN pg_index key ON key.indrelid = class.oid AND key.indisprimary
        ORDER BY tenant_table.name COLLATE "C", attribute.attname COLLATE "C"
        """)

    static func count(_ table: TenantDigestPlan.Table, of tenant: TenantID) -> Query {
        .unsafeSQL(
            "SELECT count(*) FROM public.\(quoted(table.name)) WHERE tenant_id = $1",
            [.id(tenant)])
    }

    /// The keys of rows number n, 2n, …, from 0.
    static func cuts(
        _ table: TenantDigestPlan.Table, of tenant: TenantID, rowsPerChunk: Int
    ) -> Query {
        let names = table.key.map { quoted($0.name) }
        return .unsafeSQL(
            """
            SELECT \(names.map { "\($0)::text" }.joined(separator: ", "))
            FROM (
                SELECT \(names.joined(separator: ", ")),
                    row_number() OVER (ORDER BY \(order(of: table))) - 1 AS place
                FROM public.\(quoted(table.name)) WHERE tenant_id = $1
            ) AS numbered
            WHERE place > 0 AND place % $2 = 0
            ORDER BY place
            """, [.id(tenant), .int8(Int64(rowsPerChunk))])
    }

    static func digest(
        _ table: TenantDigestPlan.Table, _ range: TenantDigestPlan.KeyRange, of tenant: TenantID
    ) -> Query {
        let (condition, binds) = condition(table, range, of: tenant)
        return .unsafeSQL(
            """
            SELECT count(*),
                coalesce(sum(hash_record_extended(ROW(line.bytes), 1)), 0)::text,
                coalesce(sum(hash_record_extended(ROW(line.bytes), 2)), 0)::text
            FROM (
                SELECT \(bytes(of: table)) AS bytes
                FROM public.\(quoted(table.name)) AS held WHERE \(condition)
                \(keyOrder(of: table)) OFFSET 0
            ) AS line
            """, binds)
    }

    /// Of each row of a range its two hashes, and its key.
    static func rows(
        _ table: TenantDigestPlan.Table, _ range: TenantDigestPlan.KeyRange, of tenant: TenantID
    ) -> Query {
        let (condition, binds) = condition(table, range, of: tenant)
        let keys = table.key.map { "held.\(quoted($0.name))::text" }.joined(separator: ", ")
        return .unsafeSQL(
            """
            SELECT hash_record_extended(ROW(line.bytes), 1), hash_record_extended(ROW(line.bytes), 2),
                line.key
            FROM (
                SELECT \(bytes(of: table)) AS bytes, ARRAY[\(keys)]::text[] AS key
                FROM public.\(quoted(table.name)) AS held WHERE \(condition)
                \(keyOrder(of: table)) OFFSET 0
            ) AS line
            """, binds)
    }

    /// Of the rows, called `held`, that are in a range.
    private static func condition(
        _ table: TenantDigestPlan.Table, _ range: TenantDigestPlan.KeyRange, of tenant: TenantID
    ) -> (text: String, binds: [PostgresValue]) {
        var binds: [PostgresValue] = [.id(tenant)]
        var condition = "tenant_id = $1"
        for (bound, relation) in [(range.lower, ">="), (range.upper, "<")] {
            guard let bound else { continue }
            let values = zip(table.key, bound).map { column, text in
                binds.append(.text(text))
                let value = "$\(binds.count)::text::\(column.type)"
                return column.isCollated ? "\(value) COLLATE \"C\"" : value
            }
            condition +=
                " AND (\(order(of: table))) \(relation) (\(values.joined(separator: ", ")))"
        }
        return (condition, binds)
    }

    /// Of each row that is there its place among `keys`, and its two hashes.
    ///
    /// - Parameter keys: the values of the table's key, row by row.
    static func rows(
        _ table: TenantDigestPlan.Table, _ keys: [[String]], of tenant: TenantID
    ) -> Query {
        var binds: [PostgresValue] = [.id(tenant), .int8(Int64(keys.count))]
        var lists = ["generate_series(1, $2)"]
        var condition = "held.tenant_id = $1"
        for (number, column) in table.key.enumerated() {
            binds.append(.texts(keys.map { $0[number] }))
            lists.append("unnest($\(binds.count)::text[]::\(column.type)[])")
            condition += " AND held.\(quoted(column.name)) = wanted.key\(number)"
        }
        let names = ["place"] + table.key.indices.map { "key\($0)" }
        return .unsafeSQL(
            """
            SELECT line.place::int8, hash_record_extended(ROW(line.bytes), 1),
                hash_record_extended(ROW(line.bytes), 2)
            FROM (
                SELECT wanted.place, \(bytes(of: table)) AS bytes
                FROM ROWS FROM (\(lists.joined(separator: ", "))) AS wanted (\(names.joined(separator: ", ")))
                JOIN public.\(quoted(table.name)) AS held ON \(condition)
                OFFSET 0
            ) AS line
            """, binds)
    }

    /// The binary form of all columns of a row that is called `held`.
    private static func bytes(of table: TenantDigestPlan.Table) -> String {
        let columns = table.columns.map { column in
            "held.\(quoted(column.name))" + (column.isBuiltIn ? "" : "::text")
        }
        return "record_send(ROW(\(columns.joined(separator: ", "))))"
    }

    /// The key's columns as they are ordered: texts by their bytes, for collations differ between servers.
    private static func order(of table: TenantDigestPlan.Table) -> String {
        table.key.map { quoted($0.name) + ($0.isCollated ? " COLLATE \"C\"" : "") }
            .joined(separator: ", ")
    }

    /// Of rows whose order is of no account: that of the key's index, texts by the column's collation as they are there.
    private static func keyOrder(of table: TenantDigestPlan.Table) -> String {
        guard !table.key.isEmpty else { return "" }
        return "ORDER BY " + table.key.map { "held.\(quoted($0.name))" }.joined(separator: ", ")
    }

    /// Names of the catalogue: never empty, never too long.
    private static func quoted(_ name: String) -> String {
        guard let quoted = Query.quotedIdentifier(name) else {
            preconditionFailure("a name that no catalogue has")
        }
        return quoted
    }
}
