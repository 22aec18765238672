import HCTesting
import Testing

/// What the catalog of a migrated shard must say, and what each role meets there.
@Suite("Schema of a shard")
struct SchemaShardTests {
    static let sunrise = "018f0000-0000-7000-8000-00000000000a"
    static let lakeside = "018f0000-0000-7000-8000-00000000000b"

    let services: LocalServices
    let shard: ShardDatabase

    init() throws {
        services = try LocalServices.shared()
        shard = try services.makeShardDatabase()
        try services.psql(
            shard.owner,
            "INSERT INTO hc_tenant VALUES ('\(Self.sunrise)', 1, 'rw'), ('\(Self.lakeside)', 1, 'rw');"
        )
    }

    private func enter(_ tenant: String, _ mode: String = "w", epoch: Int = 1) -> String {
        "SELECT hc_enter('\(tenant)', \(epoch), '\(mode)');"
    }

    // MARK: The catalog

    @Test(
        "every tenant table forces row-level security, has the policy, and begins its key with the tenant"
    )
    func tenantTablesAreClosed() throws {
        let offenders = try services.psql(
            shard.owner,
            """
            SELECT class.relname
            FROM pg_class class
            JOIN pg_attribute ON attrelid = class.oid AND attname = 'tenant_id' AND NOT attisdropped
            LEFT JOIN pg_index ON indrelid = class.oid AND indisprimary
            WHERE class.relkind IN ('r', 'p') AND class.relnamespace = 'public'::regnamespace
                AND NOT (
                    relrowsecurity AND relforcerowsecurity AND attnotnull
                    AND indkey[0] IS NOT DISTINCT FROM attnum
                    AND (
                        SELECT count(*) FROM pg_policy WHERE polrelid = class.oid
                            -- So that hc_outbox_backlog() can say which clinics have late messages.
                            AND NOT (relname = 'outbox' AND polname = 'backlog' AND polcmd = 'r'
                                AND polroles = ARRAY['hc_owner'::regrole::oid])) = 1
                    AND EXISTS (
                        SELECT FROM pg_policy
                        WHERE polrelid = class.oid AND polcmd = '*' AND polpermissive
                            AND CASE WHEN relname IN ('hc_tenant', 'hc_barrier', 'hc_load', 'hc_backfill')
                            THEN polroles = ARRAY['hc_owner'::regrole::oid]
                            ELSE pg_get_expr(polqual, polrelid)
                                    = '(tenant_id = ( SELECT hc_ctx_tenant() AS hc_ctx_tenant))'
                                AND pg_get_expr(polwithcheck, polrelid)
                                    = '(tenant_id = ( SELECT hc_ctx_tenant() AS hc_ctx_tenant))'
                            END));
            """)
        #expect(offenders.isEmpty)
    }

    @Test("the only table without a tenant is the ledger")
    func otherTablesAreListed() throws {
        let others = try services.psql(
            shard.owner,
            """
            SELECT relname FROM pg_class
            WHERE relkind IN ('r', 'p', 'm', 'f', 'v') AND relnamespace = 'public'::regnamespace
                AND NOT EXISTS (
                    SELECT FROM pg_attribute
                    WHERE attrelid = pg_class.oid AND attname = 'tenant_id' AND NOT attisdropped)
            ORDER BY relname;
            """)
        #expect(others == "hc_schema\n")
    }

    @Test("foreign keys between tenant tables carry the tenant on both sides")
    func foreignKeysStayInTheTenant() throws {
        let offenders = try services.psql(
            shard.owner,
            """
            SELECT conname FROM pg_constraint
            WHERE contype = 'f' AND NOT EXISTS (
                SELECT FROM pg_attribute here, pg_attribute there
                WHERE here.attrelid = conrelid AND here.attnum = conkey[1] AND here.attname = 'tenant_id'
                    AND there.attrelid = confrelid AND there.attnum = confkey[1]
                    AND there.attname = 'tenant_id');
            """)
        #expect(offenders.isEmpty)
    }

    @Test("unique indexes of tenant tables begin with the tenant, and there are no sequences")
    func uniquenessIsPerTenant() throws {
        let offenders = try services.psql(
            shard.owner,
            """
            SELECT indexrelid::regclass::text
            FROM pg_index
            JOIN pg_class ON pg_class.oid = indrelid AND relnamespace = 'public'::regnamespace
            JOIN pg_attribute ON attrelid = indrelid AND attnum = indkey[0]
            WHERE (indisunique OR indisexclusion) AND attname <> 'tenant_id' AND relname <> 'hc_schema'
            UNION ALL
            SELECT relname FROM pg_class WHERE relkind = 'S' AND relnamespace = 'public'::regnamespace;
            """)
        #expect(offenders.isEmpty)
    }

    @Test("the application's role owns nothing, bypasses nothing and may truncate nothing")
    func applicationRoleIsWeak() throws {
        let powers = try services.psql(
            shard.owner,
            """
            SELECT 'attribute ' || rolname FROM pg_roles
            WHERE rolname = 'hc_app' AND (rolsuper OR rolbypassrls OR rolcreaterole OR rolcreatedb OR rolreplication)
            UNION ALL
            SELECT 'member of ' || roleid::regrole FROM pg_auth_members WHERE member = 'hc_app'::regrole
            UNION ALL
            SELECT 'owns ' || relname FROM pg_class WHERE relowner = 'hc_app'::regrole
            UNION ALL
            SELECT 'may ' || privilege || ' ' || relname
            FROM pg_class, unnest(ARRAY['TRUNCATE', 'REFERENCES', 'TRIGGER']) AS privilege
            WHERE relkind = 'r' AND relnamespace = 'public'::regnamespace
                AND has_table_privilege('hc_app', pg_class.oid, privilege)
            UNION ALL
            SELECT 'may ' || privilege || ' ' || relname
            FROM pg_class, unnest(ARRAY['SELECT', 'INSERT', 'UPDATE', 'DELETE']) AS privilege
            WHERE relname IN ('hc_tenant', 'hc_barrier', 'hc_load', 'hc_backfill') AND has_table_privilege('hc_app', pg_class.oid, privilege)
            UNION ALL
            SELECT 'may ' || privilege || ' audit_event'
            FROM unnest(ARRAY['UPDATE', 'DELETE']) AS privilege
            WHERE has_table_privilege('hc_app', 'audit_event', privilege)
            UNION ALL
            SELECT role || ' may create in schema ' || nspname
            FROM pg_namespace, unnest(ARRAY['hc_app', 'hc_mover']) AS role
            WHERE has_schema_privilege(role, pg_namespace.oid, 'CREATE')
            UNION ALL
            SELECT role || ' may ' || privilege || ' in the database'
            FROM unnest(ARRAY['hc_app', 'hc_mover']) AS role, unnest(ARRAY['TEMP', 'CREATE']) AS privilege
            WHERE has_database_privilege(role, current_database(), privilege);
            """)
        #expect(powers.isEmpty)
    }

    @Test(
        "of our functions the application may call the door, the context, the backlog and the load"
    )
    func functionsAreClosed() throws {
        let callable = try services.psql(
            shard.owner,
            """
            SELECT proname FROM pg_proc
            WHERE pronamespace = 'public'::regnamespace
                AND has_function_privilege('hc_app', pg_proc.oid, 'EXECUTE')
                AND NOT EXISTS (
                    SELECT FROM pg_depend
                    WHERE classid = 'pg_proc'::regclass AND objid = pg_proc.oid AND deptype = 'e')
            ORDER BY proname;
            """)
        #expect(callable == "hc_ctx_tenant\nhc_enter\nhc_load_add\nhc_outbox_backlog\n")
    }

    @Test("two databases with the same migrations have one fingerprint, and drift changes it")
    func fingerprints() throws {
        let other = try services.makeShardDatabase()
        let fingerprint = "SELECT hc_schema_fingerprint();"
        let here = try services.psql(shard.owner, fingerprint)
        #expect(try services.psql(other.owner, fingerprint) == here)
        for drift in [
            "ALTER TABLE patient ADD COLUMN note text;",
            "ALTER TABLE patient NO FORCE ROW LEVEL SECURITY;",
            "GRANT TRUNCATE ON patient TO hc_app;",
            "DROP POLICY tenant ON patient;",
            "ALTER TABLE audit_event DISABLE TRIGGER audit_event_rows;",
            "DROP INDEX appointment_time;",
        ] {
            let drifted = try services.psql(other.owner, "BEGIN; \(drift) \(fingerprint) ROLLBACK;")
            #expect(drifted != here, "\(drift)")
        }
    }

    // MARK: The door

    @Test("without hc_enter there are no rows and none can be written")
    func closedWithoutContext() throws {
        let app = try services.session(shard.app)
        try app.run(
            "BEGIN; \(enter(Self.sunrise)) INSERT INTO clinic (tenant_id, name) VALUES ('\(Self.sunrise)', 'Sunrise'); COMMIT;"
        )
        #expect(try app.run("SELECT name FROM clinic").lines == [])
        #expect(
            try app.run("INSERT INTO clinic (tenant_id, name) VALUES ('\(Self.lakeside)', 'x')")
                .state == "42501")
        #expect(try app.run("UPDATE clinic SET name = 'x' RETURNING 1").lines == [])
        #expect(try app.run("SELECT * FROM hc_tenant").state == "42501")
    }

    @Test(
        "the backlog says which clinics have late messages, the oldest first, and shows none of them"
    )
    func backlog() throws {
        let app = try services.session(shard.app)
        for (tenant, minutes) in [(Self.sunrise, 5), (Self.lakeside, 9)] {
            try app.run(
                """
                BEGIN; \(enter(tenant))
                INSERT INTO outbox (tenant_id, id, topic, created_at)
                VALUES ('\(tenant)', gen_random_uuid(), 'x', now() - interval '\(minutes) minutes'),
                    ('\(tenant)', gen_random_uuid(), 'x', now());
                COMMIT;
                """)
        }
        let late = "SELECT clinic, waiting FROM hc_outbox_backlog"
        #expect(
            try app.run("\(late)(interval '1 minute', 100)").lines
                == ["\(Self.lakeside)|1", "\(Self.sunrise)|1"])
        #expect(
            try app.run("\(late)(interval '1 minute', 1)").lines == ["\(Self.lakeside)|1"])
        #expect(try app.run("\(late)(interval '1 hour', 100)").lines == [])
        #expect(try app.run("SELECT id FROM outbox").lines == [])
        // Who is not served from here hides nobody.
        let mover = try services.session(shard.mover)
        try mover.run(
            "UPDATE hc_tenant SET state = 'suspended' WHERE tenant_id = '\(Self.lakeside)'")
        #expect(
            try app.run("\(late)(interval '1 minute', 1)").lines == ["\(Self.sunrise)|1"])
    }

    @Test("inside one clinic another's rows cannot be seen, written or referred to")
    func clinicsAreApart() throws {
        let app = try services.session(shard.app)
        for tenant in [Self.sunrise, Self.lakeside] {
            try app.run(
                """
                BEGIN; \(enter(tenant))
                INSERT INTO patient (tenant_id, id, sealed, key_version) VALUES ('\(tenant)', '\(tenant)', '', 1);
                COMMIT;
                """)
        }
        try app.run("BEGIN")
        #expect(try app.run(enter(Self.sunrise)).state == "00000")
        #expect(try app.run("SELECT id FROM patient").lines == [Self.sunrise])
        #expect(
            try app.run("SELECT id FROM patient WHERE tenant_id = '\(Self.lakeside)'").lines == [])
        #expect(
            try app.run("UPDATE patient SET version = 2 WHERE id = '\(Self.lakeside)' RETURNING 1")
                .lines == [])
        try app.run("SAVEPOINT here")
        #expect(
            try app.run(
                "INSERT INTO patient_token VALUES ('\(Self.lakeside)', 1, '\(Self.lakeside)')"
            ).state == "42501")
        try app.run("ROLLBACK TO here")
        #expect(
            try app.run(
                "INSERT INTO patient_token VALUES ('\(Self.sunrise)', 1, '\(Self.lakeside)')"
            ).state == "23503")
        try app.run("ROLLBACK TO here")
        #expect(try app.run("UPDATE patient SET tenant_id = '\(Self.lakeside)'").state == "42501")
        try app.run("ROLLBACK TO here")
        #expect(try app.run(enter(Self.lakeside)).state == "HC005")
        try app.run("ROLLBACK")
    }

    @Test("the context ends with the transaction, and one that was forged for the session is void")
    func contextEndsWithTransaction() throws {
        let app = try services.session(shard.app)
        try app.run(
            "BEGIN; \(enter(Self.sunrise)) INSERT INTO clinic (tenant_id, name) VALUES ('\(Self.sunrise)', 'Sunrise'); COMMIT;"
        )
        #expect(
            try app.run("SELECT count(*), current_setting('hc.ctx', true) = '' FROM clinic").lines
                == ["0|t"])
        // One message, one implicit transaction: the form that the workers use.
        #expect(
            try app.run(#"SELECT hc_enter('\#(Self.sunrise)', 1, 'r')\; SELECT name FROM clinic"#)
                .lines.last == "Sunrise")
        #expect(try app.run("SELECT name FROM clinic").lines == [])
        try app.run(
            "BEGIN; \(enter(Self.sunrise)) SELECT set_config('hc.ctx', current_setting('hc.ctx'), false); COMMIT;"
        )
        #expect(try app.run("SELECT current_setting('hc.ctx') <> ''").lines == ["t"])
        #expect(try app.run("SELECT name FROM clinic").lines == [])
        try app.run("BEGIN; SAVEPOINT here; \(enter(Self.sunrise)) ROLLBACK TO here")
        #expect(try app.run("SELECT name FROM clinic").lines == [])
        try app.run("ROLLBACK")
    }

    @Test("a reader cannot write")
    func readersCannotWrite() throws {
        let app = try services.session(shard.app)
        for isolation in ["READ COMMITTED", "REPEATABLE READ"] {
            try app.run("BEGIN ISOLATION LEVEL \(isolation); \(enter(Self.sunrise, "r"))")
            #expect(
                try app.run("INSERT INTO clinic (tenant_id, name) VALUES ('\(Self.sunrise)', 'x')")
                    .state == "25006")
            try app.run("ROLLBACK")
        }
        #expect(
            try app.run(
                "BEGIN; \(enter(Self.sunrise)) INSERT INTO clinic (tenant_id, name) VALUES ('\(Self.sunrise)', 'x'); ROLLBACK"
            )
            .state == "00000")
    }

    @Test(
        "each state answers each mode as specified",
        arguments: [
            ("rw", "00000", "00000", "00000"),
            ("ro", "00000", "00000", "HC004"),
            ("suspended", "HC003", "HC003", "HC003"),
            ("draining", "00000", "HC002", "HC002"),
            ("fenced", "00000", "HC002", "HC002"),
            ("handover", "HC002", "HC002", "HC002"),
            ("moved", "HC001", "HC001", "HC001"),
            ("absent", "HC001", "HC001", "HC001"),
            ("incoming", "HC001", "HC001", "HC001"),
        ])
    func statesAnswerModes(state: String, read: String, audited: String, write: String) throws {
        try services.psql(
            shard.superuser,
            """
            ALTER TABLE hc_tenant DISABLE TRIGGER hc_tenant_guard;
            UPDATE hc_tenant SET state = '\(state)', epoch = 7, moved_to = 's9';
            """)
        let app = try services.session(shard.app)
        for isolation in ["READ COMMITTED", "REPEATABLE READ", "SERIALIZABLE"] {
            for (mode, expected) in [("r", read), ("a", audited), ("w", write)] {
                try app.run("BEGIN ISOLATION LEVEL \(isolation)")
                #expect(
                    try app.run(enter(Self.sunrise, mode, epoch: 7)).state == expected,
                    "\(mode) \(isolation)")
                try app.run("ROLLBACK; BEGIN ISOLATION LEVEL \(isolation)")
                #expect(
                    try app.run(enter(Self.sunrise, mode, epoch: 6)).state == "HC001", "an old map")
                try app.run("ROLLBACK; BEGIN ISOLATION LEVEL \(isolation)")
                #expect(
                    try app.run(enter(Self.sunrise, mode, epoch: 8)).state == "HC002",
                    "a map that is ahead")
                try app.run("ROLLBACK")
            }
        }
    }

    @Test("a refusal says state, epoch and destination as JSON")
    func refusalsExplainThemselves() throws {
        try services.psql(
            shard.superuser,
            """
            ALTER TABLE hc_tenant DISABLE TRIGGER hc_tenant_guard;
            UPDATE hc_tenant SET state = 'moved', epoch = 7, moved_to = 's"9';
            """)
        let app = try services.session(shard.app)
        try app.run("\\set VERBOSITY default")
        let moved = try app.run(enter(Self.sunrise))
        #expect(
            moved.lines.contains(#"DETAIL:  {"state" : "moved", "epoch" : 7, "movedTo" : "s\"9"}"#))
        let unknown = try app.run(enter("018f0000-0000-7000-8000-0000000000ff"))
        #expect(
            unknown.lines.contains(
                #"DETAIL:  {"state" : "absent", "epoch" : null, "movedTo" : null}"#))
        #expect(unknown.state == "HC001")
        #expect(try app.run("SELECT hc_enter(NULL, 1, 'w')").state == "HC001")
        #expect(try app.run("SELECT hc_enter('\(Self.sunrise)', NULL, 'w')").state == "HC001")
        #expect(try app.run("SELECT hc_enter('\(Self.sunrise)', 1, NULL)").state == "22023")
        #expect(try app.run("SELECT hc_enter('\(Self.sunrise)', 1, 'x')").state == "22023")
    }

    @Test("row-level security leaves the searches their indexes")
    func plansUseIndexes() throws {
        try services.psql(
            shard.superuser,
            """
            SET session_replication_role = replica;
            INSERT INTO patient (tenant_id, id, sealed, key_version)
            SELECT '\(Self.sunrise)', md5(number::text)::uuid, '\\x00', 1 FROM generate_series(1, 20000) AS number;
            INSERT INTO patient_token
            SELECT '\(Self.sunrise)', number % 500, md5(number::text)::uuid FROM generate_series(1, 20000) AS number;
            ANALYZE;
            """)
        let app = try services.session(shard.app)
        for generic in ["force_generic_plan", "force_custom_plan"] {
            try app.run(
                """
                SET plan_cache_mode = \(generic);
                PREPARE search (uuid, bigint) AS SELECT patient_id FROM patient_token
                    WHERE tenant_id = $1 AND token = $2 ORDER BY patient_id LIMIT 20;
                PREPARE one (uuid, uuid) AS SELECT sealed FROM patient WHERE tenant_id = $1 AND id = $2;
                BEGIN; \(enter(Self.sunrise, "r"))
                """)
            let search = try app.run("EXPLAIN (COSTS OFF) EXECUTE search ('\(Self.sunrise)', 7)")
                .text
            #expect(search.contains("Index Only Scan using patient_token_pkey"))
            #expect(search.contains("(token = "))
            #expect(!search.contains("Sort"))
            let one = try app.run(
                "EXPLAIN (COSTS OFF) EXECUTE one ('\(Self.sunrise)', '\(Self.sunrise)')"
            ).text
            #expect(one.contains("Index Scan using patient_pkey"))
            #expect(one.contains("(id = "))
            try app.run("ROLLBACK; DEALLOCATE ALL")
        }
    }

    // MARK: Bookings

    @Test("of many concurrent bookings of one slot exactly one is made")
    func oneWinnerPerSlot() throws {
        let ids = "SELECT '\(Self.sunrise)'::uuid, '\(Self.sunrise)'::uuid"
        try services.psql(
            shard.app,
            """
            BEGIN; \(enter(Self.sunrise))
            INSERT INTO patient (tenant_id, id, sealed, key_version) \(ids), '', 1;
            INSERT INTO practitioner (tenant_id, id, name) \(ids), 'Dr Example';
            COMMIT;
            """)
        let rivals = try (0..<16).map { _ in try services.session(shard.app) }
        for (number, rival) in rivals.enumerated() {
            // Each overlaps the others by a part of the slot only.
            try rival.send(
                """
                BEGIN; \(enter(Self.sunrise))
                WITH slot AS (
                    SELECT timestamptz '2030-01-01 10:00Z' + \(number) * interval '1 minute' AS start
                ), made AS (
                    INSERT INTO appointment (tenant_id, id, patient_id, practitioner_id, starts_at, ends_at, zone)
                    SELECT '\(Self.sunrise)', gen_random_uuid(), '\(Self.sunrise)', '\(Self.sunrise)',
                        start, start + interval '30 minutes', 'UTC'
                    FROM slot RETURNING id, starts_at, ends_at
                )
                INSERT INTO booking (tenant_id, id, appointment_id, resource_id, busy)
                SELECT '\(Self.sunrise)', gen_random_uuid(), id, '\(Self.sunrise)', tstzrange(starts_at, ends_at)
                FROM made
                """)
        }
        for rival in rivals { try rival.send("COMMIT") }
        let states = try rivals.map { rival in
            defer { _ = try? rival.receive() }
            return try rival.receive().state
        }
        #expect(states.filter { $0 == "00000" }.count == 1)
        #expect(states.allSatisfy { ["00000", "23P01", "40P01"].contains($0) })
        let bookings = try services.psql(
            shard.app, "BEGIN; \(enter(Self.sunrise, "r")) SELECT count(*) FROM booking; COMMIT;")
        #expect(bookings.contains("1\n"))
    }

    // MARK: The fence

    @Test("an exclusive fence keeps writers out at once and lets readers in")
    func fenceRefusesNewcomers() throws {
        let mover = try services.session(shard.mover)
        let app = try services.session(shard.app)
        try mover.run("BEGIN; SELECT pg_advisory_xact_lock(hc_fence_key('\(Self.sunrise)'))")
        #expect(try app.run(enter(Self.sunrise)).state == "HC002")
        #expect(try app.run(enter(Self.sunrise, "a")).state == "HC002")
        #expect(try app.run(enter(Self.sunrise, "r")).state == "00000")
        #expect(try app.run(enter(Self.lakeside)).state == "00000", "a neighbour is not concerned")
        try mover.run("COMMIT")
        #expect(try app.run(enter(Self.sunrise)).state == "00000")
    }

    @Test("a fence that waits for a writer is not starved by those who come later")
    func waitingFenceIsNotStarved() throws {
        let mover = try services.session(shard.mover)
        let writer = try services.session(shard.app)
        let newcomer = try services.session(shard.app)
        try writer.run("BEGIN; \(enter(Self.sunrise))")
        #expect(try mover.run("SELECT count(*) FROM hc_inside('\(Self.sunrise)')").lines == ["1"])
        let identifier = try mover.run("SELECT pg_backend_pid()").text
        try mover.send("BEGIN; SELECT pg_advisory_xact_lock(hc_fence_key('\(Self.sunrise)'))")
        let watcher = try services.session(shard.superuser)
        while try watcher.run("SELECT 1 FROM pg_locks WHERE pid = \(identifier) AND NOT granted")
            .lines.isEmpty
        {}
        #expect(try newcomer.run(enter(Self.sunrise)).state == "HC002")
        try writer.run("COMMIT")
        #expect(try mover.receive().state == "00000")
        try mover.run("COMMIT")
        #expect(try mover.run("SELECT count(*) FROM hc_inside('\(Self.sunrise)')").lines == ["0"])
    }

    @Test(
        "a transaction with an older snapshot cannot write after the fence",
        arguments: ["REPEATABLE READ", "SERIALIZABLE"])
    func oldSnapshotsCannotWrite(isolation: String) throws {
        let mover = try services.session(shard.mover)
        let app = try services.session(shard.app)
        for close in [["draining", "fenced"], ["suspended"], ["ro"]] {
            try app.run("BEGIN ISOLATION LEVEL \(isolation); SELECT 1 FROM clinic")
            for state in close {
                let change = "UPDATE hc_tenant SET state = '\(state)'"
                #expect(
                    try mover.run("\(change) WHERE tenant_id = '\(Self.sunrise)'").state == "00000")
            }
            #expect(try app.run(enter(Self.sunrise)).state == "40001", "\(close)")
            try app.run("ROLLBACK")
            try mover.run("UPDATE hc_tenant SET state = 'rw' WHERE tenant_id = '\(Self.sunrise)'")
        }
    }

    @Test(
        "a fence waits for a writer that entered in any isolation level",
        arguments: ["READ COMMITTED", "REPEATABLE READ", "SERIALIZABLE"])
    func fenceWaitsForWriters(isolation: String) throws {
        let mover = try services.session(shard.mover)
        let app = try services.session(shard.app)
        let fence = """
            BEGIN;
            SELECT 1 FROM hc_tenant WHERE tenant_id = '\(Self.sunrise)'
                AND pg_try_advisory_xact_lock(hc_fence_key('\(Self.sunrise)'))
            FOR UPDATE NOWAIT
            """
        try app.run("BEGIN ISOLATION LEVEL \(isolation); \(enter(Self.sunrise))")
        try mover.run("UPDATE hc_tenant SET state = 'draining' WHERE tenant_id = '\(Self.sunrise)'")
        let early = try mover.run(fence)
        #expect(early.lines != ["1"])
        try mover.run("ROLLBACK")
        try app.run("COMMIT")
        #expect(try mover.run(fence).lines == ["1"])
        try mover.run(
            "UPDATE hc_tenant SET state = 'fenced' WHERE tenant_id = '\(Self.sunrise)'; COMMIT")
        #expect(try app.run(enter(Self.sunrise)).state == "HC002")
    }

    // MARK: hc_tenant, audit, purge

    @Test("epoch and attempt never fall and states follow their order")
    func tenantRowIsGuarded() throws {
        let mover = try services.session(shard.mover)
        let row = "UPDATE hc_tenant SET"
        let here = "WHERE tenant_id = '\(Self.sunrise)'"
        #expect(try mover.run("\(row) epoch = 5, attempt = 3 \(here)").state == "00000")
        #expect(try mover.run("\(row) epoch = 4 \(here)").state == "23000")
        #expect(try mover.run("\(row) attempt = 2 \(here)").state == "23000")
        #expect(try mover.run("\(row) state = 'moved' \(here)").state == "23000")
        #expect(try mover.run("DELETE FROM hc_tenant \(here)").state == "23000")
        for state in [
            "draining", "fenced", "handover", "moved", "incoming", "rw", "suspended", "absent",
        ] {
            #expect(try mover.run("\(row) state = '\(state)' \(here)").state == "00000", "\(state)")
        }
        #expect(try mover.run("DELETE FROM hc_tenant \(here)").state == "00000")
    }

    @Test(
        "audit events can only be added, whoever asks; the mover purges those of a clinic that left"
    )
    func auditOnlyGrows() throws {
        let add =
            "INSERT INTO audit_event VALUES ('\(Self.sunrise)', gen_random_uuid(), now(), NULL, 'system', 'read', 'patient', NULL, 'success', 'test')"
        let app = try services.session(shard.app)
        #expect(try app.run("BEGIN; \(enter(Self.sunrise, "a")) \(add); COMMIT").state == "00000")
        #expect(try app.run("DELETE FROM audit_event").state == "42501")
        #expect(try app.run("TRUNCATE audit_event").state == "42501")
        for role in [shard.owner, shard.superuser, shard.mover] {
            let other = try services.session(role)
            try other.run("BEGIN; \(enter(Self.sunrise))")
            for change in [
                "DELETE FROM audit_event", "UPDATE audit_event SET outcome = 'denied'",
                "TRUNCATE audit_event",
            ] {
                try other.run("SAVEPOINT here")
                #expect(try other.run(change).state == "42501", "\(change)")
                try other.run("ROLLBACK TO here")
            }
            try other.run("ROLLBACK")
        }
        let replica = try services.session(shard.superuser)
        try replica.run("SET session_replication_role = replica")
        #expect(try replica.run("DELETE FROM audit_event").state == "42501")
        let mover = try services.session(shard.mover)
        #expect(try mover.run("SELECT hc_purge('\(Self.sunrise)', 100)").state == "55000")
        try mover.run(
            "UPDATE hc_tenant SET state = 'suspended'; UPDATE hc_tenant SET state = 'absent' WHERE tenant_id = '\(Self.sunrise)'"
        )
        #expect(try mover.run("SELECT hc_purge('\(Self.sunrise)', 100)").lines == ["1"])
        #expect(try mover.run("SELECT hc_purge('\(Self.sunrise)', 100)").lines == ["0"])
    }

    @Test("a purge takes every row of the clinic, in batches, and none of its neighbour")
    func purgeIsComplete() throws {
        for tenant in [Self.sunrise, Self.lakeside] {
            let ids = "'\(tenant)', '\(tenant)'"
            let zeros = "decode(repeat('00', 32), 'hex')"
            try services.psql(
                shard.app,
                """
                BEGIN; \(enter(tenant))
                INSERT INTO clinic (tenant_id, name) VALUES ('\(tenant)', 'x');
                INSERT INTO patient (tenant_id, id, sealed, key_version) VALUES (\(ids), '', 1);
                INSERT INTO patient_token VALUES ('\(tenant)', 1, '\(tenant)'), ('\(tenant)', 2, '\(tenant)');
                INSERT INTO account (tenant_id, id, email_token, sealed, key_version, password_hash, roles, patient_id)
                VALUES (\(ids), 1, '', 1, '', '{patient}', '\(tenant)');
                INSERT INTO session (tenant_id, id, account_id, family, refresh_hash, expires_at)
                VALUES (\(ids), '\(tenant)', '\(tenant)', \(zeros), now());
                INSERT INTO practitioner (tenant_id, id, name, account_id) VALUES (\(ids), 'x', '\(tenant)');
                INSERT INTO appointment (tenant_id, id, patient_id, practitioner_id, starts_at, ends_at, zone)
                VALUES (\(ids), '\(tenant)', '\(tenant)', now(), now() + interval '1 hour', 'UTC');
                INSERT INTO booking (tenant_id, id, appointment_id, resource_id, busy)
                VALUES (\(ids), '\(tenant)', '\(tenant)', tstzrange(now(), now() + interval '1 hour'));
                INSERT INTO idempotency (tenant_id, account_id, route, key_hash, fingerprint, expires_at)
                VALUES (\(ids), 'POST /v1/x', \(zeros), \(zeros), now());
                INSERT INTO service (tenant_id, id, name, duration_minutes) VALUES (\(ids), 'x', 30);
                INSERT INTO service_practitioner VALUES (\(ids), '\(tenant)');
                INSERT INTO cache_tag VALUES ('\(tenant)', 'x', 1);
                INSERT INTO read_model (tenant_id, name, epoch, tags, counts, body, good_until)
                VALUES ('\(tenant)', 'x', 1, 'x', '1', '', now());
                INSERT INTO outbox (tenant_id, id, topic) VALUES (\(ids), 'x');
                INSERT INTO audit_event VALUES (\(ids), now(), NULL, 'system', 'create', 'x', NULL, 'success', 'x');
                COMMIT;
                """)
        }
        let tables = try services.psql(shard.mover, "SELECT hc_tenant_tables();")
            .split(separator: "\n").map(String.init)
        let counts = tables.map { "SELECT count(*) FROM \($0) WHERE tenant_id =" }
        let mover = try services.session(shard.mover)
        for count in counts {
            #expect(
                try mover.run("\(count) '\(Self.sunrise)'").lines != ["0"],
                "the test fills every table: \(count)")
        }
        try mover.run(
            "UPDATE hc_tenant SET state = 'suspended'; UPDATE hc_tenant SET state = 'absent' WHERE tenant_id = '\(Self.sunrise)'"
        )
        var batches: [String] = []
        repeat {
            batches.append(try mover.run("SELECT hc_purge('\(Self.sunrise)', 5)").text)
        } while batches.last != "0" && batches.count < 20
        #expect(batches == ["5", "5", "5", "1", "0"])
        for count in counts {
            #expect(try mover.run("\(count) '\(Self.sunrise)'").lines == ["0"])
            #expect(try mover.run("\(count) '\(Self.lakeside)'").lines != ["0"])
        }
        try mover.run(
            "UPDATE hc_tenant SET state = 'suspended'; UPDATE hc_tenant SET state = 'absent' WHERE tenant_id = '\(Self.lakeside)'"
        )
        // Each goes on where the one before ended; and from the start where that table is gone.
        var (places, removed): ([String], Int) = (["{no_such_table,1}"], 0)
        repeat {
            let row = try mover.run(
                """
                SELECT removed || ' ' || coalesce(next::text, '')
                FROM hc_purge_from('\(Self.lakeside)', 5, '\(places.last ?? "")')
                """
            ).text.split(separator: " ").map(String.init)
            removed += Int(row[0]) ?? 0
            places.append(row.count > 1 ? row[1] : "")
        } while places.last != "" && places.count < 20
        #expect(removed == 16 && places.count == 5, "\(removed) \(places)")
        for count in counts {
            #expect(try mover.run("\(count) '\(Self.lakeside)'").lines == ["0"])
        }
    }
}
