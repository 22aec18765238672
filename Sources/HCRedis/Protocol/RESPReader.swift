import CHiredis

/// How much of a reply is taken.
struct RESPLimits: Sendable {
    /// All bytes of one reply.
    var replyBytesMax = 64 << 20
    /// Elements of one array.
    var elementsMax = 1 << 20
}

/// Bytes that are no reply, or more of one than we take. The stream cannot be read on after it.
enum RESPError: Error, Equatable {
    case malformed
    case tooLarge
}

/// Reads replies out of pieces of a byte stream: hiredis' `redisReader`, which it owns.
///
/// hiredis calls back for each element as it is parsed, and the value is built in Swift: nothing
/// is allocated by hiredis but its buffer. It bounds the depth itself (7 arrays inside each other).
struct RESPReader: ~Copyable {
    private let reader: UnsafeMutablePointer<redisReader>
    private let builder: RESPBuilder
    private let limits: RESPLimits

    init(limits: RESPLimits = RESPLimits()) {
        // The table is not written to, by hiredis either.
        guard let made = redisReaderCreateWithFunctions(RESPBuilder.functions) else {
            fatalError("redisReaderCreateWithFunctions: out of memory")
        }
        reader = made
        builder = RESPBuilder(limits: limits)
        self.limits = limits
        // The builder lives as long as this value, and so as long as the reader.
        reader.pointee.privdata = Unmanaged.passUnretained(builder).toOpaque()
    }

    deinit { redisReaderFree(reader) }

    /// Takes a copy of `bytes` (redisReaderFeed).
    mutating func feed(_ bytes: UnsafeRawBufferPointer) throws(RESPError) {
        let status = redisReaderFeed(
            reader, bytes.assumingMemoryBound(to: CChar.self).baseAddress, bytes.count)
        guard status == REDIS_OK else { throw .tooLarge }
    }

    /// The next reply (redisReaderGetReply), or nil when more bytes are needed.
    mutating func next() throws(RESPError) -> RESPValue? {
        var reply: UnsafeMutableRawPointer?
        guard redisReaderGetReply(reader, &reply) == REDIS_OK else {
            throw builder.isTooLarge ? .tooLarge : .malformed
        }
        guard reply == nil else { return builder.take() }
        let buffered = reader.pointee.len - reader.pointee.pos
        guard builder.bytes + buffered <= limits.replyBytesMax else { throw .tooLarge }
        return nil
    }
}

/// Puts the elements that hiredis reports, in the order of the stream, together to a value.
private final class RESPBuilder {
    private struct Frame {
        var elements: [RESPValue] = []
        var missing: Int
    }

    private let limits: RESPLimits
    private var frames: [Frame] = []
    private var finished: RESPValue?
    /// Of the reply in the making.
    private(set) var bytes = 0
    private(set) var isTooLarge = false

    init(limits: RESPLimits) {
        self.limits = limits
    }

    func take() -> RESPValue? {
        let value = finished
        finished = nil
        bytes = 0
        return value
    }

    func add(_ value: RESPValue, bytes count: Int = 16) -> UnsafeMutableRawPointer? {
        bytes += count
        guard bytes <= limits.replyBytesMax else { return refuse() }
        var value = value
        while var frame = frames.popLast() {
            frame.elements.append(value)
            frame.missing -= 1
            if frame.missing > 0 {
                frames.append(frame)
                return Self.token
            }
            value = .array(frame.elements)
        }
        finished = value
        return Self.token
    }

    func beginArray(_ count: Int) -> UnsafeMutableRawPointer? {
        guard count > 0 else { return add(.array([])) }
        guard count <= limits.elementsMax else { return refuse() }
        var frame = Frame(missing: count)
        frame.elements.reserveCapacity(min(count, 1024))
        frames.append(frame)
        return Self.token
    }

    /// hiredis takes a null object for a failed allocation, and stops.
    private func refuse() -> UnsafeMutableRawPointer? {
        isTooLarge = true
        return nil
    }

    /// Stands for every object: hiredis wants one that is not null and only hands it back.
    private static var token: UnsafeMutableRawPointer? { UnsafeMutableRawPointer(bitPattern: 1) }

    /// Safe to share: written once, before its first use, and never freed.
    nonisolated(unsafe) static let functions: UnsafeMutablePointer<redisReplyObjectFunctions> = {
        let table = UnsafeMutablePointer<redisReplyObjectFunctions>.allocate(capacity: 1)
        table.initialize(
            to: redisReplyObjectFunctions(
                createString: { task, text, count in
                    guard let task, let builder = RESPBuilder.of(task) else { return nil }
                    let bytes = UnsafeRawBufferPointer(start: text, count: count)
                    let value: RESPValue =
                        switch task.pointee.type {
                        case REDIS_REPLY_ERROR:
                            .error(RedisServerError(line: String(decoding: bytes, as: UTF8.self)))
                        case REDIS_REPLY_STATUS:
                            .simple(String(decoding: bytes, as: UTF8.self))
                        default:
                            .bytes(Array(bytes))
                        }
                    return builder.add(value, bytes: count + 16)
                },
                createArray: { task, count in
                    task.flatMap(RESPBuilder.of)?.beginArray(Int(count))
                },
                createInteger: { task, value in
                    task.flatMap(RESPBuilder.of)?.add(.integer(value))
                },
                createNil: { task in
                    task.flatMap(RESPBuilder.of)?.add(.null)
                },
                freeObject: { _ in }))
        return table
    }()

    /// The builder that `RESPReader` put there and keeps alive.
    private static func of(_ task: UnsafePointer<redisReadTask>) -> RESPBuilder? {
        task.pointee.privdata.map { Unmanaged<RESPBuilder>.fromOpaque($0).takeUnretainedValue() }
    }
}
