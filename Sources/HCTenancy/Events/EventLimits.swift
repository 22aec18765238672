/// Every bound of the event feed. One value per process; the defaults are what is served.
package struct EventLimits: Sendable {
    // MARK: A clinic's stream in Redis

    /// Events that a clinic's stream keeps: the replay window, by number. Redis trims whole nodes of its list, so a
    /// little more may be there.
    package var streamEventsMax = 4096
    /// The replay window by age.
    package var streamAge = Duration.seconds(15 * 60)
    /// A stream to which nothing is added and that nobody reads goes after this. Longer than any session, so that no
    /// socket sees a stream end for quietness.
    package var streamLife = Duration.seconds(24 * 3600)
    /// Ids of events that a stream remembers, so that none is added twice.
    package var rememberedMax = 4096
    /// Events that one resumption is given; who missed more reads everything anew.
    package var replayMax = 1024
    /// One question to Redis.
    package var redisTimeout = Duration.seconds(1)

    // MARK: Publishing

    /// Messages in one script.
    package var publishBatchMax = 64
    /// Messages that wait in a process for Redis; the sweeper takes what is beyond.
    package var waitingMax = 10_000
    /// Published rows are deleted together after this long.
    package var forgetInterval = Duration.milliseconds(500)
    package var forgetBatchMax = 512
    /// Published rows that wait to be deleted; the sweeper takes what is beyond.
    package var forgetWaitingMax = 50_000
    package var forgetTimeout = Duration.seconds(2)

    // MARK: Sweeping

    package var sweepInterval = Duration.seconds(1)
    /// Rows younger than this are left to whoever committed them.
    package var sweepAge = Duration.seconds(1)
    /// Rows that one look at a shard counts.
    package var sweepRowsMax = 10_000
    /// Rows in one transaction, and transactions for one clinic in one sweep.
    package var sweepBatchMax = 256
    package var sweepBatchesMax = 8
    package var sweepTimeout = Duration.seconds(3)

    // MARK: Reading

    /// How long Redis holds a read that finds nothing.
    package var blockTime = Duration.seconds(2)
    /// Between two reads: events of that time come together, and a clinic with many events costs Redis no more
    /// reads than this allows.
    package var readPause = Duration.milliseconds(5)
    /// Entries of one clinic in one read.
    package var readCountMax = 128
    /// Entries of one clinic that wait for delivery; more make a gap, which is told.
    package var inboxMax = 2048
    /// Entries of one clinic that are delivered together, after one look at the sessions.
    package var deliverBatchMax = 128
    /// Events that a subscription holds while its replay is on the way; more make a gap.
    package var heldMax = 256
    /// Ids of events by which a reader notices one that comes again.
    package var recentMax = 1024

    package init() {}
}
