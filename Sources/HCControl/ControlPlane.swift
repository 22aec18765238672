package import HCCore
package import HCIO
import HCPostgres
package import HCTenancy

/// What every operation of the control plane works with: the configuration, who asks, and the connections.
///
/// Connections are opened when first used and closed by `close()`. Statements run in READ COMMITTED.
@LoopActor
package final class ControlPlane {
    /// Whose rights a connection to a database has (`migrations/roles.sql`).
    enum Role: String, Sendable {
        case owner
        case control
        case app
        case mover
        case router
        /// Subscriptions belong to a superuser, and nothing else is done as one.
        case superuser
    }

    package let configuration: PlatformConfiguration
    package let clocks: Clocks
    /// Whom the audit names: the system user who runs the command.
    package let operatorName: String
    /// What a person is told while long work goes on; goes to standard error.
    package let progress: @Sendable (String) -> Void
    private var open: [String: PostgresConnection] = [:]
    /// Where connections come from and go to, in place of being opened and closed.
    private let spare: SpareConnections?
    private var openDoor: ControlDoor?

    /// No statement of the control plane but a migration takes longer.
    static let statementTimeout = Duration.seconds(30)
    static let connectTimeout = Duration.seconds(5)

    package convenience init(
        configuration: PlatformConfiguration, clocks: Clocks, operatorName: String,
        progress: @escaping @Sendable (String) -> Void
    ) {
        self.init(
            configuration: configuration, clocks: clocks, operatorName: operatorName,
            progress: progress, spare: nil)
    }

    private init(
        configuration: PlatformConfiguration, clocks: Clocks, operatorName: String,
        progress: @escaping @Sendable (String) -> Void, spare: SpareConnections?
    ) {
        self.configuration = configuration
        self.clocks = clocks
        self.operatorName = operatorName
        self.progress = progress
        self.spare = spare
    }

    package func close() async {
        for (file, connection) in open {
            if let spare { spare.give(connection, file) } else { connection.close() }
        }
        open = [:]
        await openDoor?.close()
        openDoor = nil
    }

    func controlDoor() throws -> ControlDoor {
        if let openDoor { return openDoor }
        let door = try ControlDoor(configuration: configuration, clocks: clocks)
        openDoor = door
        return door
    }

    /// For statements that read a whole clinic.
    var longDeadline: Deadline { .after(.seconds(1800), from: clocks.monotonic()) }

    /// The same, with connections of its own: for what goes on beside.
    ///
    /// - Parameter spare: where it takes them from as far as there are, and leaves them when it is closed.
    func twin(_ spare: SpareConnections? = nil) -> ControlPlane {
        ControlPlane(
            configuration: configuration, clocks: clocks, operatorName: operatorName,
            progress: progress, spare: spare)
    }

    var deadline: Deadline { .after(ControlPlane.statementTimeout, from: clocks.monotonic()) }

    /// Whether there is a connection to the control database that was not seen to end.
    var hasControl: Bool {
        open["\(configuration.secretsDirectory)/control.admin.conninfo"]?.isUsable == true
    }

    /// The control database, as `hc_control` or, for migrations, as its owner.
    func control(_ role: Role = .control) async throws(ControlError) -> PostgresConnection {
        let name = role == .control ? "admin" : role.rawValue
        return try await connection(
            file: "\(configuration.secretsDirectory)/control.\(name).conninfo",
            what: "the control database",
            code: "control-unreachable")
    }

    /// A shard's database by the reference under which its connection files are kept.
    func shard(reference: String, _ role: Role) async throws(ControlError) -> PostgresConnection {
        try await connection(
            file: "\(configuration.secretsDirectory)/shards/\(reference).\(role.rawValue).conninfo",
            what: "shard \(reference)", code: "shard-unreachable")
    }

    private func connection(
        file: String, what: String, code: String
    ) async throws(ControlError) -> PostgresConnection {
        if let connection = open[file], connection.isUsable { return connection }
        if let connection = await spare?.take(file, deadline: deadline) {
            open[file] = connection
            return connection
        }
        do {
            let conninfo = try PlatformConfiguration.conninfo(file: file)
            let connection = try await PostgresConnection.connect(
                PostgresConfiguration(connectionString: conninfo, applicationName: "hc-admin"),
                deadline: .after(ControlPlane.connectTimeout, from: clocks.monotonic()))
            open[file] = connection
            return connection
        } catch {
            throw ControlError(
                .failed, code: code, "\(what) cannot be reached with \(file)",
                remedy:
                    "Check that its server runs and that the file holds the right connection string.",
                cause: error)
        }
    }

    /// Says of a database's refusal what was being attempted.
    func attempt<Value>(
        _ what: String, _ body: () async throws -> Value
    ) async throws -> Value {
        do {
            return try await body()
        } catch let error as PostgresError {
            throw ControlPlane.failure(error, attempting: what)
        }
    }

    /// Server messages are shown: the control plane's statements carry names, never a patient's data.
    static func failure(_ error: PostgresError, attempting what: String) -> ControlError {
        if case .server(let server) = error.kind {
            return ControlError(
                .failed, code: "database-refused",
                "\(what): \(server.message.reveal()) (SQLSTATE \(server.sqlstate))")
        }
        return ControlError(
            .failed, code: "database-failed", what,
            remedy: "Nothing is half-made: the same command can be given again.", cause: error)
    }

    /// A line for the hash-chained operator audit, to be put into the transaction of what it tells.
    func audit(_ action: String, subject: String, detail: JSONValue = [:]) -> Query {
        Query(
            """
            INSERT INTO operator_audit (operator_name, action, subject, outcome, detail)
            VALUES ($1, $2, $3, 'success', $4)
            """,
            [.text(operatorName), .text(action), .text(subject), .json(detail.serialized)])
    }
}
