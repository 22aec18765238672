/// What a migration must not do, why, and what is done instead.
package enum LintRule: String, Sendable, CaseIterable {
    // What a statement does to a table that was there before the migration.
    case doesNotApply = "does-not-apply"
    case transaction
    case repeatable
    case wayBack = "way-back"
    case backfill
    case verify
    case typeRewrite = "type-rewrite"
    case volatileDefault = "volatile-default"
    case rewrite
    case truncate
    case index
    case indexInvalid = "index-invalid"
    case indexRebuild = "index-rebuild"
    case notNull = "not-null"
    case columnWithoutDefault = "column-without-default"
    case check
    case foreignKey = "foreign-key"
    case validateAtOnce = "validate-at-once"
    case longLock = "long-lock"
    // What programs that serve read meanwhile.
    case takesAway = "takes-away"
    // What the schema of a shard is like afterwards.
    case tenantColumn = "tenant-column"
    case primaryKey = "primary-key"
    case tenantUnique = "tenant-unique"
    case tenantForeignKey = "tenant-foreign-key"
    case rowSecurity = "row-security"
    case policy
    case grants
    case sequence
    case replicaIdentity = "replica-identity"
    case publicFunction = "public-function"

    package var reason: String { words.reason }
    package var safeForm: String { words.safe }

    private var words: (reason: String, safe: String) {
        switch self {
        case .doesNotApply:
            ("PostgreSQL refuses it", "mend the statement; the server's words are beside it")
        case .transaction:
            (
                "outside a transaction a failure leaves a script half applied; inside, it is applied or not",
                #"a migration of its own, with {"transaction": false} in its migration.json, for each statement that "#
                    + "cannot run in a transaction, and only for those"
            )
        case .repeatable:
            (
                "it is run once more if the process dies before the ledger has it, and must then change nothing",
                "CREATE INDEX CONCURRENTLY IF NOT EXISTS with a name, DROP INDEX CONCURRENTLY IF EXISTS"
            )
        case .wayBack:
            (
                "a shard that is taken back has then a schema that no other has",
                "down.sql drops exactly what up.sql has made; where that cannot be done there is no down.sql"
            )
        case .backfill:
            (
                "a backfill that is no batch of one clinic's rows fails at the first shard, or never ends",
                "one statement of the clinic ($1, uuid), where to begin ($2, text) and how many rows ($3, int) that gives "
                    + "back how many it has seen (bigint) and where the next begins (text; NULL: nowhere)"
            )
        case .verify:
            (
                "verify.sql halts the run wherever it finds something, and may change nothing",
                "one SELECT that gives back a row for each thing that is wrong"
            )
        case .typeRewrite:
            (
                "the new type makes PostgreSQL write the whole table anew while nobody can use it",
                "a new column of the new type, filled in batches; the old one is dropped by a later release"
            )
        case .volatileDefault:
            (
                "a value is computed for each row: the whole table is written anew while nobody can use it",
                "ADD COLUMN without the default, then SET DEFAULT for new rows, then fill the old ones in batches"
            )
        case .rewrite:
            (
                "the whole table is written anew while nobody can use it",
                "a new table beside it, filled in batches"
            )
        case .truncate:
            (
                "TRUNCATE, CLUSTER and the like give the table new files, behind the back of row-level security and moves",
                "DELETE in batches, clinic by clinic; or a new table"
            )
        case .index:
            (
                "building an index in a transaction keeps writers out until it is built",
                "CREATE [UNIQUE] INDEX CONCURRENTLY IF NOT EXISTS in a migration of its own; a key is then added with "
                    + "ADD CONSTRAINT … USING INDEX"
            )
        case .indexInvalid:
            (
                "the index is there and invalid: kept up to date, used by nobody",
                "DROP INDEX CONCURRENTLY, then build it again"
            )
        case .indexRebuild:
            (
                "an index is built anew while writers wait",
                "a new index, built CONCURRENTLY; then drop the old one"
            )
        case .notNull:
            (
                "SET NOT NULL reads the whole table while nobody can use it",
                "ADD CONSTRAINT … CHECK (column IS NOT NULL) NOT VALID; VALIDATE CONSTRAINT in the next migration; "
                    + "then SET NOT NULL, which believes the check"
            )
        case .columnWithoutDefault:
            (
                "a NOT NULL column without a default cannot be added to a table with rows",
                "give it a constant default, or add it nullable, fill it and make it NOT NULL by a validated check"
            )
        case .check:
            (
                "all rows are checked while nobody can use the table",
                "ADD CONSTRAINT … NOT VALID, and VALIDATE CONSTRAINT in the next migration"
            )
        case .foreignKey:
            (
                "all rows are looked up while nobody can write to either table",
                "ADD CONSTRAINT … NOT VALID, and VALIDATE CONSTRAINT in the next migration"
            )
        case .validateAtOnce:
            (
                "the lock of ADD CONSTRAINT is kept while all rows are checked: NOT VALID has won nothing",
                "VALIDATE CONSTRAINT in a migration of its own"
            )
        case .longLock:
            (
                "a table that nobody can use meanwhile stays locked for further work",
                "one migration for each table that is changed; rows are changed in a migration of their own"
            )
        case .takesAway:
            (
                "programs that serve and still ask for it fail from this statement on",
                "in contract.sql of a migration in phases; or a release that does without comes first, and migration.json "
                    + #"names in "servesFrom" the migration which that release knows: then the run waits for the others"#
            )
        case .tenantColumn:
            (
                "a table of a shard without tenant_id belongs to no clinic: it is neither kept apart nor moved",
                "tenant_id uuid NOT NULL, first in the primary key"
            )
        case .primaryKey:
            (
                "the primary key of a clinic's table begins with tenant_id: rows are found, moved and kept apart by it",
                "PRIMARY KEY (tenant_id, …)"
            )
        case .tenantUnique:
            (
                "what is unique over all clinics tells one clinic of another, and stops a move",
                "UNIQUE (tenant_id, …)"
            )
        case .tenantForeignKey:
            (
                "a foreign key without the tenant can refer to another clinic's row",
                "FOREIGN KEY (tenant_id, …) REFERENCES … (tenant_id, …)"
            )
        case .rowSecurity:
            (
                "without row-level security, enabled and forced, a clinic sees the rows of all",
                "ALTER TABLE … ENABLE ROW LEVEL SECURITY and FORCE ROW LEVEL SECURITY"
            )
        case .policy:
            (
                "the only policy that lets rows through is the one that compares tenant_id with the context",
                "CREATE POLICY tenant ON … USING (tenant_id = (SELECT hc_ctx_tenant())) "
                    + "WITH CHECK (tenant_id = (SELECT hc_ctx_tenant())); for a table hc_…: to hc_owner alone"
            )
        case .grants:
            (
                "a role has rights that it must not have, or lacks those that it works with",
                "hc_app: SELECT and what it writes, never TRUNCATE, REFERENCES or TRIGGER, nothing on hc_…; "
                    + "hc_mover: SELECT, INSERT, DELETE, and UPDATE where hc_app has it; everyone: nothing"
            )
        case .sequence:
            (
                "the numbers of a sequence are a shard's own: after a move they meet others",
                "an id that the server makes (UUID), or a counter in a row of the clinic"
            )
        case .replicaIdentity:
            (
                "a move filters by tenant_id, which updates and deletes carry only as part of the replica identity",
                "the default replica identity, with tenant_id in the primary key"
            )
        case .publicFunction:
            (
                "everyone may execute it",
                "REVOKE EXECUTE ON FUNCTION … FROM PUBLIC, then GRANT to who needs it"
            )
        }
    }
}

/// A migration that breaks a rule, and where.
package struct LintFinding: Sendable, Equatable {
    package let rule: LintRule
    /// `shard/0006-name/up.sql`, below the directory of migrations.
    package let file: String
    /// Of the first word of the statement, from 1.
    package let line: Int
    /// The table, index or constraint, with what the server said.
    package let object: String
}
