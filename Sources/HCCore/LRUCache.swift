/// A dictionary that holds at most `capacityMax` entries and forgets the least recently used first.
/// All operations are O(1).
///
/// Its code is made for the types of those who use it, in other modules too: several are asked for every request. The
/// order is kept beside the entries, for it changes with each question and they need not be touched then.
@usableFromInline package struct LRUCache<Key: Hashable, Value> {
    @usableFromInline struct Entry {
        @usableFromInline var key: Key
        @usableFromInline var value: Value

        @inlinable init(key: Key, value: Value) {
            self.key = key
            self.value = value
        }
    }

    /// Positions; -1 is none.
    @usableFromInline struct Link: Sendable {
        @usableFromInline var newer = -1
        @usableFromInline var older = -1

        @inlinable init() {}
    }

    @usableFromInline package let capacityMax: Int
    @usableFromInline var positions: [Key: Int] = [:]
    @usableFromInline var entries: [Entry?] = []
    /// By position, as the entries.
    @usableFromInline var links: [Link] = []
    @usableFromInline var free: [Int] = []
    @usableFromInline var newest = -1
    @usableFromInline var oldestPosition = -1

    @usableFromInline package init(capacityMax: Int) {
        precondition(capacityMax > 0, "a cache has room for something")
        self.capacityMax = capacityMax
    }

    @inlinable package var count: Int { positions.count }
    @inlinable package var isEmpty: Bool { positions.isEmpty }

    /// The value, which is now the most recently used.
    ///
    /// Made where it is used: who only looks at a value that is an object need not count a reference for it.
    @inlinable @inline(__always) package mutating func find(_ key: Key) -> Value? {
        guard let position = use(key) else { return nil }
        return entries[position]?.value
    }

    /// Where the value is, which is now the most recently used.
    @inlinable mutating func use(_ key: Key) -> Int? {
        guard let position = positions[key] else { return nil }
        if position != newest {
            unlink(position)
            linkAsNewest(position)
        }
        return position
    }

    /// The value, without touching the order.
    @inlinable package func peek(_ key: Key) -> Value? {
        guard let position = positions[key] else { return nil }
        return entries[position]?.value
    }

    /// The least recently used entry.
    @inlinable package var oldest: (key: Key, value: Value)? {
        guard oldestPosition >= 0, let entry = entries[oldestPosition] else { return nil }
        return (entry.key, entry.value)
    }

    /// Sets a value, most recently used.
    ///
    /// - Returns: the entry that was forgotten to make room, so that its owner can release what it held.
    @inlinable @discardableResult
    package mutating func insert(_ value: Value, for key: Key) -> (key: Key, value: Value)? {
        if let position = positions[key] {
            entries[position]?.value = value
            unlink(position)
            linkAsNewest(position)
            return nil
        }
        let evicted = positions.count == capacityMax ? removeOldest() : nil
        let position: Int
        if let reused = free.popLast() {
            position = reused
            entries[position] = Entry(key: key, value: value)
        } else {
            position = entries.count
            entries.append(Entry(key: key, value: value))
            links.append(Link())
        }
        positions[key] = position
        linkAsNewest(position)
        return evicted
    }

    @inlinable @discardableResult
    package mutating func remove(_ key: Key) -> Value? {
        guard let position = positions.removeValue(forKey: key) else { return nil }
        return take(position)?.value
    }

    /// Forgets the least recently used entry.
    @inlinable @discardableResult
    package mutating func removeOldest() -> (key: Key, value: Value)? {
        guard oldestPosition >= 0, let entry = take(oldestPosition) else { return nil }
        positions[entry.key] = nil
        return (entry.key, entry.value)
    }

    package mutating func removeAll() {
        self = LRUCache(capacityMax: capacityMax)
    }

    /// Visits every entry, in no order, without touching that of their use. O(n).
    @inlinable package func forEach(_ body: (Key, Value) -> Void) {
        for case let entry? in entries { body(entry.key, entry.value) }
    }

    /// Removes entries in O(n).
    @inlinable package mutating func removeAll(where condition: (Key, Value) -> Bool) {
        for entry in entries {
            if let entry, condition(entry.key, entry.value) { remove(entry.key) }
        }
    }

    @inlinable mutating func take(_ position: Int) -> Entry? {
        unlink(position)
        let entry = entries[position]
        entries[position] = nil
        free.append(position)
        return entry
    }

    @inlinable mutating func unlink(_ position: Int) {
        let link = links[position]
        if link.newer >= 0 { links[link.newer].older = link.older } else { newest = link.older }
        if link.older >= 0 {
            links[link.older].newer = link.newer
        } else {
            oldestPosition = link.newer
        }
    }

    @inlinable mutating func linkAsNewest(_ position: Int) {
        links[position].newer = -1
        links[position].older = newest
        if newest >= 0 { links[newest].newer = position }
        newest = position
        if oldestPosition < 0 { oldestPosition = position }
    }
}

extension LRUCache: Sendable where Key: Sendable, Value: Sendable {}
extension LRUCache.Entry: Sendable where Key: Sendable, Value: Sendable {}
