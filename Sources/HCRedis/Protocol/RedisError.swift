package import HCCore

/// Why there is no reply to a command.
package enum RedisError: Error, Equatable, Sendable, CustomStringConvertible {
    /// There is no connection now. Nothing was sent.
    case unavailable
    /// Too much is in flight already. Nothing was sent.
    case overloaded
    /// The connection was lost after the command, or a part of it, was sent: it may have run.
    case connectionLost
    /// - Parameter sent: whether the command may have run.
    case deadlineExceeded(sent: Bool)
    /// The task was cancelled.
    case cancelled(sent: Bool)
    /// Redis refused.
    case server(RedisServerError)
    /// A reply of another kind than the command has: the server is not what it should be.
    case unexpectedReply

    /// Whether the command may have had its effect although there is no reply.
    package var mayHaveRun: Bool {
        switch self {
        case .unavailable, .overloaded: false
        case .connectionLost, .unexpectedReply: true
        case .deadlineExceeded(let sent), .cancelled(let sent): sent
        // A script that fails has done what it did before that.
        case .server: true
        }
    }

    package var description: String {
        switch self {
        case .unavailable: "Redis is not connected"
        case .overloaded: "too many Redis commands in flight"
        case .connectionLost: "the connection to Redis was lost before the reply"
        case .deadlineExceeded(let sent):
            sent ? "no reply from Redis in time" : "the deadline passed before the command was sent"
        case .cancelled: "cancelled while waiting for Redis"
        case .server(let error): error.description
        case .unexpectedReply: "Redis gave a reply of another kind than expected"
        }
    }
}

/// An error reply. Its first word is a code, such as `WRONGTYPE`, `NOSCRIPT`, `LOADING`, `OOM`.
package struct RedisServerError: Error, Equatable, Sendable, CustomStringConvertible {
    package let code: String
    /// The whole line. Redis quotes arguments in it, so it is not for logs.
    package let message: Sensitive<String>

    package init(line: String) {
        let word = line.prefix { $0 != " " }
        let isCode =
            !word.isEmpty && word.utf8.count <= 32
            && word.utf8.allSatisfy { (0x41...0x5A).contains($0) || $0 == 0x5F }
        code = isCode ? String(word) : "ERR"
        message = Sensitive(line)
    }

    package var description: String { "Redis replied with error \(code)" }
}
