import HCCore
import Testing

@testable import HCApp

@Suite struct UpgradeStateMachineTests {
    private let now = MonotonicTime(nanoseconds: 0)

    @Test("a program that passes its check replaces ours after the operators are answered")
    func replaces() {
        var machine = UpgradeStateMachine()
        #expect(machine.requested(now: now) == [.check(.file)])
        #expect(machine.isBusy)
        #expect(machine.checked(.accepted, now: now) == [.quiesce])
        #expect(machine.quiesced(now: now) == [.replace(.file)])
    }

    @Test("a program that is refused changes nothing, and another may be tried")
    func refused() {
        var machine = UpgradeStateMachine()
        _ = machine.requested(now: now)
        #expect(
            machine.checked(.refused("no"), now: now) == [.logRefusal(.file, reason: "no")])
        #expect(!machine.isBusy)
        #expect(machine.requested(now: now) == [.check(.file)])
    }

    @Test("when the kernel refuses, the operator listener opens again and all goes on")
    func replaceFails() {
        var machine = UpgradeStateMachine()
        _ = machine.requested(now: now)
        _ = machine.checked(.accepted, now: now)
        _ = machine.quiesced(now: now)
        #expect(
            machine.replaceFailed("ENOEXEC") == [.reopen, .logRefusal(.file, reason: "ENOEXEC")])
        #expect(machine.requested(now: now) == [.check(.file)])
    }

    @Test("a check that does not end is killed")
    func checkHangs() {
        var machine = UpgradeStateMachine(checkPatience: .seconds(30))
        _ = machine.requested(now: now)
        #expect(machine.tick(now: now + .seconds(29)) == [])
        #expect(machine.tick(now: now + .seconds(30)) == [.killCheck])
        #expect(
            machine.checked(.refused("signal 9"), now: now + .seconds(30))
                == [.logRefusal(.file, reason: "signal 9")])
    }

    @Test("asked again meanwhile, it checks again: the file may be another by now")
    func askedAgain() {
        var machine = UpgradeStateMachine()
        _ = machine.requested(now: now)
        #expect(machine.requested(now: now) == [])
        #expect(machine.checked(.accepted, now: now) == [.check(.file)])
        #expect(machine.checked(.accepted, now: now) == [.quiesce])
        #expect(machine.requested(now: now) == [])
        #expect(machine.quiesced(now: now) == [.reopen, .check(.file)])
        #expect(machine.checked(.accepted, now: now) == [.quiesce])
        #expect(machine.quiesced(now: now) == [.replace(.file)])
    }

    @Test("SIGTERM ends an upgrade wherever it is, and none begins after it")
    func terminated() {
        var checking = UpgradeStateMachine()
        _ = checking.requested(now: now)
        #expect(checking.terminated() == [.killCheck])
        #expect(checking.checked(.accepted, now: now) == [])
        #expect(checking.requested(now: now) == [])

        var quiescing = UpgradeStateMachine()
        _ = quiescing.requested(now: now)
        _ = quiescing.checked(.accepted, now: now)
        #expect(quiescing.terminated() == [.reopen])
        #expect(quiescing.quiesced(now: now) == [])
    }

    @Test("the program before is put back the same way")
    func reverts() {
        var machine = UpgradeStateMachine()
        #expect(machine.revertRequested(now: now) == [.check(.previous)])
        #expect(machine.checked(.accepted, now: now) == [.quiesce])
        #expect(machine.quiesced(now: now) == [.replace(.previous)])
    }
}

@Suite struct UpgradeStateTests {
    private static func sample() -> UpgradeState {
        let time = MonotonicTime(nanoseconds: 123)
        func worker(
            _ process: Int32, _ slot: Int, _ role: SupervisorStateMachine.Role,
            _ health: SupervisorStateMachine.Health
        ) -> UpgradeState.Worker {
            UpgradeState.Worker(
                member: SupervisorStateMachine.Member(
                    slot: slot, role: role,
                    worker: SupervisorStateMachine.Worker(
                        process: process, startedAt: time, generation: 2, health: health,
                        hasServed: role == .active)),
                channel: 20 + process, received: Array("{\"kind\":\"é".utf8), unsent: [0, 255],
                heartbeat: role == .active
                    ? WorkerMessage.Heartbeat(
                        residentBytes: 1, lagMicroseconds: 2, connections: 3, isServing: true,
                        refusals: .init(control: "no", shards: [(id: "s1", reason: "too old")]))
                    : nil, metrics: nil)
        }
        return UpgradeState(
            nonce: "a1b2", path: "/opt/hc/hc-server", configurationFile: "/etc/hc.json",
            configuration: 9,
            sockets: [
                .init(role: .http, slot: 0, address: "127.0.0.1:80", descriptor: 5),
                .init(role: .http, slot: 1, address: "127.0.0.1:80", descriptor: 6),
                .init(role: .operations, slot: 0, address: "127.0.0.1:81", descriptor: 7),
            ], previous: UpgradeState.Program(file: 10, configuration: 11), generation: 2,
            workers: [
                worker(1, 0, .active, .ready(lastHeartbeat: time)),
                worker(2, 0, .successor, .starting(deadline: time)),
                worker(3, 1, .active, .draining(deadline: time)), worker(4, 1, .retiring, .killed),
            ], totals: MetricsSnapshot())
    }

    /// The document with one piece of text replaced by another.
    private func changed(_ text: String, _ replacement: String) -> [UInt8] {
        let document = String(decoding: UpgradeStateTests.sample().bytes, as: UTF8.self)
        precondition(document.contains(text), "\(document)")
        return Array(document.replacing(text, with: replacement, maxReplacements: 1).utf8)
    }

    @Test("what one program writes another reads, half a message included")
    func roundTrip() throws {
        let state = UpgradeStateTests.sample()
        let read = try UpgradeState(state.bytes)
        #expect(read == state)
        #expect(
            read.descriptors.sorted() == [5, 6, 7, 9, 10, 11, 21, 22, 23, 24])
        #expect(read.answer.contains("a1b2"))
    }

    @Test("another version is refused by its number")
    func version() {
        #expect(
            throws: UpgradeStateError(
                description: "the state has version 2; this program understands 1")
        ) { try UpgradeState(changed(#""version":1"#, #""version":2"#)) }
    }

    @Test("members of a later release are skipped")
    func unknownMember() throws {
        let read = try UpgradeState(changed(#""nonce""#, #""later":{"a":[1]},"nonce""#))
        #expect(read == UpgradeStateTests.sample())
    }

    @Test(
        "what no supervisor writes is refused",
        arguments: [
            (#""nonce":"a1b2""#, #""nonce":7"#), (#""slot":1"#, #""slot":7"#),
            (#""descriptor":5"#, #""descriptor":1"#), (#""role":"http""#, #""role":"gopher""#),
            (#""role":"successor""#, #""role":"active""#),
            (#""health":"killed""#, #""health":"x""#),
            (#""unsent":"00ff""#, #""unsent":"0"#), (#""generation":2"#, #""generation":"2""#),
        ])
    func refused(text: String, replacement: String) {
        #expect(throws: UpgradeStateError.self) {
            try UpgradeState(changed(text, replacement))
        }
    }

    @Test("a message of another release is not the end of a channel; what is no message is")
    func unknownMessage() {
        guard case .unknown = WorkerMessage(line: Array(#"{"kind":"ticketKeys","x":1}"#.utf8))
        else {
            return #expect(Bool(false))
        }
        #expect(WorkerMessage(line: Array("GET / HTTP/1.1".utf8)) == nil)
        #expect(WorkerMessage(line: Array("{}".utf8)) == nil)
    }

    @Test("of a thousand shards that are refused some are named, and all are counted")
    func refusals() throws {
        let many = WorkerMessage.Refusals(
            control: nil, shards: (1...1000).map { (id: "s\($0)", reason: "too old") })
        #expect(many.shards.count == WorkerMessage.Refusals.shardsMax && many.shardCount == 1000)
        let beat = WorkerMessage.Heartbeat(
            residentBytes: 1, lagMicroseconds: 2, connections: 3, isServing: false, refusals: many)
        guard
            case .heartbeat(let read) = WorkerMessage(
                line: WorkerMessage.heartbeat(beat).line.dropLast())
        else { return #expect(Bool(false)) }
        #expect(read == beat)
    }

    @Test("a line that was cut between two programs is put together again")
    func cutLine() throws {
        let line = WorkerMessage.ready.line
        var before = LineSplitter()
        let first = line[..<7].withUnsafeBytes { before.feed($0) }
        #expect(first == [])
        var after = LineSplitter(rest: before.rest)
        let lines = line[7...].withUnsafeBytes { after.feed($0) }
        #expect(lines == [Array(line.dropLast())])
    }
}
