/// Writes log lines: one JSON object per line with `time`, `level`, `message` and metadata.
///
/// The message is constant text of the program; what varies is metadata, of a closed list of types. A
/// logger is a small value: `with(_:)` gives one that adds the tenant and the request to every line.
package struct Logger: Sendable {
    package enum Level: Int, Comparable, CaseIterable, Sendable {
        case trace, debug, info, notice, warning, error, critical

        /// As it is written in lines and configuration: `info`.
        package var name: StaticString {
            switch self {
            case .trace: "trace"
            case .debug: "debug"
            case .info: "info"
            case .notice: "notice"
            case .warning: "warning"
            case .error: "error"
            case .critical: "critical"
            }
        }

        package init?(name: String) {
            guard let level = Level.allCases.first(where: { "\($0.name)" == name }) else {
                return nil
            }
            self = level
        }

        package static func < (left: Level, right: Level) -> Bool { left.rawValue < right.rawValue }
    }

    package typealias Metadata = [(StaticString, LogValue)]

    /// Is lent one whole line with its line feed, on the thread that logs. It must not block for long and
    /// must not log.
    package typealias Sink = @Sendable (UnsafeRawBufferPointer) -> Void

    /// Lines below it are not made.
    package var level: Level

    private let now: @Sendable () -> Timestamp
    private let sink: Sink
    private var bound: Metadata = []
    /// `bound` as `,"name":value…`, rendered once.
    private var boundText = ByteBuffer()

    package init(level: Level = .info, clocks: Clocks, sink: @escaping Sink) {
        self.level = level
        self.now = clocks.now
        self.sink = sink
    }

    /// Says nothing to no one: a default for tests and tools.
    package static let silent = Logger(
        level: .critical,
        clocks: Clocks(now: { .epoch }, monotonic: { .zero }),
        sink: { _ in }
    )

    /// A logger whose lines carry `metadata` too. A name that is bound already gets the new value.
    package func with(_ metadata: Metadata) -> Logger {
        var copy = self
        copy.bound =
            bound.filter { old in !metadata.contains { $0.0.isSame(as: old.0) } } + metadata
        copy.boundText = Logger.render(copy.bound)
        return copy
    }

    /// Logs a line if `level` is enabled; else it costs one comparison and `metadata` is not evaluated.
    ///
    /// - Parameter metadata: wins over bound metadata of the same name. `time`, `level` and `message`
    ///   are taken; a name must be given once.
    package func log(
        _ level: Level, _ message: StaticString, _ metadata: @autoclosure () -> Metadata = []
    ) {
        guard level >= self.level else { return }
        emit(level, message, metadata())
    }

    package func isEnabled(_ level: Level) -> Bool { level >= self.level }

    /// Logs a line that is written once for each request: its values go into the line one by one, and no list is made.
    ///
    /// - Parameter add: adds values under names that are not bound; called if `level` is enabled.
    package func log(_ level: Level, _ message: StaticString, adding add: (inout LogLine) -> Void) {
        guard level >= self.level else { return }
        let time = now()
        LogLine.with(
            { line in
                line.begin(level, message, at: time)
                line.append(boundText)
                add(&line)
                line.end()
            }, sink: sink)
    }

    @inline(never)
    private func emit(_ level: Level, _ message: StaticString, _ metadata: Metadata) {
        let time = now()
        var bound = boundText
        if self.bound.contains(where: { Logger.has(metadata, $0.0) }) {
            bound = Logger.render(self.bound.filter { !Logger.has(metadata, $0.0) })
        }
        LogLine.with(
            { line in
                line.begin(level, message, at: time)
                line.append(bound)
                for (name, value) in metadata { line.add(name, value) }
                line.end()
            }, sink: sink)
    }

    /// By places: an element that is taken out counts the reference of its value.
    private static func has(_ metadata: Metadata, _ name: StaticString) -> Bool {
        metadata.indices.contains { metadata[$0].0.isSame(as: name) }
    }

    private static func render(_ metadata: Metadata) -> ByteBuffer {
        var text = ByteBuffer()
        for (name, value) in metadata {
            text.append(UInt8(ascii: ","))
            var writer = JSONWriter(appendingTo: consume text)
            writer.member(name, value)
            text = writer.finish()
        }
        return text
    }
}

extension Logger {
    package func debug(_ message: StaticString, _ metadata: @autoclosure () -> Metadata = []) {
        log(.debug, message, metadata())
    }

    package func info(_ message: StaticString, _ metadata: @autoclosure () -> Metadata = []) {
        log(.info, message, metadata())
    }

    package func notice(_ message: StaticString, _ metadata: @autoclosure () -> Metadata = []) {
        log(.notice, message, metadata())
    }

    package func warning(_ message: StaticString, _ metadata: @autoclosure () -> Metadata = []) {
        log(.warning, message, metadata())
    }

    package func error(_ message: StaticString, _ metadata: @autoclosure () -> Metadata = []) {
        log(.error, message, metadata())
    }

    package func critical(_ message: StaticString, _ metadata: @autoclosure () -> Metadata = []) {
        log(.critical, message, metadata())
    }
}

extension StaticString {
    /// The same text, by its bytes.
    func isSame(as other: StaticString) -> Bool {
        utf8CodeUnitCount == other.utf8CodeUnitCount
            && withUTF8Buffer { left in other.withUTF8Buffer { left.elementsEqual($0) } }
    }
}
