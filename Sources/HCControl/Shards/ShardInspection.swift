package import HCIO
import HCPostgres
package import HCTenancy

/// Who a shard's database is, and whether its roles and tables keep clinics apart.
@LoopActor
package struct ShardInspection {
    /// Who the database is, and what it is called.
    package struct Identity: Sendable, Equatable {
        package var identity: ShardIdentity
        package var database: String
    }

    let plane: ControlPlane

    package init(plane: ControlPlane) {
        self.plane = plane
    }

    /// - Throws: `ControlError` (`shard-standby`) for a server in recovery: it is no shard.
    package func identity(reference: String) async throws -> Identity {
        try await plane.attempt("shard \(reference) does not say who it is") {
            let connection = try await plane.shard(reference: reference, .owner)
            guard let identity = try await ShardIdentity(of: connection, deadline: plane.deadline)
            else {
                throw ControlError(
                    .refused, code: "shard-standby",
                    "the files of '\(reference)' lead to a standby",
                    remedy: "Name the primary in them.")
            }
            let database = try await connection.execute(
                [Query("SELECT current_database()::text")], deadline: plane.deadline)[0][0].text(0)
            return Identity(identity: identity, database: database)
        }
    }

    /// What is wrong with the walls between clinics on this database; empty when nothing is.
    package func problems(reference: String) async throws -> [String] {
        try await plane.attempt("the roles of shard \(reference) cannot be checked") {
            let results = try await plane.shard(reference: reference, .owner).execute(
                [
                    Query(
                        """
                        SELECT rolname::text FROM pg_roles
                        WHERE rolname IN ('hc_app', 'hc_owner') AND (rolsuper OR rolbypassrls)
                        """),
                    Query(
                        """
                        SELECT relname::text FROM pg_class
                        WHERE relnamespace = 'public'::regnamespace AND relkind IN ('r', 'p')
                            AND relowner = 'hc_app'::regrole
                        """),
                    Query(
                        """
                        SELECT relname::text FROM pg_class
                        WHERE relnamespace = 'public'::regnamespace AND relkind IN ('r', 'p')
                            AND EXISTS (
                                SELECT FROM pg_attribute
                                WHERE attrelid = pg_class.oid AND attname = 'tenant_id' AND NOT attisdropped)
                            AND NOT (relrowsecurity AND relforcerowsecurity)
                        """),
                    Query(
                        """
                        SELECT relname::text FROM pg_class
                        WHERE relnamespace = 'public'::regnamespace AND relkind IN ('r', 'p')
                            AND has_table_privilege('hc_app', oid, 'TRUNCATE')
                        """),
                    Query("SELECT pg_has_role('hc_app', 'hc_owner', 'MEMBER')"),
                ], deadline: plane.deadline)
            var problems: [String] = []
            for row in results[0].rows {
                problems.append("role \(try row.text(0)) bypasses row-level security")
            }
            for row in results[1].rows { problems.append("hc_app owns table \(try row.text(0))") }
            for row in results[2].rows {
                problems.append("table \(try row.text(0)) does not force row-level security")
            }
            for row in results[3].rows {
                problems.append("hc_app may truncate table \(try row.text(0))")
            }
            if try results[4][0].bool(0) { problems.append("hc_app is a member of hc_owner") }
            return problems
        }
    }

    /// - Throws: `ControlError` (`shard-unsound`) listing every problem.
    func requireSound(reference: String) async throws {
        let problems = try await problems(reference: reference)
        guard problems.isEmpty else {
            throw ControlError(
                .refused, code: "shard-unsound",
                "shard \(reference) does not keep clinics apart: "
                    + problems.joined(separator: "; "),
                remedy: "Run migrations/roles.sql as a superuser on its server, then try again.")
        }
    }
}
