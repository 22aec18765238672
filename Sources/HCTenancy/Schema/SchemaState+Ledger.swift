package import HCCore
package import HCIO
package import HCPostgres

extension SchemaState {
    /// Asks the ledger of a database. Costs it next to nothing.
    ///
    /// As JSON: a ledger from before the column `serves_from` has none, and all of its migrations only added.
    package static let question = Query(
        """
        SELECT coalesce(max(version), 0), coalesce(max((to_jsonb(line) ->> 'serves_from')::int4), 1)
        FROM public.hc_schema AS line
        """)

    package init(_ result: PostgresResult) throws(PostgresError) {
        let row = try result.single()
        self.init(version: try row.int(0), servesFrom: try row.int(1))
    }

    @LoopActor
    package init(
        of connection: PostgresConnection, deadline: Deadline
    ) async throws(PostgresError) {
        self = try SchemaState(
            try await connection.execute(SchemaState.question, deadline: deadline))
    }
}
