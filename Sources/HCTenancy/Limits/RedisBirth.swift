/// Whether the Redis that answers is the one that this process knew, and if not, since when it knows what it knows.
///
/// A Redis that was restarted has no buckets: each of them would begin full, and everybody's limit with it. So Redis
/// holds a mark, `<milliseconds>:<random>`. A process that begins believes the mark that it finds, and leaves one that
/// says "nothing was lost" (0) where there is none. One that comes back and finds another mark than before knows that
/// the data were lost meanwhile; where it finds none it leaves one with the present time, for the others. Buckets that
/// are missing then count as used up to `BucketShape.floor` at that time.
///
/// What this does not see: a Redis that loses its data while no process that knew it comes back before a new one does.
struct RedisBirth {
    private var mark: String?
    /// Milliseconds of Redis' clock; 0: nothing was lost as far as anybody knows.
    private(set) var since: Int64 = 0

    /// Whether this process has known no Redis yet.
    var isFirst: Bool { mark == nil }

    /// - Parameter now: Redis' time in milliseconds.
    /// - Returns: false for what is no mark.
    mutating func learn(_ mark: String, now: Int64) -> Bool {
        guard let colon = mark.firstIndex(of: ":"), let began = Int64(mark[..<colon]), began >= 0
        else { return false }
        if self.mark == mark { return true }
        since = began == 0 && !isFirst ? now : began
        self.mark = mark
        return true
    }
}
