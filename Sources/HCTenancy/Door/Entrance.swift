import HCCore
import HCIO
import HCPostgres

/// What a transaction wants to do in a clinic: the third argument of `hc_enter()`.
enum EnterMode: String {
    case read = "r"
    case audit = "a"
    case write = "w"
}

/// How a transaction enters a clinic: where the clinic is, and how long its tier lets things take.
///
/// The tier's limits go along with `hc_enter()`, in the same statement, and only where they are not what the connection
/// has anyway: they cost no round trip, they end with the transaction, and nothing of one clinic is left for the next.
struct Entrance {
    let record: TenantRecord
    let tier: TierDefinition
    /// Which schemas this program knows.
    let schemas: SchemaRange

    init(_ record: TenantRecord, _ tier: TierDefinition, _ schemas: SchemaRange) {
        self.record = record
        self.tier = tier
        self.schemas = schemas
    }

    /// The first statement of the transaction. A refusal comes before any other effect of it.
    @LoopActor
    func query(_ mode: EnterMode, on connection: PostgresConnection) -> Query {
        let limits = tier.timeouts
        let binds: [PostgresValue] = [
            .id(record.id), .int8(record.epoch), .text(mode.rawValue),
        ]
        if limits.statement == connection.statementTimeout, limits.lock == connection.lockTimeout,
            limits.transaction == connection.idleInTransactionTimeout
        {
            return Query("SELECT hc_enter($1, $2, $3)", binds)
        }
        let settings: [PostgresValue] = [
            .text(limits.statement.asSetting), .text(limits.lock.asSetting),
            .text(limits.transaction.asSetting),
        ]
        guard connection.isPooled else {
            return Query(
                """
                SELECT hc_enter($1, $2, $3), set_config('statement_timeout', $4, true),
                    set_config('lock_timeout', $5, true),
                    set_config('idle_in_transaction_session_timeout', $6, true)
                """, binds + settings)
        }
        // Behind a pooler the server can be another one from one transaction to the next: it was identified when the
        // connection was opened, and one that was started at another time is not let in (an unknown epoch: HC001). Nor can
        // a contract end what is between this process and the pooler: each transaction looks at the ledger.
        return Query(
            """
            SELECT hc_enter($1, CASE WHEN pg_postmaster_start_time() = $7 AND $8 >= (
                    SELECT coalesce(max((to_jsonb(line) ->> 'serves_from')::int4), 1)
                    FROM public.hc_schema AS line
                ) THEN $2 END, $3),
                set_config('statement_timeout', $4, true), set_config('lock_timeout', $5, true),
                set_config('idle_in_transaction_session_timeout', $6, true),
                set_config('TimeZone', 'UTC', true), set_config('DateStyle', 'ISO', true),
                set_config('search_path', 'public', true)
            """,
            binds + settings + [
                connection.serverStart.map { .timestamp($0) } ?? .null,
                .int4(Int32(schemas.highest)),
            ])
    }

    /// When a transaction that begins now has to be over.
    @LoopActor
    func limit(_ deadline: Deadline) -> Deadline {
        .after(tier.timeouts.transaction, from: Loop.now).earlier(of: deadline)
    }
}

extension Duration {
    /// In milliseconds, as PostgreSQL reads it without a unit; 0 would mean "no limit".
    fileprivate var asSetting: String { String(max(1, inMilliseconds)) }
}
