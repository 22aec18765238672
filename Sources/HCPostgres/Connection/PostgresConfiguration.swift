package import HCCore

/// How to reach a server and what every session of ours has set.
package struct PostgresConfiguration: Sendable {
    /// A libpq connection string (libpq 34.1.1): `host=/run/hc dbname=s1 user=hc_app password=…` or a URI.
    package var connectionString: Sensitive<String>
    package var applicationName: String
    /// Another database of that server than the connection string names.
    package var database: String?
    /// Prepared statements per session; the least recently used is closed on the server.
    package var statementsMax = 256
    /// Backstop behind our own deadlines, for the case that we are gone: the server ends a statement by itself.
    package var statementTimeout: Duration = .seconds(60)
    /// Likewise for a transaction that nobody continues.
    package var idleInTransactionTimeout: Duration = .seconds(60)
    /// Nil: a lock is waited for until the deadline.
    package var lockTimeout: Duration?
    package var searchPath = "public"
    /// Further settings (`jit` …), set in the start-up message.
    package var settings: [String: String] = [:]
    /// After a deadline or a cancellation: how long the server has for settling it before the session is closed.
    package var cancelGrace: Duration = .seconds(1)
    /// A result above this makes libpq keep a large buffer for good: the pool replaces such a session.
    package var resultBytesRetire = 8 << 20
    package var logger: Logger?
    /// A pooler in transaction mode (PgBouncer, `pool_mode = transaction`) stands before the server: nothing may be left
    /// in a session. Statements are parsed each time instead of prepared, and no setting is made at the start: the
    /// timeouts, `searchPath` and `settings` above then have no effect, and belong into each transaction.
    package var isPooled = false
    /// A session that can follow a logical slot, and otherwise takes scripts only (PostgreSQL 15 manual, 55.4).
    package var isReplication = false

    package init(connectionString: Sensitive<String>, applicationName: String) {
        self.connectionString = connectionString
        self.applicationName = applicationName
    }

    /// The `options` of the start-up message: `-c name=value` with blanks and backslashes escaped.
    func startupOptions(after given: String?) -> String {
        var all: [(String, String)] = [
            ("statement_timeout", milliseconds(statementTimeout)),
            ("idle_in_transaction_session_timeout", milliseconds(idleInTransactionTimeout)),
            ("TimeZone", "UTC"),
            ("DateStyle", "ISO"),
            ("search_path", searchPath),
        ]
        if let lockTimeout { all.append(("lock_timeout", milliseconds(lockTimeout))) }
        for name in settings.keys.sorted() { all.append((name, settings[name, default: ""])) }
        var text = given ?? ""
        for (name, value) in all {
            if !text.isEmpty { text += " " }
            text += "-c "
            for character in "\(name)=\(value)" {
                if character == " " || character == "\\" { text += "\\" }
                text.append(character)
            }
        }
        return text
    }

    private func milliseconds(_ duration: Duration) -> String {
        // 0 would mean "no limit".
        let (seconds, attoseconds) = duration.components
        return String(max(1, seconds * 1000 + attoseconds / 1_000_000_000_000_000))
    }
}

extension PostgresConfiguration {
    /// The variables by which libpq's own programs are told what the connection string says (libpq 34.15): arguments
    /// are for everybody to see, the environment is not. Nil if it is no connection string.
    package var clientEnvironment: Sensitive<[String]>? {
        guard var given = ConnectionString.parse(connectionString.reveal()) else { return nil }
        if let database { given["dbname"] = database }
        let names = [
            "host": "PGHOST", "hostaddr": "PGHOSTADDR", "port": "PGPORT", "dbname": "PGDATABASE",
            "user": "PGUSER", "password": "PGPASSWORD", "passfile": "PGPASSFILE",
            "sslmode": "PGSSLMODE", "sslrootcert": "PGSSLROOTCERT", "sslcert": "PGSSLCERT",
            "sslkey": "PGSSLKEY",
        ]
        return Sensitive(
            given.compactMap { name, value in names[name].map { "\($0)=\(value)" } }.sorted())
    }
}
