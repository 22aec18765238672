import HCIO
import HCTenancy
import HCTesting

@testable import HCControl

extension MoveGround {
    /// More clinics on `s1`, called `small-1`, `small-2`, …, with so many practitioners each.
    func addClinics(_ count: Int, practitioners: Int = 20) async throws {
        let ids = "('018f0000-0000-7000-9000-' || lpad(n::text, 12, '0'))::uuid"
        try await psql(
            control.admin,
            """
            INSERT INTO tenant (id, slug, name, tier, state)
                SELECT \(ids), 'small-' || n, 'Small', 'basic', 'active' FROM generate_series(1, \(count)) n;
            INSERT INTO placement (tenant_id, shard_id, state)
                SELECT \(ids), 's1', 'serving' FROM generate_series(1, \(count)) n;
            """)
        try await psql(
            shards[0].superuser,
            """
            INSERT INTO hc_tenant SELECT \(ids), 1, 'rw' FROM generate_series(1, \(count)) n;
            INSERT INTO clinic (tenant_id, name) SELECT \(ids), 'Small' FROM generate_series(1, \(count)) n;
            INSERT INTO practitioner (tenant_id, id, name)
                SELECT \(ids), gen_random_uuid(), 'P' || m
                FROM generate_series(1, \(count)) n, generate_series(1, \(practitioners)) m;
            """)
    }

    /// The registry knows the schemas, as after `migrate up`.
    func recordSchemas() async throws {
        let fact = try await psql(
            shards[0].superuser,
            "SELECT max(version) || ', ''' || hc_schema_fingerprint() || '''' FROM hc_schema")
        try await psql(
            control.admin, "UPDATE shard SET (schema_version, schema_fingerprint) = (\(fact))")
    }

    /// The server of `s2` lets in as if it had never heard that `sunrise` came there.
    ///
    /// - Parameter door: state and epoch that it has instead.
    func forgetArrival(door: (state: String, epoch: Int) = ("incoming", 1)) async throws {
        try await psql(
            control.admin,
            """
            UPDATE move SET target_identity = target_identity || '{"systemIdentifier": "1"}'
            WHERE target_shard = 's2'
            """)
        try await psql(
            shards[1].superuser,
            """
            SET session_replication_role = replica;
            UPDATE hc_tenant SET state = '\(door.state)', epoch = \(door.epoch)
            WHERE tenant_id = '\(Self.sunrise)'
            """)
    }

    /// How a shard (1 or 2) lets `sunrise` in: state and epoch.
    func door(_ number: Int) async throws -> String {
        try await psql(
            shards[number - 1].superuser,
            "SELECT state, epoch FROM hc_tenant WHERE tenant_id = '\(Self.sunrise)'")
    }

    /// Where clinics are, `slug shard epoch state` by line.
    func places() async throws -> [String] {
        try await psql(
            control.admin,
            """
            SELECT slug || ' ' || shard_id || ' ' || epoch || ' ' || placement.state
            FROM placement JOIN tenant ON tenant.id = tenant_id ORDER BY slug
            """
        ).split(separator: "\n").map(String.init)
    }

    /// Slots, subscriptions, publications and barriers on both shards, and cleanup records.
    func leftovers() async throws -> [String] {
        var found: [String] = []
        for (number, shard) in shards.enumerated() {
            let lines = try await psql(
                shard.superuser,
                """
                SELECT 'slot ' || slot_name FROM pg_replication_slots WHERE database = current_database()
                UNION ALL SELECT 'subscription ' || subname FROM pg_subscription
                    WHERE subdbid = (SELECT oid FROM pg_database WHERE datname = current_database())
                UNION ALL SELECT 'publication ' || pubname FROM pg_publication
                UNION ALL SELECT 'barrier ' || move_id FROM hc_barrier
                """)
            found += lines.split(separator: "\n").map { "s\(number + 1) \($0)" }
        }
        let records = try await psql(
            control.admin, "SELECT name FROM move_object WHERE dropped_at IS NULL")
        return found + records.split(separator: "\n").map { "record \($0)" }
    }
}

/// The control plane's refusal of what `body` does; nil if it does it.
@LoopActor
func controlFailure(_ body: @LoopActor () async throws -> Void) async -> ControlError? {
    do {
        try await body()
        return nil
    } catch {
        return error as? ControlError
    }
}
