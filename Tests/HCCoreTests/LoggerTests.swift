import HCCore
import HCTesting
import Synchronization
import Testing

@Suite("Logs")
struct LoggerTests {
    private final class Lines: Sendable {
        private let lines = Mutex<[String]>([])
        func take(_ line: UnsafeRawBufferPointer) {
            let text = String(decoding: line, as: UTF8.self)
            lines.withLock { $0.append(text) }
        }
        var all: [String] { lines.withLock { $0 } }
    }

    private static func logger(_ lines: Lines, level: Logger.Level = .info) -> Logger {
        Logger(level: level, clocks: ManualClock(now: .epoch).clocks) { lines.take($0) }
    }

    @Test("a line is one JSON object with time, level, message and values of every type")
    func line() throws {
        let lines = Lines()
        let uuid = try #require(UUID("017f22e2-79b0-7cc3-98c4-dc0c0c07398f"))
        Self.logger(lines).log(
            .warning, "it \"happened\"",
            [
                ("text", "a\nb"), ("number", 3), ("ratio", 0.5), ("yes", true), ("id", .uuid(uuid)),
                ("at", .timestamp(.epoch)),
                ("tookMilliseconds", .milliseconds(.microseconds(1250))),
                ("list", .strings(["x", "y"])), ("nothing", .null),
                ("phone", .of(Sensitive("123"))),
                ("also", "phone \(Sensitive("123"))"),
            ])
        #expect(
            lines.all == [
                #"{"time":"1970-01-01T00:00:00Z","level":"warning","message":"it \"happened\"","#
                    + #""text":"a\nb","number":3,"ratio":0.5,"yes":true,"#
                    + #""id":"017f22e2-79b0-7cc3-98c4-dc0c0c07398f","at":"1970-01-01T00:00:00Z","#
                    + #""tookMilliseconds":1.25,"list":["x","y"],"nothing":null,"phone":"***","#
                    + #""also":"phone ***"}"# + "\n"
            ])
    }

    @Test("below the level nothing is made, not even the metadata")
    func levels() {
        let lines = Lines()
        let evaluated = Counter()
        func metadata() -> Logger.Metadata {
            evaluated.increment()
            return [("a", 1)]
        }
        let logger = Self.logger(lines, level: .warning)
        logger.debug("no", metadata())
        logger.info("no", metadata())
        logger.notice("no", metadata())
        #expect(evaluated.value == 0)
        logger.warning("yes", metadata())
        logger.error("yes", metadata())
        logger.critical("yes", metadata())
        #expect(evaluated.value == 3)
        #expect(lines.all.count == 3)
        #expect(!logger.isEnabled(.info) && logger.isEnabled(.error))
    }

    @Test("bound metadata is on every line, and a name is never there twice")
    func binding() throws {
        let lines = Lines()
        let request = Self.logger(lines).with([("tenant", "sunrise"), ("request", "r1")])
        request.info("one")
        request.info("two", [("request", "r2"), ("n", 2)])
        request.with([("tenant", "lakeside")]).info("three")
        let read = try lines.all.map { try JSONReader.parse(Array($0.utf8)) }
        #expect(read.map { $0["tenant"] } == ["sunrise", "sunrise", "lakeside"])
        #expect(read.map { $0["request"] } == ["r1", "r2", "r1"])
        #expect(read[1]["n"] == 2)
    }

    @Test("a line has no bound: each value stands in it whole, wherever it begins")
    func long() throws {
        let lines = Lines()
        let logger = Self.logger(lines).with([("bound", .string(Self.text(700)))])
        let id = try #require(UUID("017f22e2-79b0-7cc3-98c4-dc0c0c07398f"))
        for count in Array(0..<300) + [500, 511, 512, 513, 1023, 1024, 1025, 5000] {
            logger.log(.info, "long") { line in
                line.add("first", Self.text(count))
                line.add("number", -1)
                line.add("quoted", "\"\n")
                line.add("request", RequestID(id))
                line.add("id", .uuid(id))
                line.add("last", Self.text(count))
            }
            let read = try JSONReader.parse(Array(try #require(lines.all.last).utf8))
            #expect(read["bound"] == .string(Self.text(700)))
            #expect(read["first"] == .string(Self.text(count)))
            #expect(read["number"] == -1)
            #expect(read["quoted"] == "\"\n")
            #expect(read["request"] == .string(id.description))
            #expect(read["id"] == .string(id.description))
            #expect(read["last"] == .string(Self.text(count)))
        }
    }

    private static func text(_ count: Int) -> String {
        String(String(repeating: "0123456789", count: count / 10 + 1).prefix(count))
    }

    @Test("levels have names, and the silent logger says nothing")
    func names() {
        for level in Logger.Level.allCases { #expect(Logger.Level(name: "\(level.name)") == level) }
        #expect(Logger.Level(name: "loud") == nil)
        #expect(Logger.Level.debug < .info)
        Logger.silent.critical("nobody hears this")
    }
}
