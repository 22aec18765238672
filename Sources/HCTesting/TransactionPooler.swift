import CLinux
import Glibc
import HCIO

/// A PgBouncer in transaction mode before one PostgreSQL server, for one test: each transaction may run on another
/// session of the server. Ends with the last reference to it.
package final class TransactionPooler: Sendable {
    private let child: Subprocess
    private let directory: String
    private let port: Int

    /// - Parameters:
    ///   - conninfo: how a role reaches the server; the pooler knows its password.
    ///   - sessions: that it opens to the server for a role and database.
    package init(_ conninfo: Conninfo, sessions: Int) throws {
        var template = Array("/tmp/hc-pooler-XXXXXX".utf8CString)
        guard mkdtemp(&template) != nil else { throw FixtureError("mkdtemp failed") }
        directory = String(
            decoding: template.dropLast().map { UInt8(bitPattern: $0) }, as: UTF8.self)
        port = 6432
        // As root it runs as the user of the services, who makes the socket here. The passwords are tests' own.
        guard chmod(directory, 0o777) == 0 else { throw FixtureError("chmod failed") }
        guard let host = conninfo["host"], let server = conninfo["port"],
            let user = conninfo["user"], let password = conninfo["password"]
        else { throw FixtureError("a connection string without host, port, user or password") }
        try TransactionPooler.write(
            """
            [databases]
            * = host=\(host) port=\(server)
            [pgbouncer]
            listen_addr =
            listen_port = \(port)
            unix_socket_dir = \(directory)
            auth_type = scram-sha-256
            auth_file = \(directory)/users
            pool_mode = transaction
            default_pool_size = \(sessions)
            max_client_conn = 200
            log_connections = 0
            log_disconnections = 0
            log_stats = 0

            """, to: directory + "/pgbouncer.ini")
        try TransactionPooler.write("\"\(user)\" \"\(password)\"\n", to: directory + "/users")
        let places: [String] = ["/usr/sbin/pgbouncer", "/usr/bin/pgbouncer"]
        let program = places.first { place in access(place, X_OK) == 0 }
        guard let program else {
            throw FixtureError("there is no pgbouncer: apt-get install pgbouncer")
        }
        let asUser = geteuid() == 0 ? ["-u", "postgres"] : []
        child = try Subprocess(program, asUser + [directory + "/pgbouncer.ini"])
        var lines: [String] = []
        while let line = try child.readLine() {
            if line.contains("process up") { return }
            lines.append(line)
        }
        throw FixtureError("pgbouncer did not start: \(lines.joined(separator: "\n"))")
    }

    private static func write(_ text: String, to file: String) throws {
        try Files.replace(file, with: Array(text.utf8))
        guard chmod(file, 0o644) == 0 else { throw FixtureError("chmod failed") }
    }

    deinit {
        _ = kill(child.processIdentifier, SIGKILL)
        for file in ["pgbouncer.ini", "users", ".s.PGSQL.\(port)"] {
            unlink("\(directory)/\(file)")
        }
        rmdir(directory)
    }

    /// The same database and role, through the pooler.
    package func conninfo(_ direct: Conninfo) -> Conninfo {
        var pooled = direct
        pooled["host"] = directory
        pooled["port"] = String(port)
        return pooled
    }
}
