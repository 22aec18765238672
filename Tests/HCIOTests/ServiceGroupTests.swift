import HCCore
import HCTesting
import Testing

@testable import HCIO

@LoopActor private final class Story {
    private(set) var steps: [String] = []
    private var waiting: [(condition: ([String]) -> Bool, waiter: Waiter<Void>)] = []

    func add(_ step: String) {
        steps.append(step)
        for entry in waiting where entry.condition(steps) { entry.waiter.succeed(()) }
    }

    func wait(for step: String) async throws {
        if steps.contains(step) { return }
        let waiter = Waiter<Void>()
        waiting.append(({ $0.contains(step) }, waiter))
        try await waiter.wait(until: .soon)
    }
}

/// A service that does what its test says.
@LoopActor private final class FakeService: Service {
    struct Failure: Error, Equatable {
        let name: String
    }

    enum Life {
        /// Ends in good order when asked.
        case orderly
        /// Ends when `finish` opens, not before.
        case slow
        /// Knows nothing but cancellation.
        case cancelled
        /// Does not even know that.
        case stubborn
    }

    let serviceName: String
    let life: Life
    let story: Story
    let asked = Gate()
    let finish = Gate()
    let failing = Gate()
    var preparation: Gate?
    var preparationFails = false

    init(_ name: String, _ story: Story, _ life: Life = .orderly) {
        serviceName = name
        self.story = story
        self.life = life
    }

    func prepare() async throws {
        if let preparation { try await preparation.wait(until: .never) }
        if preparationFails { throw Failure(name: serviceName) }
        story.add("\(serviceName) prepared")
    }

    func run() async throws {
        story.add("\(serviceName) runs")
        defer { story.add("\(serviceName) ended") }
        switch life {
        case .orderly:
            await asked.wait()
        case .slow, .stubborn:
            await finish.wait()
        case .cancelled:
            try await finish.wait(until: .never)
        }
        if failing.isOpen { throw Failure(name: serviceName) }
    }

    func shutDown(_ running: RunningService) {
        story.add("\(serviceName) asked")
        asked.open()
        if life == .cancelled { running.cancel() }
    }

    /// Ends by itself, with an error.
    func fail() {
        failing.open()
        asked.open()
        finish.open()
    }
}

@Suite(.onLoop) @LoopActor struct ServiceGroupTests {
    @Test("services begin in order and end in the opposite order")
    func order() async throws {
        let story = Story()
        let services = ["one", "two", "three"].map { FakeService($0, story) }
        let group = ServiceGroup(services)
        let running = Loop.shared.spawn {
            await #expect(throws: Never.self) { try await group.run() }
            story.add("over")
        }
        try await story.wait(for: "three runs")
        group.shutDown()
        group.shutDown()
        await running.value
        #expect(
            story.steps == [
                "one prepared", "one runs", "two prepared", "two runs", "three prepared",
                "three runs", "three asked", "three ended", "two asked", "two ended",
                "one asked", "one ended", "over",
            ])
        await #expect(throws: ServiceGroupError.alreadyRun) { try await group.run() }
    }

    @Test("a service does not begin before the one in front of it is prepared")
    func preparation() async throws {
        let story = Story()
        let first = FakeService("one", story)
        let gate = Gate()
        first.preparation = gate
        let group = ServiceGroup([first, FakeService("two", story)])
        let running = Loop.shared.spawn {
            await #expect(throws: Never.self) { try await group.run() }
        }
        try await Loop.shared.lookAround()
        #expect(story.steps.isEmpty)
        gate.open()
        try await story.wait(for: "two runs")
        group.shutDown()
        await running.value
    }

    @Test("a group that is shut down while it begins gives up the preparation, and ends the rest")
    func shutDownWhilePreparing() async throws {
        let story = Story()
        let second = FakeService("two", story)
        second.preparation = Gate()
        let group = ServiceGroup([
            FakeService("one", story), second, FakeService("three", story),
        ])
        let running = Loop.shared.spawn {
            await #expect(throws: Never.self) { try await group.run() }
        }
        try await story.wait(for: "one runs")
        group.shutDown()
        await running.value
        #expect(story.steps == ["one prepared", "one runs", "one asked", "one ended"])
    }

    @Test("the first failure ends all, and is the group's")
    func failure() async throws {
        let story = Story()
        let services = ["one", "two", "three"].map { FakeService($0, story) }
        let group = ServiceGroup(services)
        let running = Loop.shared.spawn {
            await #expect(throws: FakeService.Failure(name: "two")) { try await group.run() }
        }
        try await story.wait(for: "three runs")
        services[1].fail()
        await running.value
        #expect(
            Array(story.steps.suffix(5)) == [
                "two ended", "three asked", "three ended", "one asked", "one ended",
            ])
    }

    @Test("a preparation that fails ends what was begun, and nothing more begins")
    func failedPreparation() async throws {
        let story = Story()
        let second = FakeService("two", story)
        second.preparationFails = true
        let group = ServiceGroup([
            FakeService("one", story), second, FakeService("three", story),
        ])
        await #expect(throws: FakeService.Failure(name: "two")) { try await group.run() }
        #expect(story.steps == ["one prepared", "one runs", "one asked", "one ended"])
    }

    @Test("a service that ends by itself without an error is a failure too")
    func endedEarly() async throws {
        let story = Story()
        let service = FakeService("one", story)
        let group = ServiceGroup([service])
        let running = Loop.shared.spawn {
            await #expect(throws: ServiceGroupError.endedEarly("one")) { try await group.run() }
        }
        try await story.wait(for: "one runs")
        service.asked.open()
        await running.value
    }

    @Test("cancelling the group's task shuts down in good order")
    func cancelled() async throws {
        let story = Story()
        let group = ServiceGroup([FakeService("one", story), FakeService("two", story, .cancelled)])
        let running = Loop.shared.spawn {
            await #expect(throws: CancellationError.self) { try await group.run() }
        }
        try await story.wait(for: "two runs")
        running.cancel()
        await running.value
        #expect(
            Array(story.steps.suffix(4)) == ["two asked", "two ended", "one asked", "one ended"])
    }

    @Test("who does not end in time is cancelled, and who does not care is named")
    func deadline() async throws {
        let story = Story()
        let stubborn = FakeService("stubborn", story, .stubborn)
        let group = ServiceGroup(
            [FakeService("one", story, .cancelled), stubborn],
            limits: .init(
                shutDownWithin: .milliseconds(2), cancelWithin: .milliseconds(2)))
        let running = Loop.shared.spawn {
            await #expect(throws: ServiceGroupError.doNotEnd(["stubborn"])) {
                try await group.run()
            }
        }
        try await story.wait(for: "stubborn runs")
        group.shutDown()
        await running.value
        #expect(story.steps.contains("one ended"))
        #expect(!story.steps.contains("one asked"))
        stubborn.finish.open()
    }

    @Test("a slow service has until the deadline")
    func slow() async throws {
        let story = Story()
        let slow = FakeService("slow", story, .slow)
        let group = ServiceGroup([FakeService("one", story), slow])
        let running = Loop.shared.spawn {
            await #expect(throws: Never.self) { try await group.run() }
        }
        try await story.wait(for: "slow runs")
        group.shutDown()
        try await story.wait(for: "slow asked")
        try await Loop.shared.lookAround()
        #expect(!story.steps.contains("one asked"))
        slow.finish.open()
        await running.value
        #expect(Array(story.steps.suffix(3)) == ["slow ended", "one asked", "one ended"])
    }

    @Test("a service without an ending of its own is cancelled")
    func byCancellation() async throws {
        @LoopActor final class Plain: Service {
            let hasBegun = Gate()
            func run() async throws {
                hasBegun.open()
                try await Loop.shared.sleep(until: .never)
            }
        }
        let plain = Plain()
        #expect(plain.serviceName == "Plain")
        let group = ServiceGroup([plain])
        let running = Loop.shared.spawn {
            await #expect(throws: Never.self) { try await group.run() }
        }
        await plain.hasBegun.wait()
        group.shutDown()
        await running.value
    }
}
