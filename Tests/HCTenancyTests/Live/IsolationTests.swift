import HCCore
import HCIO
import HCPostgres
import HCTesting
import Testing

@testable import HCTenancy

/// Walls between clinics that share a shard, met through the one door.
@Suite("Clinics are kept apart", .onLoop)
@LoopActor
struct IsolationTests {
    @Test("a statement without a tenant predicate sees and changes its own clinic only")
    func wrongStatements() async throws {
        let platform = try await LivePlatform.make()
        let (sunrise, hillview) = (LivePlatform.sunrise, LivePlatform.hillview)
        for (tenant, name) in [(sunrise, "Dr Sun"), (hillview, "Dr Hill")] {
            try await platform.context(tenant).write(
                [LivePlatform.addPractitioner(name, to: tenant)],
                audit: [LivePlatform.event("create")], deadline: platform.deadline)
        }
        #expect(try await platform.names(sunrise) == ["Dr Sun"])
        #expect(try await platform.names(hillview) == ["Dr Hill"])

        let results = try await platform.context(sunrise).write(
            [Query("UPDATE practitioner SET active = false")], audit: [],
            deadline: platform.deadline)
        #expect(results[0].affectedRows == 1)
        let others = try await platform.context(hillview).read(
            [Query("SELECT count(*) FROM practitioner WHERE active")], deadline: platform.deadline)
        #expect(try others[0].single().int(0) == 1)
    }

    @Test("a row cannot be written into another clinic")
    func foreignRows() async throws {
        let platform = try await LivePlatform.make()
        let error = await #expect(throws: PostgresError.self) {
            try await platform.context(LivePlatform.sunrise).write(
                [LivePlatform.addPractitioner("Mole", to: LivePlatform.hillview)],
                audit: [LivePlatform.event("create")], deadline: platform.deadline)
        }
        #expect(error?.sqlstate == .insufficientPrivilege)
        #expect(error?.queryIndex == 0, "counted in the caller's statements")
        #expect(try await platform.names(LivePlatform.hillview).isEmpty)
    }

    @Test("a transaction cannot enter a second clinic")
    func oneClinicPerTransaction() async throws {
        let platform = try await LivePlatform.make()
        let error = await #expect(throws: PostgresError.self) {
            try await platform.context(LivePlatform.sunrise).read(
                [
                    Query("SELECT hc_enter($1, 1, 'r')", [.id(LivePlatform.hillview)]),
                    LivePlatform.allPractitioners,
                ], deadline: platform.deadline)
        }
        #expect(error?.sqlstate?.code == "HC005")
    }

    @Test("nothing is left on a connection for whoever uses it next")
    func noResidue() async throws {
        let platform = try await LivePlatform.make { $0.pools.shardConnectionsMax = 1 }
        try await platform.context(LivePlatform.sunrise).write(
            [LivePlatform.addPractitioner("Dr Sun", to: LivePlatform.sunrise)], audit: [],
            deadline: platform.deadline)
        for _ in 0..<20 {
            #expect(try await platform.names(LivePlatform.sunrise) == ["Dr Sun"])
            #expect(try await platform.names(LivePlatform.hillview) == [])
        }
        // Outside of any clinic, on the same connection.
        let bare = try await platform.shards.withConnection(
            to: ShardID("s1"), deadline: platform.deadline
        ) { connection in
            try await connection.execute(
                [LivePlatform.allPractitioners], deadline: platform.deadline)[0].count
        }
        #expect(bare == 0)
    }

    @Test("a read cannot write")
    func readsAreReadOnly() async throws {
        let platform = try await LivePlatform.make()
        let error = await #expect(throws: PostgresError.self) {
            try await platform.context(LivePlatform.sunrise).read(
                [LivePlatform.addPractitioner("Dr Sun", to: LivePlatform.sunrise)],
                deadline: platform.deadline)
        }
        #expect(error?.sqlstate == .readOnlyTransaction)
    }

    @Test("hosts lead to their clinics, unknown ones nowhere, and suspended clinics are closed")
    func hosts() async throws {
        let platform = try await LivePlatform.make()
        #expect(try platform.door.context(host: "sunrise.localhost").id == LivePlatform.sunrise)
        #expect(throws: TenancyError.tenantUnknown) {
            try platform.door.context(host: "nobody.localhost")
        }
        try await platform.psql(
            platform.control.admin, "UPDATE tenant SET state = 'suspended' WHERE slug = 'sunrise'")
        try await platform.directory.refresh(deadline: platform.deadline)
        #expect(throws: TenancyError.suspended) {
            try platform.door.context(host: "sunrise.localhost")
        }
        try await platform.psql(
            platform.control.admin,
            """
            UPDATE tenant SET state = 'deleting' WHERE slug = 'sunrise';
            UPDATE domain SET verified_at = NULL WHERE host = 'hillview.localhost';
            """)
        try await platform.directory.refresh(deadline: platform.deadline)
        #expect(throws: TenancyError.tenantUnknown) {
            try platform.door.context(host: "sunrise.localhost")
        }
        #expect(throws: TenancyError.tenantUnknown) {
            try platform.door.context(host: "hillview.localhost")
        }
        #expect(throws: TenancyError.tenantUnknown) {
            try platform.context(LivePlatform.sunrise)
        }
        // The control plane still reaches it.
        #expect(
            try platform.door.context(tenant: LivePlatform.sunrise, for: .control).id
                == LivePlatform.sunrise)
    }

    @Test("sealed bytes that were copied to another row, column or clinic do not open")
    func copiedCiphertext() async throws {
        let platform = try await LivePlatform.make()
        let context = try platform.context(LivePlatform.sunrise)
        let (one, two) = (UUID.v7(at: Clocks.system.now()), UUID.v7(at: Clocks.system.now()))
        for (id, name) in [(one, "Mary"), (two, "John")] {
            let sealed = try context.keys.seal(
                Array(name.utf8), table: "patient", column: "sealed", row: id)
            try await context.write(
                [
                    Query(
                        """
                        INSERT INTO patient (tenant_id, id, sealed, key_version)
                        VALUES ($1, $2, $3, $4)
                        """,
                        [
                            .id(context.id), .uuid(id), .bytes(sealed.bytes),
                            .int4(sealed.keyVersion),
                        ])
                ], audit: [LivePlatform.event("create")], deadline: platform.deadline)
        }
        func name(_ id: UUID) async throws -> String {
            let results = try await context.readAudited(
                [
                    Query(
                        "SELECT sealed FROM patient WHERE tenant_id = $1 AND id = $2",
                        [.id(context.id), .uuid(id)])
                ], audit: LivePlatform.event(), deadline: platform.deadline)
            let keys = try context.keys
            return String(
                decoding: try keys.open(
                    try results[0].single().bytes(0), table: "patient", column: "sealed", row: id),
                as: UTF8.self)
        }
        #expect(try await name(one) == "Mary")
        // Whoever can write to the database swaps the two.
        try await platform.psql(
            platform.first.mover,
            """
            UPDATE patient SET sealed = (SELECT sealed FROM patient WHERE id = '\(two)')
            WHERE id = '\(one)'
            """)
        await #expect(throws: TenancyError.sealBroken) { try await name(one) }
        #expect(try await name(two) == "John")
    }
}
