package import HCCore
import HCIO

extension PostgresConnection {
    /// Opens a session. Names are resolved in the blocking pool; all else happens on the loop.
    ///
    /// - Throws: `.connectFailed` with its class, `.deadlineExceeded`, `.cancelled`.
    package static func connect(
        _ configuration: PostgresConfiguration, deadline: Deadline
    ) async throws(PostgresError) -> PostgresConnection {
        guard var parameters = ConnectionString.parse(configuration.connectionString.reveal())
        else {
            throw PostgresError(.connectFailed(.invalidConfiguration))
        }
        try await HostResolution.resolve(&parameters, deadline: deadline)
        addSettings(of: configuration, to: &parameters)
        let logger = configuration.logger
        var handle = PGConnectionHandle(parameters: parameters) { sqlstate in
            logger?.debug("notice from postgres", [("sqlstate", .string(sqlstate?.code ?? ""))])
        }
        try await negotiate(&handle, deadline: deadline)
        guard handle.enterWorkingMode() else { throw .connectionLost }
        let connection = PostgresConnection(handle: handle, configuration: configuration)
        do throws(SystemError) {
            try connection.start()
        } catch {
            connection.close()
            throw PostgresError(.connectFailed(.unreachable))
        }
        return connection
    }

    private static func addSettings(
        of configuration: PostgresConfiguration, to parameters: inout [String: String]
    ) {
        parameters["application_name"] = configuration.applicationName
        parameters["client_encoding"] = "UTF8"
        if let database = configuration.database { parameters["dbname"] = database }
        if configuration.isReplication { parameters["replication"] = "database" }
        if !configuration.isPooled {
            parameters["options"] = configuration.startupOptions(after: parameters["options"])
        }
        // A peer that vanished is noticed within half a minute, unless the operator says otherwise.
        let keepalive = [
            "keepalives": "1", "keepalives_idle": "10", "keepalives_interval": "5",
            "keepalives_count": "3", "tcp_user_timeout": "30000",
        ]
        parameters.merge(keepalive) { given, _ in given }
    }

    /// Runs `PQconnectPoll` until it is done (libpq 34.1, PQconnectStartParams). The socket may be another one
    /// after each call, so it is registered anew each time.
    private static func negotiate(
        _ handle: inout PGConnectionHandle, deadline: Deadline
    ) async throws(PostgresError) {
        guard !handle.isBad else { throw failure(of: handle) }
        var polling = PGConnectionHandle.Polling.wantsWrite
        while true {
            switch polling {
            case .done: return
            case .failed: throw failure(of: handle)
            case .wantsRead: try await wait(for: .readable, on: handle.socket, deadline: deadline)
            case .wantsWrite: try await wait(for: .writable, on: handle.socket, deadline: deadline)
            }
            polling = handle.pollConnect()
        }
    }

    private static func failure(of handle: borrowing PGConnectionHandle) -> PostgresError {
        PostgresError(.connectFailed(.init(sqlstate: handle.connectErrorState)))
    }

    private static func wait(
        for event: IOEvents, on socket: Int32, deadline: Deadline
    ) async throws(PostgresError) {
        let waiter = Waiter<Void>()
        do {
            let watch = try SocketWatch(socket, event) { _ in waiter.succeed(()) }
            defer { watch.close() }
            try await waiter.wait(until: deadline)
        } catch is DeadlineExceeded {
            throw .deadlineExceeded
        } catch is CancellationError {
            throw .cancelled
        } catch {
            throw PostgresError(.connectFailed(.unreachable))
        }
    }
}
