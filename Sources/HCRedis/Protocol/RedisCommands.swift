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
        beginRun(of: script, keys: call.keys.count, arguments: call.arguments.count)
        for word in call.keys { append(word) }
        for word in call.arguments { append(word) }
        endRun()
    }

    // MARK: A run, word by word

    /// Begins a run of a script: its keys and arguments are to follow, and then `endRun()`.
    package mutating func beginRun(of script: RedisScript, keys: Int, arguments: Int) {
        begin(words: 3 + keys + arguments)
        buffer.append(script.call)
        buffer.append(.integer(keys))
    }

    package mutating func append(_ word: RedisWord) { buffer.append(word.bytes) }
    package mutating func append(_ argument: RedisArgument) { buffer.append(argument) }
    package mutating func append(_ bytes: UnsafeRawBufferPointer) { buffer.append(bulk: bytes) }
    package mutating func endRun() { end() }

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
