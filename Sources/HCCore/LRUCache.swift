/// A dictionary that holds at most `capacityMax` entries and forgets the least recently used first.
/// All operations are O(1).
package struct LRUCache<Key: Hashable, Value> {
    fileprivate struct Node {
        var key: Key
        var value: Value
        var newer: Int
        var older: Int
    }

    package let capacityMax: Int
    private var positions: [Key: Int] = [:]
    private var nodes: [Node?] = []
    private var free: [Int] = []
    private var newest = -1
    private var oldestPosition = -1

    package init(capacityMax: Int) {
        precondition(capacityMax > 0, "a cache has room for something")
        self.capacityMax = capacityMax
    }

    package var count: Int { positions.count }
    package var isEmpty: Bool { positions.isEmpty }

    /// The value, which is now the most recently used.
    package mutating func find(_ key: Key) -> Value? {
        guard let position = positions[key] else { return nil }
        if position != newest {
            unlink(position)
            linkAsNewest(position)
        }
        return nodes[position]?.value
    }

    /// The value, without touching the order.
    package func peek(_ key: Key) -> Value? {
        positions[key].flatMap { nodes[$0]?.value }
    }

    /// The least recently used entry.
    package var oldest: (key: Key, value: Value)? {
        guard oldestPosition >= 0, let node = nodes[oldestPosition] else { return nil }
        return (node.key, node.value)
    }

    /// Sets a value, most recently used.
    ///
    /// - Returns: the entry that was forgotten to make room, so that its owner can release what it held.
    @discardableResult
    package mutating func insert(_ value: Value, for key: Key) -> (key: Key, value: Value)? {
        if let position = positions[key] {
            nodes[position]?.value = value
            unlink(position)
            linkAsNewest(position)
            return nil
        }
        let evicted = positions.count == capacityMax ? removeOldest() : nil
        let node = Node(key: key, value: value, newer: -1, older: -1)
        let position: Int
        if let reused = free.popLast() {
            position = reused
            nodes[position] = node
        } else {
            position = nodes.count
            nodes.append(node)
        }
        positions[key] = position
        linkAsNewest(position)
        return evicted
    }

    @discardableResult
    package mutating func remove(_ key: Key) -> Value? {
        guard let position = positions.removeValue(forKey: key) else { return nil }
        return take(position)?.value
    }

    /// Forgets the least recently used entry.
    @discardableResult
    package mutating func removeOldest() -> (key: Key, value: Value)? {
        guard oldestPosition >= 0, let node = take(oldestPosition) else { return nil }
        positions[node.key] = nil
        return (node.key, node.value)
    }

    package mutating func removeAll() {
        self = LRUCache(capacityMax: capacityMax)
    }

    /// Visits every entry, in no order, without touching that of their use. O(n).
    package func forEach(_ body: (Key, Value) -> Void) {
        for case let node? in nodes { body(node.key, node.value) }
    }

    /// Removes entries in O(n).
    package mutating func removeAll(where condition: (Key, Value) -> Bool) {
        for node in nodes {
            if let node, condition(node.key, node.value) { remove(node.key) }
        }
    }

    private mutating func take(_ position: Int) -> Node? {
        unlink(position)
        let node = nodes[position]
        nodes[position] = nil
        free.append(position)
        return node
    }

    private mutating func unlink(_ position: Int) {
        guard let node = nodes[position] else { return }
        if node.newer >= 0 { nodes[node.newer]?.older = node.older } else { newest = node.older }
        if node.older >= 0 {
            nodes[node.older]?.newer = node.newer
        } else {
            oldestPosition = node.newer
        }
    }

    private mutating func linkAsNewest(_ position: Int) {
        nodes[position]?.newer = -1
        nodes[position]?.older = newest
        if newest >= 0 { nodes[newest]?.newer = position }
        newest = position
        if oldestPosition < 0 { oldestPosition = position }
    }
}

extension LRUCache: Sendable where Key: Sendable, Value: Sendable {}
extension LRUCache.Node: Sendable where Key: Sendable, Value: Sendable {}
