import HCCore
import HCRedis

/// All buckets of a request, decided in one step: they are charged only if every one of them allows it.
///
/// Redis' own clock counts, so the clocks of processes do not matter. A key that holds something else than a bucket is
/// as one that is not there. Keys: the buckets. The argument is numbers of eight bytes (IEEE 754, little endian): lane,
/// the time in milliseconds since when Redis has known everything (0: always), and for each bucket
/// `BucketShape` (code, capacity, reserve, rate, window, tick, floor), the units that it must give for the request to
/// pass, those that it should give if it has them, and the window from which units are given back. Units that should be
/// given below zero are given back. A bucket whose rule has changed is kept in its new form even if nothing is taken: else it
/// would be changed anew by each question, and gain nothing in between.
///
/// The answer is numbers too: the time in milliseconds, 1 or 0, and for each bucket the units given and its state.
///
/// `BucketState` is the same in Swift; a property test compares the two.
enum LimitScript {
    static let script = RedisScript(
        """
        local clock = redis.call('TIME')
        local ms = clock[1] * 1000 + math.floor(clock[2] / 1000)
        local saved = redis.call('MGET', unpack(KEYS))
        local lane, born, place = struct.unpack('<dd', ARGV[1])
        local floor, min, max = math.floor, math.min, math.max

        local function advance(s, now)
            if s.code == 1 then
                if now > s.at then
                    local full = s.capacity * s.window
                    local elapsed = min(now - s.at, floor(full / s.rate) + 1)
                    s.first = min(full, s.first + elapsed * s.rate)
                end
                s.at = now
                return
            end
            local number = floor(now / s.window)
            if s.code == 2 and number == s.at + 1 then
                s.second = s.first
                s.first = 0
            elseif number > s.at then
                s.second = 0
                s.first = 0
            end
            s.at = number
        end

        local function available(s, kept, now)
            if s.code == 1 then
                return floor(max(0, s.first - kept * s.window) / s.window)
            elseif s.code == 2 then
                local before = s.second * (s.window - (now - s.at * s.window))
                return floor(
                    max(0, (s.capacity - kept - s.first) * s.window - before) / s.window)
            end
            return max(0, s.capacity - kept - s.first)
        end

        local function set(s, left, now)
            s.second = 0
            if s.code == 1 then
                s.first = left * s.window
                s.at = now
            else
                s.first = s.capacity - left
                s.at = floor(now / s.window)
            end
        end

        local function load(s, text, now)
            if not text or #text ~= 56 then
                local left = s.capacity
                if born > 0 then
                    local missing = s.capacity - s.reserve - s.floor
                    local fill = floor(missing * s.window / s.rate) + 1
                    local known = floor(max(0, ms - born) / s.tick)
                    local gained = min(missing, floor(min(known, fill) * s.rate / s.window))
                    left = s.reserve + s.floor + gained
                end
                set(s, left, now)
                return
            end
            local old = {}
            old.code, old.capacity, old.window, old.tick, old.first, old.second, old.at =
                struct.unpack('<ddddddd', text)
            if old.code == s.code and old.window == s.window and old.tick == s.tick then
                s.first, s.second, s.at = old.first, old.second, old.at
                if s.code == 1 then s.first = min(s.first, s.capacity * s.window) end
                return
            end
            local left
            if old.code == 1 then
                left = floor(old.first / old.window)
            else
                local then_ = floor(ms / old.tick)
                advance(old, then_)
                left = available(old, 0, then_)
            end
            set(s, min(left, s.capacity), now)
            s.changed = true
        end

        local states, passes = {}, 1
        for i = 1, #KEYS do
            local s = {}
            s.code, s.capacity, s.reserve, s.rate, s.window, s.tick, s.floor, s.need, s.want, s.since, place =
                struct.unpack('<dddddddddd', ARGV[1], place)
            local now = floor(ms / s.tick)
            load(s, saved[i], now)
            advance(s, now)
            s.now = now
            s.free = available(s, lane == 1 and 0 or s.reserve, now)
            if s.free < s.need then passes = 0 end
            states[i] = s
        end

        local answer = {struct.pack('<dd', ms, passes)}
        for i = 1, #KEYS do
            local s, given = states[i], 0
            if s.want < 0 then
                given = s.want
                if s.code == 1 then
                    s.first = min(s.capacity * s.window, s.first - given * s.window)
                else
                    if s.at == s.since then s.first = max(0, s.first + given) end
                    if s.at == s.since + 1 then s.second = max(0, s.second + given) end
                end
            elseif passes == 1 then
                given = min(s.want, s.free)
                if s.code == 1 then s.first = s.first - given * s.window
                else s.first = s.first + given end
            end
            if given ~= 0 or s.changed then
                local ticks
                if s.code == 1 then
                    ticks = math.ceil((s.capacity * s.window - s.first) / s.rate)
                else
                    ticks = (s.at + (s.code == 2 and 2 or 1)) * s.window - s.now
                end
                redis.call('SET', KEYS[i],
                    struct.pack('<ddddddd', s.code, s.capacity, s.window, s.tick,
                        s.first, s.second, s.at),
                    'PX', string.format('%.0f', ticks * s.tick + 1000))
            end
            answer[i + 1] = struct.pack('<dddd', given, s.first, s.second, s.at)
        end
        return table.concat(answer)
        """)

    /// Says since when Redis has known everything, and whether it is the Redis that this process knew.
    ///
    /// The key holds `<milliseconds>:<random>`: when a process that had known another found none. Arguments: the time
    /// to begin with (0: nothing was lost as far as anybody knows; 1: now), a random number.
    static let birth = RedisScript(
        """
        local clock = redis.call('TIME')
        local ms = clock[1] * 1000 + math.floor(clock[2] / 1000)
        local known = redis.call('GET', KEYS[1])
        if not known then
            known = string.format('%.0f', ARGV[1] == '1' and ms or 0) .. ':' .. ARGV[2]
            redis.call('SET', KEYS[1], known)
        end
        return {ms, known}
        """)
    static let birthKey: StaticString = "hc:limits:birth"

    /// What is asked of one bucket.
    struct Part {
        var shape: BucketShape
        var need: Int64
        var want: Int64
        var since: Int64 = 0
    }

    static func argument(lane: LimitLane, birth: Int64, _ parts: some Collection<Part>) -> [UInt8] {
        [UInt8](unsafeUninitializedCapacity: argumentBytes(parts.count)) { buffer, used in
            used = argumentBytes(parts.count)
            write(lane: lane, birth: birth, parts, to: UnsafeMutableRawBufferPointer(buffer))
        }
    }

    static func argumentBytes(_ parts: Int) -> Int { (2 + 10 * parts) * 8 }

    /// Writes the argument to the beginning of `memory`, which has `argumentBytes`.
    static func write(
        lane: LimitLane, birth: Int64, _ parts: some Collection<Part>,
        to memory: UnsafeMutableRawBufferPointer
    ) {
        precondition(memory.count >= argumentBytes(parts.count), "room for all numbers")
        var used = 0
        func put(_ value: Int64) {
            memory.storeBytes(
                of: Double(value).bitPattern.littleEndian, toByteOffset: used, as: UInt64.self)
            used += 8
        }
        put(Int64(lane.rawValue))
        put(birth)
        for part in parts {
            let shape = part.shape
            put(shape.code)
            put(shape.capacity)
            put(shape.reserve)
            put(shape.rate)
            put(shape.window)
            put(shape.tick)
            put(shape.floor)
            put(part.need)
            put(part.want)
            put(part.since)
        }
    }
}

/// What the script says, or the model of it in tests.
struct LimitAnswer: Equatable {
    struct Part: Equatable {
        var given: Int64
        var state: BucketState
    }

    /// Redis' time in milliseconds.
    var now: Int64
    var passes: Bool
    var parts: [Part]

    /// - Returns: nil for anything but an answer to these questions: whatever answered is not our script.
    init?(_ value: RESPValue, to questions: some Collection<LimitScript.Part>) {
        guard case .bytes(let bytes) = value,
            let answer = bytes.withUnsafeBytes({ LimitAnswer($0, to: questions) })
        else { return nil }
        self = answer
    }

    private init?(_ bytes: UnsafeRawBufferPointer, to questions: some Collection<LimitScript.Part>)
    {
        guard bytes.count == 16 + 32 * questions.count else { return nil }
        func number(_ place: Int) -> Int64? {
            let bits = bytes.loadUnaligned(fromByteOffset: place * 8, as: UInt64.self)
            guard let number = Int64(exactly: Double(bitPattern: UInt64(littleEndian: bits))),
                number.magnitude < 1 << 53
            else { return nil }
            return number
        }
        guard let now = number(0), now > 0, let verdict = number(1), verdict == 0 || verdict == 1
        else { return nil }
        self.now = now
        passes = verdict == 1
        parts = []
        parts.reserveCapacity(questions.count)
        var place = 2
        for question in questions {
            guard let given = number(place), let first = number(place + 1),
                let second = number(place + 2), let at = number(place + 3)
            else { return nil }
            place += 4
            let part = Part(given: given, state: BucketState(first: first, second: second, at: at))
            guard part.state.second >= 0, part.state.at >= 0 else { return nil }
            if question.want < 0 {
                guard part.given == question.want else { return nil }
            } else if passes {
                guard part.given >= question.need, part.given <= question.want else { return nil }
            } else {
                guard part.given == 0 else { return nil }
            }
            parts.append(part)
        }
    }

    init(now: Int64, passes: Bool, parts: [Part]) {
        self.now = now
        self.passes = passes
        self.parts = parts
    }
}
