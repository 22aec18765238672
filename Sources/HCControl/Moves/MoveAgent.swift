import HCCore
package import HCIO
import HCTenancy

/// Carries on whatever moves nobody carries on: those whose process died, those left to it, and those whose soak is
/// over; and compares both sides of those that soak. One or more per platform; they do not get in each other's way.
@LoopActor
package final class MoveAgent {
    private let plane: ControlPlane
    private let tell: MoveService.Tell
    private var running: Set<MoveID> = []
    private var isChecking = false
    private var isCollecting = false

    /// Between two looks for forsaken moves: with the lease, the longest that a clinic waits whose mover died.
    package static let lookEvery = Duration.milliseconds(200)
    /// Between two looks for moves that soak and shall be compared.
    private static let checkEvery = Duration.seconds(10)
    /// Between two looks whether the load is to be sampled.
    private static let collectEvery = Duration.seconds(10)
    /// Moves that one agent carries on at a time.
    package static let movesMax = 8

    package init(plane: ControlPlane, tell: @escaping MoveService.Tell) {
        self.plane = plane
        self.tell = tell
    }

    /// Until the task is cancelled.
    ///
    /// - Parameter onTrouble: hears what went wrong; the agent goes on.
    package func run(onTrouble: @escaping (any Error) -> Void) async throws {
        var checkAt = plane.clocks.monotonic()
        var collectAt = checkAt
        while true {
            do {
                for id in try await MoveStore(plane: plane).forsaken()
                where !running.contains(id) && running.count < MoveAgent.movesMax {
                    begin(id, onTrouble)
                }
                if !isChecking, plane.clocks.monotonic() >= checkAt {
                    checkAt = plane.clocks.monotonic() + MoveAgent.checkEvery
                    let ids = try await SoakCheck(plane: plane).take()
                    if !ids.isEmpty { check(ids, onTrouble) }
                }
                if !isCollecting, plane.clocks.monotonic() >= collectAt {
                    collectAt = plane.clocks.monotonic() + MoveAgent.collectEvery
                    collect(onTrouble)
                }
            } catch {
                onTrouble(error)
            }
            try await Loop.shared.sleep(for: MoveAgent.lookEvery)
        }
    }

    /// One after the other: it reads whole clinics.
    private func check(_ ids: [MoveID], _ onTrouble: @escaping (any Error) -> Void) {
        isChecking = true
        let own = plane.twin()
        Loop.shared.spawn { [self] in
            for id in ids {
                do {
                    if let difference = try await SoakCheck(plane: own).run(id) {
                        tell(try await MoveStore(plane: own).find(id), difference)
                    }
                } catch {
                    onTrouble(error)
                }
            }
            await own.close()
            isChecking = false
        }
    }

    /// Beside the moves: a shard that does not answer holds it up for seconds.
    private func collect(_ onTrouble: @escaping (any Error) -> Void) {
        isCollecting = true
        let own = plane.twin()
        Loop.shared.spawn { [self] in
            do {
                for outcome in try await LoadCollector(plane: own).collectIfDue() ?? [] {
                    guard case .failed(let reason) = outcome.result else { continue }
                    onTrouble(
                        ControlError(
                            .failed, code: "not-sampled",
                            "what clinics use of shard \(outcome.shard) cannot be sampled: \(reason)"
                        ))
                }
            } catch {
                onTrouble(error)
            }
            await own.close()
            isCollecting = false
        }
    }

    private func begin(_ id: MoveID, _ onTrouble: @escaping (any Error) -> Void) {
        running.insert(id)
        let own = plane.twin()
        Loop.shared.spawn { [self] in
            do {
                if let mover = try await MoveService(plane: own).take(id, tell: tell) {
                    _ = try await mover.run()
                }
            } catch {
                onTrouble(error)
            }
            await own.close()
            running.remove(id)
        }
    }
}
