import HCCore
import HCIO
import HCTenancy

/// That this process carries a move on, and nobody else: renewed beside the work, over a connection of its own.
///
/// By its own clock the process stops before the lease has run out on the control database's: it counts from when it
/// asked. What it may have sent by then is refused by the attempt's number. The lease itself goes by the owner's name,
/// which every process and every move has of its own.
@LoopActor
final class MoveLease {
    private let plane: ControlPlane
    private let id: MoveID
    private let owner: String
    private var endsAt: MonotonicTime
    private var isTaken = false
    private(set) var isAbortWanted = false
    private var renewing: Task<Void, Never>?
    private var isAsking = false
    private var isStopping = false

    /// - Parameter since: when the lease that there is was asked for.
    init(_ move: Move, plane: ControlPlane, since: MonotonicTime) {
        self.plane = plane.twin()
        id = move.id
        owner = move.leaseOwner ?? ""
        isAbortWanted = move.isAbortRequested
        endsAt = since + MoveStore.lease
    }

    func start() {
        renewing = Loop.shared.spawn { [self] in
            while !isTaken, !isStopping {
                isAsking = true
                await renewOnce()
                isAsking = false
                if isStopping { return }
                do { try await Loop.shared.sleep(for: MoveStore.renewEvery) } catch { return }
            }
        }
    }

    /// When it returns nothing is on its way any more that would take the move anew.
    func stop() async {
        isStopping = true
        if !isAsking { renewing?.cancel() }
        await renewing?.value
        renewing = nil
        await plane.close()
    }

    private func renewOnce() async {
        let begin = plane.clocks.monotonic()
        do {
            let answer = try await MoveStore(plane: plane).renew(
                id, owner: owner, deadline: .after(MoveStore.lease, from: begin))
            guard let answer else {
                isTaken = true
                return
            }
            isAbortWanted = isAbortWanted || answer
            endsAt = begin + MoveStore.lease
        } catch {
            // The control database does not answer: what is left of the lease is left.
            return
        }
    }

    /// What is left of it.
    var remaining: Duration { isTaken ? .zero : endsAt - plane.clocks.monotonic() }

    /// - Throws: `MoveLost` if the move may be somebody else's.
    func require() throws(MoveLost) {
        guard remaining > .zero else { throw MoveLost() }
    }
}
