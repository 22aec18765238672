import HCCore
import HCIO
import HCPostgres
import HCTenancy

/// What is left to be done behind the commit point.
///
/// None of it can be given up, and each of it may find that what it needs is gone. The stream that brought the clinic has
/// brought everything before the commit point was passed: if its slot is gone, or the log that it kept, nobody waits for
/// it. The way back begins with the first change behind the pause, and there is none without all of them: if its slot, or
/// its log, is gone before anybody reads it, the way back is given up. What was made for it is taken down, the move says
/// so (`wayBackLost`) and soaks without it: the rows that were left behind stay until the soak is over, or `move finalize`.
/// A process that dies in between leaves a slot that is gone, and its successor comes to the same end.
extension Mover {
    func turnStream() async throws {
        if move.isRecall { return try await advance(to: .closing) }
        let fence = try await fence()
        let fenced = move.position("fencePosition")
        if fence.origin.id == move.givenUp {
            // It has brought everything before the commit point was passed, and nobody is asked how much was confirmed.
            let manifest = try await MoveManifest.make(
                move, confirmed: fenced ?? LogPosition(0), plane: plane, store: store)
            return try await advance(to: .closing, [:], also: [keeping(manifest)])
        }
        let hadFence = try await fence.leave(epoch: move.epoch + 1)
        let stream = try await current()
        // There is no more to come of it.
        if try await stream.progress().isStopped { try await stream.enable() }
        let confirmed = try await stream.awaitConfirmed(fenced ?? LogPosition(0))
        let manifest = try await MoveManifest.make(
            move, confirmed: confirmed ?? fenced ?? LogPosition(0), plane: plane, store: store)
        let kept = keeping(manifest)
        guard hadFence else {
            // What it lost it cannot send back: there is no way back to it.
            return try await advance(
                to: .closing, ["fenceLost": true],
                also: [
                    kept,
                    plane.audit(
                        "tenant.move.fence-lost", subject: move.slug,
                        detail: [
                            "move": .string("\(move.id.uuid)"), "shard": .string(fence.origin.id),
                        ]),
                ])
        }
        let isWayBackLost = move.progress["wayBackLost"]?.asString != nil
        guard move.direction == .forward, !isWayBackLost else {
            return try await advance(to: .closing, [:], also: [kept])
        }
        guard let drained = move.position("drainPosition") else {
            throw Fatal(reason: "where the way back begins was not written down")
        }
        try await drop { !$0.name.hasPrefix("hc_mirror") }
        // One that a predecessor has made goes on from where it is.
        let mirror = try await mirror()
        if let reason = try await mirror.lostLog() {
            return try await giveUpWayBack(reason, also: kept)
        }
        if try await !mirror.isSubscribed() {
            try await mirror.skip(to: drained)
            try await mirror.subscribe(copies: false, from: drained)
        }
        try FaultPoint.reach("move.opened.done")
        try await advance(to: .switched, [:], also: [kept])
    }

    private func keeping(_ manifest: JSONValue) -> Query {
        Query(
            "UPDATE move SET manifest = $2 WHERE id = $1",
            [.id(move.id), .json(manifest.serialized)])
    }

    private func giveUpWayBack(_ reason: String, also kept: Query) async throws {
        tell(move, "there is no way back any more: \(reason)")
        try await drop { $0.name.hasPrefix("hc_mirror") }
        try FaultPoint.reach("move.opened.done")
        try await advance(
            to: .switched, ["wayBackLost": .string(reason)],
            also: [
                kept,
                plane.audit(
                    "tenant.move.way-back-lost", subject: move.slug,
                    detail: ["move": .string("\(move.id.uuid)"), "reason": .string(reason)]),
            ])
    }

    func beginSoak() async throws {
        let soak = move.options.soak
        guard soak > .zero else { return try await advance(to: .closing) }
        try await advance(
            to: .soaking, state: .soaking, [:],
            also: [
                Query(
                    """
                    UPDATE move SET soak_until = clock_timestamp() + $2 * interval '1 ms' WHERE id = $1
                    """, [.id(move.id), .int8(soak.inMilliseconds)])
            ])
    }

    func close() async throws {
        if move.step == .soaking { return try await advance(to: .closing) }
        try await requireArrived()
        try await dropAll()
        try FaultPoint.reach("move.closing.done")
        try await advance(to: .purging)
    }

    /// What was left behind goes only when what came is there, and on every standby of it that is known: one that takes
    /// over must not be the only server that ever had the clinic and has it not. A standby that is away may be just that one,
    /// so it is waited for, until it is back or its slot is removed: nothing but disk is lost by waiting.
    private func requireArrived() async throws {
        let fence = try await fence()
        guard try await fence.arrival(store).isKnown else {
            throw ArrivalForgotten(shard: move.destination)
        }
        while let (standby, bytes) = try await fence.standbyLacks() {
            try lease.require()
            try await wait(
                "a standby of shard \(move.destination) to have what came: \(standby) lacks \(bytes) bytes",
                Mover.lookEvery)
        }
    }

    func purge() async throws {
        try await requireArrived()
        let fence = try await fence()
        if fence.origin.id != move.givenUp { try await purgeOrigin(fence) }
        for shard in try await presentShards() { try await fence.removeBarriers(on: shard) }
        try FaultPoint.reach("move.purging.done")
        try await advance(
            to: .finished, state: move.direction == .forward ? .done : .reverted, [:],
            also: [
                plane.audit(
                    "tenant.move.done", subject: move.slug,
                    detail: [
                        "move": .string("\(move.id.uuid)"),
                        "without": move.givenUp.map { .string($0) } ?? .null,
                    ])
            ])
    }

    private func purgeOrigin(_ fence: MoveFence) async throws {
        try await awaitReaders(fence)
        var reportedAt = plane.clocks.monotonic()
        try await fence.purge(fence.origin) { removed in
            try self.lease.require()
            let now = self.plane.clocks.monotonic()
            guard now - reportedAt > Mover.reportEvery else { return }
            reportedAt = now
            try await self.store.report(self.move, ["purgedRows": .integer(Int64(removed))])
        }
        // A way back that was given up had made it expect the clinic.
        try await fence.dismiss(fence.origin)
    }

    /// Whoever was reading when the clinic left goes on, one statement after the other, and finds what was there.
    private func awaitReaders(_ fence: MoveFence) async throws {
        while true {
            try lease.require()
            let count = try await fence.transactionsFromBefore()
            guard count > 0 else { return }
            try await wait(
                "\(count) transactions on shard \(fence.origin.id) that were under way when the clinic left",
                Mover.lookEvery)
        }
    }

    /// Everything that the move has made, and what processes that were stopped still hold.
    ///
    /// What is on a shard that answers goes, whatever becomes of the other one: a slot that nobody reads keeps the log.
    /// What has been dropped before is dropped once more: a server that took over may have it again.
    func dropAll() async throws {
        let shards = try await shards()
        var failure: (any Error)?
        func withoutFailing(_ work: () async throws -> Void) async throws {
            do {
                try await work()
            } catch let lost as MoveLost {
                throw lost
            } catch {
                failure = failure ?? error
            }
        }
        var known: [Shard] = []
        for shard in try await presentShards() {
            try await withoutFailing {
                try await fence().becomeKnown(on: shard)
                try await MoveWatch.dismiss(of: move, on: shard, plane: plane)
                known.append(shard)
            }
        }
        for object in try await store.objects(of: move.id, withGone: true)
        where known.contains(where: { $0.id == object.shard }) {
            try await withoutFailing { try await drop(object, shards) }
        }
        if let failure { throw failure }
        isKnown = true
    }

    /// Drops what the move has made and says so.
    func drop(_ isWanted: (MoveObject) -> Bool) async throws {
        try await becomeKnown()
        let shards = try await shards()
        for object in try await store.objects(of: move.id)
        where isWanted(object) && object.shard != move.givenUp {
            try await drop(object, shards)
        }
    }

    private func drop(_ object: MoveObject, _ shards: (source: Shard, target: Shard)) async throws {
        try lease.require()
        let isSource = object.shard == shards.source.id
        let other = isSource ? shards.target : shards.source
        try await MoveStream.drop(
            object, of: move, plane: plane, shard: isSource ? shards.source : shards.target,
            other: other.id == move.givenUp ? nil : other)
        try await store.isGone(object)
    }
}
