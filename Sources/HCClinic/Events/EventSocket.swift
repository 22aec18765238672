package import HCCore
package import HCIO

/// One connection that carries the protocol of events, as the clinic sees it.
@LoopActor
package protocol EventSocket: AnyObject {
    /// Queues a text message. A socket that cannot take it ends by itself, as too slow.
    func send(_ text: ByteBuffer)

    /// Says good-bye. Nothing is sent after it.
    func close(_ reason: EventCloseReason)
}

/// Why a socket is ended from here. Others end it too: the client, a drain (1012), slowness (1013).
package enum EventCloseReason: UInt16, CaseIterable, Sendable {
    /// The client sends what it must not, again and again.
    case abuse = 1008
    /// It cannot be found out whether the session still lives, or there are too many sockets.
    case tryAgainLater = 1013
    /// The session was ended, or the account may not come in any more: log in.
    case sessionEnded = 4401
    /// The login that opened the socket has lasted its time: come back with a new ticket.
    case ticketExpired = 4408

    package var text: StaticString {
        switch self {
        case .abuse: "policy violation"
        case .tryAgainLater: "try again later"
        case .sessionEnded: "session ended"
        case .ticketExpired: "new ticket required"
        }
    }

    var name: StaticString {
        switch self {
        case .abuse: "abuse"
        case .tryAgainLater: "unavailable"
        case .sessionEnded: "session-ended"
        case .ticketExpired: "expired"
        }
    }
}

/// Bounds of sockets, in one process.
package enum EventSocketLimits {
    /// Topics that one socket follows.
    package static let topicsMax = 64
    /// One message of a client.
    package static let messageBytesMax = 8 << 10
    package static let socketsMax = 20_000
    package static let socketsPerClinicMax = 2000
    package static let socketsPerSessionMax = 8
    /// Requests of one socket: at once, and per second in the long run.
    static let requestsBurst: Int64 = 32
    static let requestsPerSecond: Int64 = 4
    /// A socket with so many refusals in a row that are its own fault is ended.
    static let faultsMax = 32
    /// For one request of a socket.
    static let requestTimeout = Duration.seconds(10)
    /// Sessions of sockets to which nothing happens are looked at this often.
    static let reviewInterval = Duration.seconds(15)
}
