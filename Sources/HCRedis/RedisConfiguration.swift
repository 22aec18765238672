package import HCCore
package import HCIO

/// How to reach one Redis, and what it may cost.
package struct RedisConfiguration: Sendable {
    /// Nil for the default user.
    package var username: String?
    package var password: Sensitive<String>?
    package var database = 0
    /// Shown by CLIENT LIST. No blanks.
    package var clientName = "hc"

    /// From the first packet to the last reply of the handshake.
    package var connectTimeout = Duration.seconds(2)
    /// Between two attempts: at first, and at most. Jittered.
    package var backoffInitial = Duration.milliseconds(50)
    package var backoffMax = Duration.seconds(2)
    /// A connection that has lasted for so long was a good one: when it breaks, that is the first failure. What takes
    /// every connection and breaks it is tried as rarely as what takes none.
    package var steadyAfter = Duration.seconds(5)

    /// For the commands under way when the program shuts down.
    package var drainTimeout = Duration.seconds(2)

    /// Commands whose reply has not come, those nobody waits for any more among them.
    package var inFlightMax = 10_000
    /// Bytes that the connection has not taken yet.
    package var unsentBytesMax = 16 << 20
    package var replyBytesMax = 64 << 20

    /// A connection on which nothing was heard for so long is asked with PING.
    package var keepAliveInterval = Duration.seconds(15)
    /// And given up when nothing comes for so long after that.
    package var keepAliveTimeout = Duration.seconds(2)
    /// Given up, too, after so many commands in succession without a reply in time, ...
    package var timeoutsMax = 8
    /// ... if nothing was heard for so long.
    package var silenceMin = Duration.milliseconds(250)

    package init(username: String? = nil, password: Sensitive<String>? = nil) {
        self.username = username
        self.password = password
    }
}

/// Makes the byte stream to Redis: plain today, TLS when its stream is there.
///
/// - Throws: what the attempt failed of; it is tried again.
package typealias RedisConnector = @LoopActor @Sendable (Deadline) async throws -> any ByteStream

/// The ways to a Redis without TLS.
package enum RedisConnectors {
    package static func plain(_ address: SocketAddress) -> RedisConnector {
        { deadline in try await PlainStream.connect(to: address, deadline: deadline) }
    }

    /// The name is resolved for each attempt, in the blocking pool.
    package static func plain(
        host: String, port: UInt16, resolver: BlockingPool
    ) -> RedisConnector {
        { deadline in
            try await PlainStream.connect(
                host: host, port: port, deadline: deadline, resolver: resolver)
        }
    }
}
