/// The bounds of a pool.
package struct PoolConfiguration: Sendable {
    /// Resources that are opened at the start and kept warm.
    package var softLimit: Int
    /// Resources that there ever are at once, those being opened included.
    package var hardLimit: Int
    /// Resources being opened at once.
    package var connectsInFlightMax: Int
    /// Leases that may be waited for; the next one is refused.
    package var waitersMax: Int
    /// Rest after which a resource above the soft limit is closed.
    package var idleTimeout: Duration
    /// Rest after which a resource is asked whether it still works; nil: never.
    package var keepAliveAfter: Duration?
    /// How long the opening of one resource, and one keep-alive check, may take.
    package var connectTimeout: Duration
    /// Failed rounds of opening in a row after which the circuit opens and leases are refused at once.
    package var failuresUntilOpen: Int
    /// The wait after a failed round: grows from the first to the second, with jitter. While the circuit is open a
    /// round is one try, so the second can be short: for so long leases are refused when the server is back.
    package var backoffInitial: Duration
    package var backoffMaximum: Duration

    package init(
        softLimit: Int = 0,
        hardLimit: Int,
        connectsInFlightMax: Int = 4,
        waitersMax: Int = 1000,
        idleTimeout: Duration = .seconds(60),
        keepAliveAfter: Duration? = .seconds(30),
        connectTimeout: Duration = .seconds(5),
        failuresUntilOpen: Int = 3,
        backoffInitial: Duration = .milliseconds(100),
        backoffMaximum: Duration = .seconds(1)
    ) {
        precondition(
            softLimit >= 0 && hardLimit >= max(1, softLimit), "0 <= soft limit <= hard limit")
        precondition(connectsInFlightMax > 0, "a pool that may not connect stays empty")
        precondition(waitersMax > 0 && failuresUntilOpen > 0, "nobody could ever lease")
        precondition(idleTimeout > .zero && connectTimeout > .zero, "timeouts are above zero")
        precondition(keepAliveAfter.map { $0 > .zero } ?? true, "timeouts are above zero")
        self.softLimit = softLimit
        self.hardLimit = hardLimit
        self.connectsInFlightMax = connectsInFlightMax
        self.waitersMax = waitersMax
        self.idleTimeout = idleTimeout
        self.keepAliveAfter = keepAliveAfter
        self.connectTimeout = connectTimeout
        self.failuresUntilOpen = failuresUntilOpen
        self.backoffInitial = backoffInitial
        self.backoffMaximum = backoffMaximum
    }
}
