import HCCore
import HCIO
import HCPostgres
import HCTenancy
import HCTesting
import Testing

@testable import HCControl

@Suite("A move whose process died", .serialized, .onLoop)
@LoopActor
struct MoveSuccessionTests {
    /// Where a mover dies: between steps, between doing and writing down, and at every point of the pause.
    nonisolated private static let deaths = [
        "move.planned", "move.planned.done", "move.reserved.done", "move.published.done",
        "move.slotted",
        "move.slotted.done", "move.subscribed", "move.subscribed.done", "move.copied.done",
        "move.mirrored.done",
        "move.gated", "move.fenced", "move.drained", "move.handed-over", "move.committed",
        "move.committed.done", "move.opened.done", "move.switched", "move.closing.done",
        "move.purging.done",
    ]

    @Test("whoever carries a move on, wherever its process died, ends it", arguments: deaths)
    func death(_ point: String) async throws {
        try await withMoveGround { ground in
            let load = try await MoveLoad.start(ground, writers: 2)
            try FaultPoint.arm("\(point)=fail", perform: { _ in })
            let mover = try await ground.begin(
                ground.plane(), MoveOptions(pauseBudget: .seconds(5), soak: .zero))
            await #expect(throws: FaultPointFailure.self) { try await mover.run() }
            FaultPoint.disarm()
            let move = try await ground.carryOn()
            #expect(move.state == .done, "\(move.progress.text)")
            let before = load.acknowledged.count
            try await Loop.shared.wait { load.acknowledged.count > before + 2 }
            try await load.stop()
            #expect(load.failures == [])
            #expect(try await load.lost(on: ground.shards[1], ground) == 0)
            #expect(try await ground.wrongs(servedBy: "s2", epoch: 2) == [])
        }
    }

    @Test("the way back is whole though the process that turned the stream died, and under writers")
    func deathWhileTurning() async throws {
        try await withMoveGround { ground in
            let load = try await MoveLoad.start(ground)
            try FaultPoint.arm("move.opened.done=fail", perform: { _ in })
            let mover = try await ground.begin(ground.plane())
            await #expect(throws: FaultPointFailure.self) { try await mover.run() }
            FaultPoint.disarm()
            // What is written now goes back by the stream that is there already.
            let before = load.acknowledged.count
            try await Loop.shared.wait { load.acknowledged.count > before + 20 }
            #expect(try await ground.carryOn().state == .soaking)
            let plane = ground.plane()
            #expect(
                try await SoakCheck(plane: plane).run(
                    try await MoveStore(plane: plane).find(named: "sunrise").id) == nil)
            let back = try await MoveService(plane: plane).revert(
                "sunrise", reason: nil, tell: { _, _ in }
            ).run()
            try await load.stop()
            #expect(back.state == .reverted, "\(back.progress.text)")
            #expect(load.failures == [])
            #expect(try await load.lost(on: ground.shards[0], ground) == 0)
            #expect(try await ground.wrongs(servedBy: "s1", epoch: 3) == [])
        }
    }

    @Test("a mover that was stopped and goes on after its successor changes nothing any more")
    func zombie() async throws {
        try await withMoveGround { ground in
            try FaultPoint.arm("move.gated=fail", perform: { _ in })
            let mover = try await ground.begin(ground.plane())
            await #expect(throws: FaultPointFailure.self) { try await mover.run() }
            FaultPoint.disarm()
            let plane = ground.plane()
            let store = MoveStore(plane: plane)
            let zombie = try await store.find(named: "sunrise")
            let registry = ShardRegistry(plane: plane)
            let fence = MoveFence(
                plane: plane, move: zombie, origin: try await registry.find("s1"),
                destination: try await registry.find("s2"))
            try await ground.expireLeases()
            let successor = try #require(try await store.claim(zombie.id, owner: "successor"))
            #expect(successor.attempt == zombie.attempt + 1)
            let other = MoveFence(
                plane: ground.plane(), move: successor, origin: fence.origin,
                destination: fence.destination)
            try await other.reopen()
            // Everything that it could still send.
            #expect(try await fence.gate(deadline: ground.deadline) == false)
            guard case .lost = try await fence.fence(deadline: ground.deadline) else {
                Issue.record("a zombie has fenced")
                return
            }
            #expect(try await fence.handOver(deadline: ground.deadline) == false)
            await #expect(throws: MoveLost.self) { try await fence.reopen() }
            await #expect(throws: MoveLost.self) { try await fence.leave(epoch: 2) }
            #expect(try await store.commit(zombie, [:], deadline: ground.deadline) == nil)
            await #expect(throws: MoveLost.self) { try await store.advance(zombie, to: .committed) }
            try await other.reserve()
            await #expect(throws: MoveLost.self) {
                try await fence.open(epoch: 2, timeline: fence.destination.timeline)
            }
            await #expect(throws: MoveLost.self) { try await fence.reserve() }
            #expect(try await ground.carryOn().state == .soaking)
            #expect(try await ground.wrongs(servedBy: "s2", epoch: 2, soaks: true) == [])
        }
    }

    @Test("a mover that goes on after its successor makes nothing more and takes nothing away")
    func lateObjects() async throws {
        try await withMoveGround { ground in
            try FaultPoint.arm("move.published=fail", perform: { _ in })
            let mover = try await ground.begin(ground.plane())
            await #expect(throws: FaultPointFailure.self) { try await mover.run() }
            FaultPoint.disarm()
            let plane = ground.plane()
            let (store, registry) = (MoveStore(plane: plane), ShardRegistry(plane: plane))
            let zombie = try await store.find(named: "sunrise")
            let (source, target) = (try await registry.find("s1"), try await registry.find("s2"))
            #expect(try await ground.carryOn().state == .soaking)
            let streams = [
                MoveStream(
                    plane: plane, store: store, move: zombie,
                    name: MoveStream.name(zombie, isMirror: false), publisher: source,
                    subscriber: target),
                MoveStream(
                    plane: plane, store: store, move: zombie,
                    name: MoveStream.name(zombie, isMirror: true), publisher: target,
                    subscriber: source),
            ]
            for stream in streams {
                await #expect(throws: MoveLost.self) { try await stream.publish() }
                await #expect(throws: MoveLost.self) { try await stream.makeSlot() }
                await #expect(throws: MoveLost.self) { try await stream.subscribe(copies: false) }
                await #expect(throws: MoveLost.self) { try await stream.makeDurable() }
                await #expect(throws: MoveLost.self) { try await stream.enable() }
                await #expect(throws: MoveLost.self) { try await stream.skip(to: nil) }
                for (kind, shard, other) in [
                    (MoveObject.Kind.publication, stream.publisher, stream.subscriber),
                    (.slot, stream.publisher, stream.subscriber),
                ] {
                    let object = MoveObject(shard: shard.id, kind: kind, name: stream.name)
                    // What is not there is as good as removed, for a zombie too.
                    guard kind != .slot || stream.publisher.id == target.id else { continue }
                    await #expect(throws: MoveLost.self) {
                        try await MoveStream.drop(
                            object, of: zombie, plane: plane, shard: shard, other: other)
                    }
                }
            }
            await #expect(throws: MoveLost.self) { try await streams[1].unsubscribe() }
            #expect(try await ground.wrongs(servedBy: "s2", epoch: 2, soaks: true) == [])
        }
    }

    @Test("rows are removed by the latest attempt only")
    func latePurge() async throws {
        try await withMoveGround { ground in
            try FaultPoint.arm("move.copied=fail", perform: { _ in })
            let mover = try await ground.begin(ground.plane())
            await #expect(throws: FaultPointFailure.self) { try await mover.run() }
            FaultPoint.disarm()
            try await ground.expireLeases()
            let plane = ground.plane()
            let (store, registry) = (MoveStore(plane: plane), ShardRegistry(plane: plane))
            let zombie = try await store.find(named: "sunrise")
            let move = try #require(try await store.claim(zombie.id, owner: "successor"))
            var fence = MoveFence(
                plane: plane, move: move, origin: try await registry.find("s1"),
                destination: try await registry.find("s2"))
            try await fence.reserve()
            fence.move = zombie
            let late = fence
            await #expect(throws: MoveLost.self) { try await late.purge(late.destination) }
            #expect(
                try await ground.psql(
                    ground.shards[1].superuser,
                    "SELECT count(*) FROM practitioner WHERE tenant_id = '\(MoveGround.sunrise)'")
                    == "300")
        }
    }
}
