import HCCore
import Testing

@testable import HCRedis

private typealias Machine = RedisConnectionMachine<Int>

@Suite("a connection without its socket")
struct RedisConnectionMachineTests {
    private static let start = MonotonicTime(nanoseconds: 1_000_000_000)

    private static func configuration() -> RedisConfiguration {
        var configuration = RedisConfiguration(password: Sensitive("secret"))
        configuration.database = 3
        configuration.inFlightMax = 4
        configuration.unsentBytesMax = 1000
        return configuration
    }

    private static func ready(
        _ change: (inout RedisConfiguration) -> Void = { _ in }
    ) throws -> Bench {
        var configuration = configuration()
        change(&configuration)
        let machine = Bench(configuration: configuration)
        machine.connected(at: start)
        machine.didWrite(machine.output.readableCount)
        #expect(try machine.events("+OK\r\n+OK\r\n+OK\r\n") == ["ready"])
        return machine
    }

    @Test("the handshake names password, database and client, and is done with its last reply")
    func handshake() throws {
        let machine = Bench(configuration: Self.configuration())
        #expect(throws: Machine.Refusal.unavailable) { try machine.submit([["PING"]]) { $0 } }
        machine.connected(at: Self.start)
        #expect(
            machine.output.string == "*2\r\n$4\r\nAUTH\r\n$6\r\nsecret\r\n"
                + "*2\r\n$6\r\nSELECT\r\n$1\r\n3\r\n"
                + "*3\r\n$6\r\nCLIENT\r\n$7\r\nSETNAME\r\n$2\r\nhc\r\n")
        #expect(try machine.events("+OK\r\n") == [])
        #expect(machine.state == .handshaking(missing: 2))
        #expect(throws: Machine.Refusal.unavailable) { try machine.submit([["PING"]]) { $0 } }
        #expect(try machine.events("+OK\r\n+OK\r\n") == ["ready"])
        #expect(machine.state == .ready)
    }

    @Test("without password and database only the name is sent; a user goes before the password")
    func shortHandshake() throws {
        let machine = Bench(configuration: RedisConfiguration())
        machine.connected(at: Self.start)
        #expect(machine.output.string == "*3\r\n$6\r\nCLIENT\r\n$7\r\nSETNAME\r\n$2\r\nhc\r\n")
        let other = Bench(
            configuration: RedisConfiguration(username: "hc", password: Sensitive("p")))
        other.connected(at: Self.start)
        #expect(other.output.string.hasPrefix("*3\r\n$4\r\nAUTH\r\n$2\r\nhc\r\n$1\r\np\r\n"))
    }

    @Test("a refused handshake ends the connection", arguments: ["WRONGPASS", "NOAUTH", "LOADING"])
    func refusedHandshake(code: String) throws {
        let machine = Bench(configuration: Self.configuration())
        machine.connected(at: Self.start)
        let error = RedisServerError(line: "\(code) no")
        #expect(throws: Machine.Failure.refused(error)) {
            try machine.events("+OK\r\n-\(code) no\r\n")
        }
    }

    @Test("each reply goes to the command it answers, wherever the stream is cut")
    func order() throws {
        let wire = Array(":1\r\n$3\r\na\r\n\r\n-ERR no\r\n*2\r\n:1\r\n$-1\r\n".utf8)
        for first in 0...wire.count {
            for second in stride(from: first, through: wire.count, by: 3) {
                let machine = try Self.ready()
                _ = try machine.submit([["A"], ["B"]]) { $0 }
                _ = try machine.submit([["C"], ["D"]]) { $0 + 2 }
                var events: [String] = []
                for piece in [wire[..<first], wire[first..<second], wire[second...]] {
                    events += try machine.events(piece)
                }
                #expect(
                    events == ["0 integer", "1 bytes(3)", "2 error(ERR)", "3 array(2)"],
                    "cut at \(first) and \(second)")
                #expect(machine.inFlight == 0)
            }
        }
    }

    @Test("commands beyond the bound are refused, all or none, until replies come")
    func overload() throws {
        let machine = try Self.ready()
        _ = try machine.submit([["A"], ["B"], ["C"]]) { $0 }
        #expect(throws: Machine.Refusal.overloaded) { try machine.submit([["D"], ["E"]]) { $0 } }
        #expect(machine.inFlight == 3)
        _ = try machine.submit([["D"]]) { _ in 3 }
        #expect(throws: Machine.Refusal.overloaded) { try machine.submit([["E"]]) { $0 } }
        #expect(try machine.events(":1\r\n") == ["0 integer"])
        _ = try machine.submit([["E"]]) { _ in 4 }
    }

    @Test("bytes that the stream does not take are bounded too")
    func unsentBytes() throws {
        let machine = try Self.ready()
        let large = [RedisArgument.bytes([UInt8](repeating: 0, count: 1001))]
        _ = try machine.submit([large]) { $0 }
        #expect(throws: Machine.Refusal.overloaded) { try machine.submit([["A"]]) { $0 } }
        machine.didWrite(machine.output.readableCount)
        _ = try machine.submit([["A"]]) { $0 }
    }

    @Test("a lost connection tells which commands may have run")
    func lost() throws {
        let machine = try Self.ready()
        let first = try machine.submit([["A"], ["B"]]) { $0 }
        machine.didWrite(8)
        let third = try machine.submit([["C"]]) { _ in 2 }
        #expect(machine.wasSent(first))
        #expect(!machine.wasSent(third))
        // "*1 $1 A" has 11 bytes: of the first command 8 went out, of the others none.
        let lost = machine.close()
        #expect(lost.map(\.ticket) == [0, 1, 2])
        #expect(lost.map(\.wasSent) == [true, false, false])
        #expect(machine.close().isEmpty)
        #expect(throws: Machine.Refusal.unavailable) { try machine.submit([["D"]]) { $0 } }
        #expect(try machine.events(":1\r\n") == [])
    }

    @Test("a reply that nobody asked for ends the connection")
    func unsolicited() throws {
        let machine = try Self.ready()
        #expect(throws: Machine.Failure.unsolicitedReply) { try machine.events("+hello\r\n") }
        let other = Bench(configuration: Self.configuration())
        #expect(throws: Machine.Failure.unsolicitedReply) { try other.events("+hello\r\n") }
    }

    @Test("bytes that are no reply, or too many of them, end the connection")
    func malformed() throws {
        let machine = try Self.ready()
        _ = try machine.submit([["A"]]) { $0 }
        #expect(throws: Machine.Failure.malformedReply) { try machine.events("nonsense\r\n") }
        let small = try Self.ready { $0.replyBytesMax = 32 }
        _ = try small.submit([["A"]]) { $0 }
        #expect(throws: Machine.Failure.replyTooLarge) {
            try small.events("$100\r\n" + String(repeating: "x", count: 50))
        }
    }

    @Test("commands without reply in succession, and silence, make the connection unresponsive")
    func timeouts() throws {
        let machine = try Self.ready {
            $0.timeoutsMax = 3
            $0.silenceMin = .milliseconds(100)
        }
        let late = Self.start + .seconds(1)
        #expect(!machine.didTimeOut(at: late))
        #expect(!machine.didTimeOut(at: late))
        // A reply, even to somebody else, proves that it is alive.
        _ = try machine.submit([["A"]]) { $0 }
        _ = try machine.events(":1\r\n", at: late)
        #expect(!machine.didTimeOut(at: late))
        #expect(!machine.didTimeOut(at: late))
        // Many at once after a stall of our own are not silence.
        #expect(!machine.didTimeOut(at: late + .milliseconds(99)))
        #expect(machine.didTimeOut(at: late + .milliseconds(100)))
    }

    @Test("silence is asked with PING, and no answer is an answer")
    func keepAlive() throws {
        let machine = try Self.ready {
            $0.keepAliveInterval = .seconds(15)
            $0.keepAliveTimeout = .seconds(2)
        }
        let due = Self.start + .seconds(15)
        #expect(machine.keepAlive(at: Self.start) == .idle(until: due))
        #expect(machine.keepAlive(at: due) == .ping(until: due + .seconds(2)))
        #expect(machine.output.string == "*1\r\n$4\r\nPING\r\n")
        #expect(machine.keepAlive(at: due + .seconds(1)) == .idle(until: due + .seconds(2)))
        let answered = due + .seconds(1)
        #expect(try machine.events("+PONG\r\n", at: answered) == [])
        #expect(
            machine.keepAlive(at: due + .seconds(2)) == .idle(until: answered + .seconds(15)))
        let again = answered + .seconds(15)
        #expect(machine.keepAlive(at: again) == .ping(until: again + .seconds(2)))
        #expect(machine.keepAlive(at: again + .seconds(2)) == .unresponsive)
    }

    @Test("a PING between commands does not shift their replies, even when there is no room")
    func pingAmongCommands() throws {
        let machine = try Self.ready()
        _ = try machine.submit([["A"], ["B"], ["C"], ["D"]]) { $0 }
        let due = Self.start + .seconds(15)
        #expect(machine.keepAlive(at: due) == .ping(until: due + .seconds(2)))
        #expect(
            try machine.events(":1\r\n:2\r\n:3\r\n:4\r\n+PONG\r\n").count == 4)
        _ = try machine.submit([["E"]]) { _ in 9 }
        #expect(try machine.events(":5\r\n") == ["9 integer"])
    }
}

/// The machine in a box: `#expect` cannot hold what is not copyable.
private final class Bench {
    private var machine: Machine

    init(configuration: RedisConfiguration) {
        machine = Machine(configuration: configuration)
    }

    var state: Machine.State { machine.state }
    var output: ByteBuffer { machine.output }
    var inFlight: Int { machine.inFlight }

    func connected(at now: MonotonicTime) { machine.connected(at: now) }
    func didWrite(_ count: Int) { machine.didWrite(count) }
    func wasSent(_ offset: UInt64) -> Bool { machine.wasSent(offset) }
    func didTimeOut(at now: MonotonicTime) -> Bool { machine.didTimeOut(at: now) }
    func keepAlive(at now: MonotonicTime) -> Machine.KeepAlive { machine.keepAlive(at: now) }
    func close() -> [Machine.Lost] { machine.close() }

    func submit(
        _ commands: [[RedisArgument]], _ ticket: (Int) -> Int
    ) throws(Machine.Refusal) -> UInt64 {
        try machine.submit(RedisCommands(commands), ticket)
    }

    /// What these bytes make known, as words.
    func events(
        _ bytes: ArraySlice<UInt8>,
        at now: MonotonicTime = MonotonicTime(nanoseconds: 1_000_000_000)
    ) throws -> [String] {
        try Array(bytes).withUnsafeBytes { try machine.receive($0, at: now) }
        var events: [String] = []
        while let event = try machine.next() {
            switch event {
            case .ready: events.append("ready")
            case .reply(let ticket, let value): events.append("\(ticket) \(value)")
            }
        }
        return events
    }

    func events(
        _ text: String, at now: MonotonicTime = MonotonicTime(nanoseconds: 1_000_000_000)
    ) throws -> [String] {
        try events(Array(text.utf8)[...], at: now)
    }
}
