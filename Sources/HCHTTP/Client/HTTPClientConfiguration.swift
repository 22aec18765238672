import HCCore

/// What a client may do, and how much of it.
package struct HTTPClientConfiguration: Sendable {
    package var destinations: DestinationPolicy
    /// PEM file of the authorities that servers' certificates are checked against; nil for the system's.
    package var certificateAuthorities: String?
    package var userAgent = "hc"

    /// Transfers at a time, in all and to one origin, and those that wait for one.
    package var transfers = TransferAdmission.Limits()
    /// Connections that are kept while nobody uses them.
    package var idleConnectionsMax = 32
    /// Shorter than the time after which servers close an idle connection (ours: 65 s): a request on a connection
    /// that is just being closed may not be repeated.
    package var idleTimeout: Duration = .seconds(50)
    /// So that a changed address is noticed.
    package var connectionLifetimeMax: Duration = .seconds(600)
    /// TCP and TLS, besides the deadline.
    package var connectTimeout: Duration = .seconds(5)
    package var resolveTimeout: Duration = .seconds(5)
    /// How long a name's addresses are remembered, and of how many names.
    package var resolveLifetime: Duration = .seconds(15)
    package var resolvedNamesMax = 512

    /// All fields of an answer, the status line among them.
    package var headBytesMax = 64 << 10
    /// Content that waits for a reader, or for the connection: then the other side waits.
    package var bufferBytesMax = 128 << 10

    package var retry = RetryPolicy.Limits()
    package var retryPercent = 10
    package var retryBurst = 10
    /// Nil for none.
    package var breaker: OriginBreaker.Limits? = OriginBreaker.Limits()
    package var breakerOriginsMax = 1024

    package init(_ destinations: DestinationPolicy) {
        self.destinations = destinations
    }

    /// Every problem of the values, in the form "name: what is wrong".
    package func problems() -> [String] {
        var found: [String] = []
        func check(_ holds: Bool, _ text: String) { if !holds { found.append(text) } }
        check(transfers.transfersMax > 0, "transfersMax: must be above 0")
        check(transfers.transfersPerOriginMax > 0, "transfersPerOriginMax: must be above 0")
        check(transfers.queuedMax >= 0, "queuedMax: must not be negative")
        check(transfers.queuedPerOriginMax >= 0, "queuedPerOriginMax: must not be negative")
        check(idleConnectionsMax > 0, "idleConnectionsMax: must be above 0")
        check(headBytesMax >= 1024, "headBytesMax: must be at least 1024")
        check(bufferBytesMax >= 16 << 10, "bufferBytesMax: must be at least 16 KiB")
        check(resolvedNamesMax > 0, "resolvedNamesMax: must be above 0")
        check(breakerOriginsMax > 0, "breakerOriginsMax: must be above 0")
        check(retry.attemptsMax > 0, "attemptsMax: must be above 0")
        check((0...100).contains(retryPercent), "retryPercent: must be 0 to 100")
        check(retryBurst >= 0, "retryBurst: must not be negative")
        for (name, duration) in [
            ("idleTimeout", idleTimeout), ("connectionLifetimeMax", connectionLifetimeMax),
            ("connectTimeout", connectTimeout), ("resolveTimeout", resolveTimeout),
        ] {
            check(duration > .zero, "\(name): must be above 0")
        }
        return found
    }
}
