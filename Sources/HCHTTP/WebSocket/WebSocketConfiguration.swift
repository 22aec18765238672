/// What an endpoint allows and how long it waits.
package struct WebSocketConfiguration: Sendable {
    package var limits = WebSocketLimits()
    /// Sockets at a time; further ones are refused with 503.
    package var socketsMax = 60_000
    /// Nil: permessage-deflate is not offered.
    package var deflate: WebSocketDeflateConfiguration? = WebSocketDeflateConfiguration()
    /// Messages that wait for the handler; then the peer is not read.
    package var inboxMessagesMax = 16
    package var inboxBytesMax = 64 << 10
    /// Messages that wait for the peer. A larger message is sent when nothing else waits.
    package var queueMessagesMax = 256
    package var queueBytesMax = 256 << 10
    /// Pongs that wait for the peer; then it is not read.
    package var pongsMax = 32
    /// Without a byte from the peer for this long, it is asked whether it is there.
    package var pingInterval: Duration = .seconds(30)
    /// And for this long after that: it is gone.
    package var pongTimeout: Duration = .seconds(20)
    /// From our Close frame to the peer's, and from the last byte to the peer's end of the connection. So long the
    /// handler may also go on with what came before the peer's Close frame.
    package var closeTimeout: Duration = .seconds(5)
    /// Without a byte taken by the peer while something waits for it: the connection is cut.
    package var writeStallTimeout: Duration = .seconds(30)
    /// What a client that is sent away is told to wait before it comes again, evenly spread, so that they do not
    /// all come at once.
    package var retryAfter: ClosedRange<Duration> = .milliseconds(500) ... .seconds(10)
    /// How fine timeouts are: they strike up to this much late.
    package var timeoutResolution: Duration = .seconds(1)

    package init() {}

    /// Every problem of the values, in the form "name: what is wrong".
    package func problems() -> [String] {
        var found = deflate?.problems() ?? []
        func check(_ holds: Bool, _ text: String) { if !holds { found.append(text) } }
        check(limits.messageBytesMax > 0, "limits.messageBytesMax: must be above 0")
        check(limits.messageBytesMax <= 1 << 30, "limits.messageBytesMax: must be at most 1 GiB")
        check(limits.frameBytesMax > 0, "limits.frameBytesMax: must be above 0")
        check(limits.emptyFragmentsMax >= 0, "limits.emptyFragmentsMax: must not be negative")
        check(inboxMessagesMax > 0, "inboxMessagesMax: must be above 0")
        check(inboxBytesMax > 0, "inboxBytesMax: must be above 0")
        check(queueMessagesMax > 0, "queueMessagesMax: must be above 0")
        check(queueBytesMax > 0, "queueBytesMax: must be above 0")
        check(pongsMax > 0, "pongsMax: must be above 0")
        check(socketsMax > 0, "socketsMax: must be above 0")
        check(retryAfter.lowerBound >= .zero, "retryAfter: must not be negative")
        for (name, duration) in [
            ("pingInterval", pingInterval), ("pongTimeout", pongTimeout),
            ("closeTimeout", closeTimeout), ("writeStallTimeout", writeStallTimeout),
            ("timeoutResolution", timeoutResolution),
        ] {
            check(duration > .zero, "\(name): must be above 0")
        }
        return found
    }
}
