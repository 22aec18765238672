import CLinux
import Glibc
import HCCore
import HCTesting

/// What the cases do with moves.
extension MoveFaultGround {
    /// Starts a move to the other shard that needs no agent.
    ///
    /// - Parameter budget: of the pause: whatever else the machine does, one try is to be enough; and a mover that is stopped
    ///   in it and goes on has used some of it up.
    func begin(
        _ before: Placement, soak: String = "0s", budget: String = "5s", fault: String? = nil
    ) throws -> Subprocess {
        try admin(
            [
                "tenant", "move", Self.moved, "--to", before.other, "--wait", "--soak", soak,
                "--pause-budget", budget,
            ], fault: fault)
    }

    /// Moves the clinic and keeps the way back.
    func soak(_ before: Placement) throws {
        let mover = try begin(before, soak: "1h")
        let status = try mover.wait()
        guard status == 0, try move().state == "soaking" else {
            throw FixtureError("the clinic was not moved at all: \(try move().text)")
        }
    }

    func revert(fault: String?) throws -> Subprocess {
        try admin(["move", "revert", Self.moved], fault: fault)
    }

    /// Another agent in the place of the one that runs.
    func replaceAgent(fault: String) throws {
        if let agent = takeAgent() {
            try strike(agent.processIdentifier, SIGKILL)
            try waitEnded(agent)
        }
        try startAgent(fault: fault)
    }

    /// The command writes the move down and leaves it.
    func leaveToAgent(_ before: Placement) throws {
        let command = try admin([
            "tenant", "move", Self.moved, "--to", before.other, "--soak", "0s",
        ])
        guard try command.wait() == 0 else { throw FixtureError("no move was begun") }
    }

    func expectKilled(_ process: Subprocess, _ point: String) throws {
        try platform.waitForExit(process.processIdentifier)
        let status = try process.wait()
        guard status == 128 + SIGKILL else {
            throw FixtureError("its process ended with \(status) and never came to \(point)")
        }
    }

    func expectStopped(_ process: Subprocess, _ point: String) throws {
        guard try waitStopped(process) else {
            throw FixtureError(
                "its process ended with \(try process.wait()) and never came to \(point)")
        }
    }

    /// A move comes to the point for the first time, something is struck there, and its mover goes on into what is left.
    func strikeAt(_ point: String, _ before: Placement, _ blow: () throws -> Repair) throws {
        let mover = try begin(before, fault: "\(point)=stop@1")
        try expectStopped(mover, point)
        try strike(mover, blow)
    }

    /// Before the lease of the mover, which has stopped, is over.
    func strike(_ mover: Subprocess, _ blow: () throws -> Repair) throws {
        let repair = try blow()
        try strike(mover.processIdentifier, SIGCONT)
        try repair()
        try waitEnded(mover)
    }

    /// Waits until whoever has the move has ended it; a soak is ended.
    func settle() throws {
        var last = "none"
        do {
            let row = try wait("the end of the move", within: 120) { () -> MoveRow? in
                let row = try move()
                last = row.text
                return row.isOver || row.step == "soaking" ? row : nil
            }
            guard !row.isOver else { return }
        } catch let error as FixtureError {
            throw FixtureError("\(error): it is \(last)")
        }
        let ending = try admin(["move", "finalize", Self.moved])
        try waitEnded(ending)
        try wait("the end of the soak") { try move().isOver ? () : nil }
    }
}
