import CLinux
import Glibc
import HCCore
import HCIO
import HCTesting
import Testing

/// One case of the matrix: a move that meets a fault, how it may end, and who must not notice.
struct MoveFault: Sendable, CustomTestStringConvertible {
    /// Where the clinic is when everything is over.
    enum End: String, Sendable {
        /// At the other shard.
        case done
        /// Where it was, for the move was undone.
        case aborted
        /// Where it was, for it was brought back.
        case reverted
    }

    /// What is struck, and with it whose requests may fail.
    enum Victim: Sendable {
        /// A process that only carries the move on: no request of anybody fails.
        case mover
        /// Clinics that are not on the move are served without it.
        case control
        case source
        case target
        case workers
        /// The clinic itself, by its operators.
        case clinic
    }

    typealias Story =
        @Sendable (MoveFaultGround, MoveFaultGround.Placement) throws -> Void

    let name: String
    let victim: Victim
    let ends: Set<End>
    /// Runs with all other tests; the rest by `deploy/local/test faults`.
    var isRepresentative = false
    let story: Story

    var testDescription: String { name }

    init(
        _ name: String, _ victim: Victim, _ ends: Set<End> = [.done], story: @escaping Story
    ) {
        self.name = name
        self.victim = victim
        self.ends = ends
        self.story = story
    }

    /// Clinics of which no request may fail.
    func calm(_ before: MoveFaultGround.Placement) -> Set<String> {
        let neighbours = Set(MoveFaultGround.neighbours.values)
        switch victim {
        case .mover: return neighbours.union([MoveFaultGround.moved])
        case .control, .clinic: return neighbours
        case .source: return Set([MoveFaultGround.neighbours[before.other] ?? ""])
        case .target: return Set([MoveFaultGround.neighbours[before.shard] ?? ""])
        case .workers: return []
        }
    }
}

// MARK: The table

extension MoveFault {
    /// What this run has to do: `HC_FAULTS` is a regular expression that the names of the cases match; without it, the
    /// representative ones.
    static let chosen: [MoveFault] = {
        guard let wanted = ProcessEnvironment.current["HC_FAULTS"] else {
            return all.filter(\.isRepresentative)
        }
        do {
            let pattern = try Regex(wanted)
            return all.filter { $0.name.contains(pattern) }
        } catch {
            preconditionFailure("HC_FAULTS is no regular expression: \(error)")
        }
    }()

    static let all: [MoveFault] =
        (movers + agents + servers + workers + reverts + races + aborts + hands).map { fault in
            var fault = fault
            fault.isRepresentative = representative.contains(fault.name)
            return fault
        }

    private static let representative: Set<String> = [
        "mover kill move.handed-over", "mover kill move.committed", "mover stop move.published",
        "mover stop move.fenced", "source kill move.fenced", "target kill move.drained",
        "control kill move.handed-over", "abort races move.handed-over",
    ]

    /// Before each step, when it is done and not written down, and between the parts of the pause.
    private static let points = [
        "planned", "planned.done", "reserved", "reserved.done", "published", "published.done",
        "slotted", "slotted.done", "subscribed", "subscribed.done", "copied", "copied.done",
        "mirrored", "mirrored.done", "verified", "gated", "fenced", "drained", "handed-over",
        "committed", "committed.done", "opened", "opened.done", "switched", "closing",
        "closing.done", "purging", "purging.done",
    ].map { "move.\($0)" }

    /// Of the way back.
    private static let pointsBack = [
        "returning", "mirrored", "mirrored.done", "verified", "gated", "fenced", "drained",
        "handed-over", "committed", "committed.done", "opened", "closing", "closing.done",
        "purging", "purging.done",
    ].map { "move.\($0)" }

    private static let pausePoints = [
        "move.verified", "move.gated", "move.fenced", "move.drained", "move.handed-over",
        "move.committed", "move.committed.done",
    ]

    private static let movers: [MoveFault] = points.flatMap { point in
        [
            MoveFault("mover kill \(point)", .mover) { ground, before in
                try ground.expectKilled(try ground.begin(before, fault: "\(point)=kill@1"), point)
            },
            MoveFault("mover stop \(point)", .mover) { ground, before in
                let mover = try ground.begin(before, fault: "\(point)=stop@1")
                try ground.expectStopped(mover, point)
                // Its successor has ended the move when it wakes up.
                try ground.settle()
                try ground.strike(mover.processIdentifier, SIGCONT)
                try ground.waitEnded(mover)
            },
            MoveFault("mover wakes beside its successor \(point)", .mover) { ground, before in
                let mover = try ground.begin(before, fault: "\(point)=stop@1")
                try ground.expectStopped(mover, point)
                let attempt = try ground.move().attempt
                try ground.wait("a successor") { try ground.move().attempt > attempt ? () : nil }
                try ground.strike(mover.processIdentifier, SIGCONT)
                try ground.waitEnded(mover)
            },
        ]
    }

    /// The agent has the move, for the command has left it to it.
    private static let agents: [MoveFault] = [
        "move.planned", "move.subscribed", "move.gated", "move.handed-over", "move.committed",
        "move.purging",
    ].flatMap { point in
        [
            MoveFault("agent kill \(point)", .mover) { ground, before in
                try ground.replaceAgent(fault: "\(point)=kill@1")
                try ground.leaveToAgent(before)
                guard let agent = ground.takeAgent() else { return }
                try ground.expectKilled(agent, point)
                try ground.startAgent()
            },
            MoveFault("agent stop \(point)", .mover) { ground, before in
                try ground.replaceAgent(fault: "\(point)=stop@1")
                try ground.leaveToAgent(before)
                guard let agent = ground.takeAgent() else { return }
                try ground.expectStopped(agent, point)
                try ground.startAgent()
                try ground.settle()
                try ground.strike(agent.processIdentifier, SIGCONT)
                // It is an agent as before, and does not believe that the move is still its own.
                try ground.strike(agent.processIdentifier, SIGTERM)
                try ground.waitEnded(agent)
            },
        ]
    }

    private static let servers: [MoveFault] = points.filter { !$0.hasSuffix("planned") }.flatMap {
        point in
        [("source", Victim.source), ("target", .target), ("control", .control)].flatMap {
            name, victim in
            [
                MoveFault("\(name) kill \(point)", victim) { ground, before in
                    try ground.strikeAt(point, before) {
                        try ground.killServer(victim.server(before))
                    }
                },
                MoveFault("\(name) stop \(point)", victim) { ground, before in
                    try ground.strikeAt(point, before) {
                        try ground.stopServer(victim.server(before))
                    }
                },
            ]
        } + [
            MoveFault("redis kill \(point)", .workers) { ground, before in
                try ground.strikeAt(point, before) { try ground.killServer(.redis) }
            },
            MoveFault("redis stop \(point)", .workers) { ground, before in
                try ground.strikeAt(point, before) { try ground.stopServer(.redis) }
            },
        ]
    }

    private static let workers: [MoveFault] =
        pausePoints.flatMap { point in
            [
                MoveFault("workers kill \(point)", .workers) { ground, before in
                    try ground.strikeAt(point, before) {
                        for worker in try ground.platform.serverProcesses().workers {
                            try ground.strike(worker, SIGKILL)
                        }
                        return {}
                    }
                },
                MoveFault("a worker stop \(point)", .workers) { ground, before in
                    try ground.strikeAt(point, before) {
                        let worker = try ground.platform.serverProcesses().workers[0]
                        try ground.strike(worker, SIGSTOP)
                        return {
                            try ground.rest(10)
                            // With the map of before, unless its supervisor has ended it.
                            try ground.strike(worker, SIGCONT)
                        }
                    }
                },
            ]
        } + [
            MoveFault("routers without the control database", .control) { ground, before in
                try ground.sql(
                    .control,
                    """
                    ALTER ROLE hc_router NOLOGIN;
                    SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE usename = 'hc_router';
                    """)
                try ground.waitEnded(try ground.begin(before))
                // Both shards are theirs to ask, and what they know is old.
                try ground.rest(3)
                try ground.sql(.control, "ALTER ROLE hc_router LOGIN")
            }
        ]

    private static let reverts: [MoveFault] =
        pointsBack.flatMap { point in
            [
                MoveFault("revert kill \(point)", .mover, [.reverted]) { ground, before in
                    try ground.soak(before)
                    try ground.expectKilled(try ground.revert(fault: "\(point)=kill@1"), point)
                },
                MoveFault("revert stop \(point)", .mover, [.reverted]) { ground, before in
                    try ground.soak(before)
                    let mover = try ground.revert(fault: "\(point)=stop@1")
                    try ground.expectStopped(mover, point)
                    try ground.settle()
                    try ground.strike(mover.processIdentifier, SIGCONT)
                    try ground.waitEnded(mover)
                },
            ]
        }
        + pausePoints.flatMap { point in
            [("source", Victim.source), ("target", .target), ("control", .control)].map {
                name, victim in
                MoveFault("revert \(name) kill \(point)", victim, [.reverted, .done]) {
                    ground, before in
                    try ground.soak(before)
                    let mover = try ground.revert(fault: "\(point)=stop@1")
                    try ground.expectStopped(mover, point)
                    try ground.strike(mover) { try ground.killServer(victim.server(before)) }
                }
            }
        }
}

extension MoveFault.Victim {
    /// - Precondition: it is a server.
    fileprivate func server(_ before: MoveFaultGround.Placement) -> MoveFaultGround.Server {
        switch self {
        case .source: .shard(before.shard)
        case .target: .shard(before.other)
        case .control: .control
        case .mover, .workers, .clinic: preconditionFailure("no server")
        }
    }
}
