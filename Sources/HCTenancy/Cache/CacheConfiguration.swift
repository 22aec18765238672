package import HCCore

/// How much is kept in copies, and for how long.
///
/// No life is there for correctness: a copy that a change has made wrong is dropped before the change is
/// committed (`CacheMachine`). Lives bound what is kept of what nobody asks for, and what a defect could do.
package struct CacheConfiguration: Sendable {
    /// Of all clinics in one process; a clinic's own bound is its tier's (`TierCache`).
    package var memoryBytesMax = 64 << 20
    package var memoryEntriesMax = 65_536
    package var memoryLife = Duration.seconds(300)
    package var sharedLife = Duration.seconds(3600)
    package var modelLife = Duration.seconds(86_400)
    /// Of the knowledge that there is nothing.
    package var nothingLife = Duration.seconds(15)
    /// Lives are shortened by up to this part of them, so that copies made together do not end together.
    package var jitterPercent = 10
    /// Larger values are not kept.
    package var valueBytesMax = 1 << 20
    /// From this size on values are compressed for Redis and the database.
    package var compressedFromBytes = 1024
    /// How long an announced change may take before others believe their copies again. A change that takes
    /// longer is announced anew before it is acknowledged.
    package var holdLife = CoherenceLimits.holdLifeMax
    /// What is left of a hold when the commit must have been sent: what PostgreSQL may take for the commit
    /// itself.
    package var holdMargin = Duration.seconds(3)
    /// Redis is not waited for longer than this by a reader.
    package var sharedTimeout = Duration.milliseconds(100)
    /// After a timeout Redis is left alone by readers for as long as this.
    package var sharedPause = Duration.seconds(1)
    /// Readers that wait for one another's reads, in one process.
    package var waitingMax = 16_384

    package init() {}

    /// `memoryMiBMax` and `memoryEntriesMax` of the section `cache`.
    init(_ reader: ConfigurationReader) {
        memoryBytesMax = reader.integer("memoryMiBMax", in: 1...65_536, default: 64) << 20
        memoryEntriesMax = reader.integer(
            "memoryEntriesMax", in: 16...16_777_216, default: memoryEntriesMax)
    }

    /// A life, a little shorter.
    func jittered(_ life: Duration, using random: inout some RandomNumberGenerator) -> Duration {
        let most = life.inMilliseconds * Int64(jitterPercent) / 100
        guard most > 0 else { return life }
        return life - .milliseconds(Int64.random(in: 0...most, using: &random))
    }
}

/// What a program brings for its copies.
package struct CacheSetup: Sendable {
    package var configuration: CacheConfiguration
    package var metrics: CacheMetrics

    package init(
        _ configuration: CacheConfiguration = CacheConfiguration(),
        metrics: CacheMetrics = CacheMetrics(.unread)
    ) {
        self.configuration = configuration
        self.metrics = metrics
    }
}

/// A thing that changes as one: whoever changes it names it, and every copy made of it names it.
package struct CacheTag: Hashable, Sendable, Comparable {
    package let name: String
    /// Counted in the shard database as well, so that read models can depend on it. Costs each change one
    /// more row.
    package let isCounted: Bool

    package static let nameBytesMax = 64

    /// - Parameter name: of the program and of ids; at most 64 bytes of `a-z`, `0-9`, `-` and `:`.
    package init(_ name: String, isCounted: Bool = false) {
        precondition(
            (1...CacheTag.nameBytesMax).contains(name.utf8.count)
                && name.utf8.allSatisfy { CacheTag.isAllowed($0) }, "no name of a tag: \(name)")
        self.name = name
        self.isCounted = isCounted
    }

    /// Held by who cannot reach the copies in Redis: nobody believes those of before.
    static let shared = CacheTag("copies-in-redis")

    private static func isAllowed(_ byte: UInt8) -> Bool {
        (0x61...0x7A).contains(byte) || (0x30...0x39).contains(byte)
            || byte == UInt8(ascii: "-") || byte == UInt8(ascii: ":")
    }

    package static func < (left: CacheTag, right: CacheTag) -> Bool { left.name < right.name }
}

/// What is asked for, and what it depends on.
package struct CacheKey: Sendable, Hashable {
    package static let nameBytesMax = 256
    package static let tagsMax = 8

    /// Within the clinic. Says everything that the value depends on besides the tags.
    package let name: String
    /// Everything whose change changes the value.
    package let tags: [CacheTag]
    let tagNames: [String]
    /// Sealed under the clinic's key wherever it leaves the process' memory.
    package let isSensitive: Bool
    /// Kept in the shard database too: for what takes much more to compute than to read.
    package let isReadModel: Bool

    package init(
        _ name: String, tags: [CacheTag], isSensitive: Bool = false, isReadModel: Bool = false
    ) {
        precondition((1...CacheKey.nameBytesMax).contains(name.utf8.count), "a bounded name")
        precondition((1...CacheKey.tagsMax).contains(tags.count), "1 to 8 tags")
        precondition(
            !isReadModel || tags.allSatisfy(\.isCounted), "a read model depends on counted tags")
        self.name = name
        self.tags = tags.sorted()
        tagNames = self.tags.map(\.name)
        self.isSensitive = isSensitive
        self.isReadModel = isReadModel
    }
}

/// A value that is kept in copies: the bytes of an answer and what names them.
package final class CachedValue: Sendable {
    package let bytes: [UInt8]
    /// Strong (RFC 9110 8.8.3): equal tags, equal bytes.
    package let entityTag: String
    /// Not to be given out from then on, though nothing was changed; nil if time changes nothing.
    package let goodUntil: Timestamp?

    package init(bytes: [UInt8], entityTag: String, goodUntil: Timestamp? = nil) {
        self.bytes = bytes
        self.entityTag = entityTag
        self.goodUntil = goodUntil
    }
}

/// What a copy says.
enum CacheAnswer: Sendable {
    case value(CachedValue)
    /// There is nothing of that name.
    case nothing

    var value: CachedValue? {
        if case .value(let value) = self { value } else { nil }
    }

    var bytesCount: Int {
        value.map { $0.bytes.count + $0.entityTag.utf8.count + 64 } ?? 0
    }

    func isGood(at now: Timestamp) -> Bool {
        guard let end = value?.goodUntil else { return true }
        return now < end
    }
}
