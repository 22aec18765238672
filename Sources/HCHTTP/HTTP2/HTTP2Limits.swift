/// What a client may do on an HTTP/2 connection. Sizes in bytes. What requests have in common with HTTP/1 (the
/// target, the path's segments, the content) is in `HTTP1Limits`.
package struct HTTP2Limits: Sendable {
    /// Something that an honest client does now and then and a flood consists of.
    package struct Rate: Sendable {
        /// So many at once.
        package var burst: Int
        package var perSecond: Int

        package init(burst: Int, perSecond: Int) {
            self.burst = burst
            self.perSecond = perSecond
        }
    }

    /// Requests in progress; above it REFUSED_STREAM. One whose client has reset it counts until its handler is
    /// through, so that resetting frees nothing (CVE-2023-44487).
    package var concurrentStreamsMax = 100
    /// The decoded fields of one request, each with 32 bytes more than its name and value (RFC 9113 6.5.2); above
    /// it 431.
    package var headerListBytesMax = 32 << 10
    /// Fields of one request; above it 431.
    package var headerCountMax = 100
    /// Decoded fields are not even counted further than this: a field block that grows so is an attack.
    package var headerBombBytesMax = 1 << 20
    /// The encoded fields of one request, in HEADERS and CONTINUATION together.
    package var headerBlockBytesMax = 64 << 10
    /// CONTINUATION frames of one field block (CVE-2024-27316).
    package var continuationsMax = 16

    /// Content of one request that its handler has not taken yet.
    package var streamWindowBytes = 256 << 10
    /// Content of all requests of a connection that their handlers have not taken yet. At least 65,535: a
    /// connection begins with that (RFC 9113 6.9.2).
    package var connectionWindowBytes = 512 << 10
    /// Content of one answer that waits to be sent; then its writer waits.
    package var streamOutputBytesMax = 64 << 10

    /// RST_STREAM frames, and requests that had to be reset because they broke a rule.
    package var resets = Rate(burst: 200, perSecond: 20)
    package var settings = Rate(burst: 32, perSecond: 4)
    package var pings = Rate(burst: 200, perSecond: 20)
    package var windowUpdates = Rate(burst: 2000, perSecond: 200)
    /// WINDOW_UPDATE frames that each DATA frame of ours pays for.
    package var windowUpdatesPerDataFrame = 4
    /// PRIORITY and PRIORITY_UPDATE, which are ignored.
    package var priorities = Rate(burst: 500, perSecond: 50)
    /// DATA, HEADERS and CONTINUATION frames that carry nothing and end nothing.
    package var emptyFrames = Rate(burst: 32, perSecond: 4)
    /// Frames of unknown types, and GOAWAY.
    package var unknownFrames = Rate(burst: 100, perSecond: 10)

    /// From the accept to the end of the connection preface, SETTINGS included.
    package var prefaceTimeout: Duration = .seconds(10)
    /// How long requests that cross our GOAWAY are waited for if the client does not answer a PING.
    package var drainRoundTripMax: Duration = .seconds(2)

    package init() {}

    func problems() -> [String] {
        var found: [String] = []
        func check(_ holds: Bool, _ text: String) { if !holds { found.append("http2." + text) } }
        check(
            (1...10_000).contains(concurrentStreamsMax), "concurrentStreamsMax: must be 1 to 10000")
        check(headerListBytesMax >= 256, "headerListBytesMax: must be at least 256")
        check(headerCountMax >= 4, "headerCountMax: must be at least 4")
        check(
            headerBombBytesMax >= headerListBytesMax,
            "headerBombBytesMax: must not be below headerListBytesMax")
        check(headerBlockBytesMax >= 256, "headerBlockBytesMax: must be at least 256")
        check(continuationsMax >= 0, "continuationsMax: must not be negative")
        check(
            (1...(1 << 30)).contains(streamWindowBytes), "streamWindowBytes: must be 1 to 1 GiB")
        check(
            (65_535...(1 << 30)).contains(connectionWindowBytes),
            "connectionWindowBytes: must be 65535 to 1 GiB")
        check(streamOutputBytesMax > 0, "streamOutputBytesMax: must be above 0")
        check(windowUpdatesPerDataFrame >= 0, "windowUpdatesPerDataFrame: must not be negative")
        for (name, rate) in [
            ("resets", resets), ("settings", settings), ("pings", pings),
            ("windowUpdates", windowUpdates), ("priorities", priorities),
            ("emptyFrames", emptyFrames), ("unknownFrames", unknownFrames),
        ] {
            check(rate.burst > 0 && rate.perSecond > 0, "\(name): must be above 0")
        }
        check(prefaceTimeout > .zero, "prefaceTimeout: must be above 0")
        check(drainRoundTripMax > .zero, "drainRoundTripMax: must be above 0")
        return found
    }
}
