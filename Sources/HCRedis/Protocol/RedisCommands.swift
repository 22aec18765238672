import HCCore

/// Commands as they are sent, one behind the other: written once, wherever they go from there.
package struct RedisCommands: Sendable {
    private(set) var buffer: ByteBuffer
    /// Where each one ends.
    private(set) var ends: [Int] = []

    /// - Parameter bytes: about as many as are to come.
    package init(reserving bytes: Int = 0) {
        buffer = ByteBuffer(reserving: bytes)
    }

    package init(_ commands: [[RedisArgument]]) {
        self.init()
        for command in commands { append(command) }
    }

    package var count: Int { ends.count }
    package var isEmpty: Bool { ends.isEmpty }

    /// - Precondition: a command has a name.
    package mutating func append(_ command: [RedisArgument]) {
        begin(words: command.count)
        for argument in command { buffer.append(argument) }
        end()
    }

    mutating func append(_ call: RedisScriptCall, of script: RedisScript) {
        begin(words: 3 + call.keys.count + call.arguments.count)
        buffer.append(script.call)
        buffer.append(.integer(call.keys.count))
        for word in call.keys { buffer.append(word) }
        for word in call.arguments { buffer.append(word) }
        end()
    }

    /// Appends a run of a script that has one argument, of `argumentBytes` that `write` fills in.
    ///
    /// In one piece, for it is on the way of requests: each append to a buffer asks whether it is shared and whether
    /// there is room.
    ///
    /// - Parameters:
    ///   - keys: so many.
    ///   - key: by index, `0..<keys`.
    package mutating func appendRun(
        of script: RedisScript, keys: Int, key: (Int) -> RedisWord, argumentBytes: Int,
        argument write: (UnsafeMutableRawBufferPointer) -> Void
    ) {
        var total = script.call.count + argumentBytes + RedisCommands.frameBytesMax
        for index in 0..<keys { total += key(index).bytes.count }
        buffer.appendFixedText(atMost: total) { run in
            run.appendNumber("*", 4 + keys)
            script.call.withUnsafeBytes { run.append($0) }
            run.appendNumber("$", keys < 10 ? 1 : String(keys).utf8.count)
            run.appendNumber("", keys)
            for index in 0..<keys { key(index).bytes.withUnsafeBytes { run.append($0) } }
            run.appendNumber("$", argumentBytes)
            run.append(argumentBytes, write)
            run.append("\r\n")
        }
        end()
    }

    /// Of a run with one argument, all but the script, its keys and the argument: five numbers and what is around them.
    private static let frameBytesMax = 5 * 24

    /// RESP2, "Sending commands to a Redis server": an array of bulk strings.
    private mutating func begin(words: Int) {
        precondition(words > 0, "a command has a name")
        buffer.append(UInt8(ascii: "*"))
        buffer.append(decimal: words)
        buffer.append("\r\n" as StaticString)
    }

    private mutating func end() { ends.append(buffer.readableCount) }

    // MARK: Taking apart

    /// - Parameter index: `0..<count`.
    func bytes(of index: Int) -> ArraySlice<UInt8> {
        buffer.slice[(index == 0 ? 0 : ends[index - 1])..<ends[index]]
    }

    /// Takes one of others over.
    mutating func append(_ index: Int, of others: RedisCommands) {
        buffer.append(others.bytes(of: index))
        end()
    }
}

extension RedisCommands: ExpressibleByArrayLiteral {
    package init(arrayLiteral commands: [RedisArgument]...) { self.init(commands) }
}

/// A word of a command as it is sent: for one that is sent again and again.
package struct RedisWord: Sendable {
    let bytes: [UInt8]

    package init(_ argument: RedisArgument) {
        var buffer = ByteBuffer()
        buffer.append(argument)
        bytes = buffer.bytes
    }
}

extension RedisWord: CustomStringConvertible, CustomReflectable {
    package var description: String { "***" }
    package var customMirror: Mirror { Mirror(self, children: []) }
}

extension RedisCommands: CustomStringConvertible, CustomReflectable {
    package var description: String { "\(count) commands" }
    package var customMirror: Mirror { Mirror(self, children: []) }
}

extension FixedText {
    fileprivate mutating func appendNumber(_ sign: StaticString, _ number: Int) {
        append(sign)
        append(decimal: Int64(number))
        append("\r\n")
    }
}
