/// Whether the whole fleet stays within what its databases take: the sum is made before anything starts, since a
/// server that refuses connections refuses them to whoever comes last.
package struct FleetBudget: Sendable, Equatable {
    /// Who holds connections.
    package struct Fleet: Sendable, Equatable {
        /// Machines or pods.
        package var pods: Int
        package var workersPerPod: Int
        /// Processes of one pod that do background work.
        package var jobsPerPod: Int
        /// Commands that run at once, of all operators.
        package var commands: Int

        package init(pods: Int, workersPerPod: Int, jobsPerPod: Int = 0, commands: Int = 2) {
            self.pods = pods
            self.workersPerPod = workersPerPod
            self.jobsPerPod = jobsPerPod
            self.commands = commands
        }

        /// Workers and jobs; a rolled worker and its successor overlap, so each pod may have one more for a while.
        package var processes: Int { pods * (workersPerPod + 1 + jobsPerPod) }
    }

    /// A PostgreSQL server, as it says itself.
    package struct Server: Sendable, Equatable {
        /// System identifier, and for replicas their name: databases of one server share its connections.
        package var identity: String
        package var connectionsMax: Int
        /// `superuser_reserved_connections` and `reserved_connections`.
        package var reserved: Int

        package init(identity: String, connectionsMax: Int, reserved: Int) {
            self.identity = identity
            self.connectionsMax = connectionsMax
            self.reserved = reserved
        }
    }

    /// A database that processes hold connections to: a shard, a replica of one, or the control database.
    package struct Database: Sendable, Equatable {
        package var name: String
        /// Most connections that one process holds to it for all clinics together.
        package var perProcess: Int
        /// Sum over its clinics of the connections that each process holds for one of them alone.
        package var dedicated: Int
        package var perCommand: Int
        /// Most that all processes together may hold: the shard's `connection_limit`, the database's own limit.
        package var limit: Int?
        /// Nil if it could not be asked.
        package var server: Server?

        package init(
            name: String, perProcess: Int, dedicated: Int = 0, perCommand: Int, limit: Int?,
            server: Server?
        ) {
            self.name = name
            self.perProcess = perProcess
            self.dedicated = dedicated
            self.perCommand = perCommand
            self.limit = limit
            self.server = server
        }
    }

    /// One row of the answer.
    package struct Line: Sendable, Equatable {
        package enum Kind: String, Sendable {
            case database
            case server
        }

        package var kind: Kind
        package var name: String
        package var shared: Int
        package var dedicated: Int
        package var commands: Int
        /// Less what is reserved; nil if it is not known.
        package var available: Int?

        package var needed: Int { shared + dedicated + commands }
        package var fits: Bool { available.map { needed <= $0 } ?? true }
    }

    package var fleet: Fleet
    /// Left of every database and server to movers, backups and people.
    package var reserve: Int
    package var databases: [Database]

    package init(fleet: Fleet, reserve: Int, databases: [Database]) {
        self.fleet = fleet
        self.reserve = reserve
        self.databases = databases
    }

    /// Every database, then every server that is known.
    package var lines: [Line] {
        var lines = databases.map { database in
            Line(
                kind: .database, name: database.name,
                shared: fleet.processes * database.perProcess,
                dedicated: fleet.processes * database.dedicated,
                commands: fleet.commands * database.perCommand,
                available: database.limit.map { $0 - reserve })
        }
        var servers: [Server] = []
        for case let server? in databases.map(\.server)
        where !servers.contains(where: { $0.identity == server.identity }) {
            servers.append(server)
        }
        for server in servers {
            let names = databases.filter { $0.server?.identity == server.identity }.map(\.name)
            let held = lines.filter { $0.kind == .database && names.contains($0.name) }
            lines.append(
                Line(
                    kind: .server, name: "server of \(names.joined(separator: ", "))",
                    shared: held.reduce(0) { $0 + $1.shared },
                    dedicated: held.reduce(0) { $0 + $1.dedicated },
                    commands: held.reduce(0) { $0 + $1.commands },
                    available: server.connectionsMax - server.reserved - reserve))
        }
        return lines
    }

    /// One sentence for each that would be overrun; empty when all is well.
    package var problems: [String] {
        lines.filter { !$0.fits }.map { line in
            let share = line.available.map { max(0, ($0 - line.dedicated - line.commands)) } ?? 0
            let most = share / max(1, fleet.processes)
            return
                "\(line.name) can give \(max(0, line.available ?? 0)) connections beside its reserve, but the"
                + " fleet may hold \(line.needed): \(fleet.processes) processes (\(fleet.pods) pods of"
                + " \(fleet.workersPerPod) workers, a successor and \(fleet.jobsPerPod) jobs) hold \(line.shared)"
                + " shared and \(line.dedicated) dedicated ones, commands \(line.commands)."
                + (most > 0
                    ? " At most \(most) shared ones fit per process: lower pools.shardConnectionsMax"
                    : " Not one shared connection per process fits: put a transaction pooler in front")
                + ", run fewer processes, spread the clinics over more servers, or raise the limit"
        }
    }
}
