import HCCore
import HCIO
import HCTesting
import Testing

@testable import HCControl

@Suite("A command reaches clinics", .onLoop)
@LoopActor
struct ControlDoorTests {
    @Test("a Redis that is not there is waited for once, however many clinics a command looks at")
    func waitsOnce() async throws {
        try await withGround { ground in
            let door = try ground.plane("ann").controlDoor()
            await door.prepare(deadline: .after(.milliseconds(1), from: Loop.now))
            let patience = ground.deadline
            await door.prepare(deadline: patience)
            #expect(!patience.isExpired(at: Loop.now), "it was waited for again")
        }
    }
}
