/// A queue with a bound: append at the back, take at the front, both in O(1). The memory grows with use
/// up to `capacityMax` elements and is reused.
///
/// Its code is made for the types of those who use it, in other modules too: a command of Redis passes through one.
@usableFromInline package struct RingBuffer<Element> {
    @usableFromInline package let capacityMax: Int
    @usableFromInline var slots: [Element?] = []
    @usableFromInline var head = 0
    @usableFromInline package internal(set) var count = 0

    @usableFromInline package init(capacityMax: Int) {
        precondition(capacityMax > 0, "a queue has room for something")
        self.capacityMax = capacityMax
    }

    @inlinable package var isEmpty: Bool { count == 0 }
    @inlinable package var isFull: Bool { count == capacityMax }
    @inlinable package var first: Element? { count == 0 ? nil : slots[head] }

    /// The element `offset` places behind the front, `0..<count`.
    @inlinable package subscript(offset: Int) -> Element {
        precondition(offset >= 0 && offset < count, "beyond the end of the queue")
        guard let element = slots[place(offset)] else {
            preconditionFailure("a counted slot is empty")
        }
        return element
    }

    /// - Returns: false, and the element is not taken, if the queue is full.
    @inlinable @discardableResult
    package mutating func append(_ element: Element) -> Bool {
        guard count < capacityMax else { return false }
        if count == slots.count { grow() }
        slots[place(count)] = element
        count += 1
        return true
    }

    /// Appends, and makes room by dropping the element at the front, which is returned.
    @inlinable package mutating func appendDroppingFirst(_ element: Element) -> Element? {
        let dropped = isFull ? popFirst() : nil
        append(element)
        return dropped
    }

    @inlinable package mutating func popFirst() -> Element? {
        guard count > 0 else { return nil }
        let element = slots[head]
        slots[head] = nil
        head = place(1)
        count -= 1
        return element
    }

    /// Of the element so many places behind the front, at most as many as there are slots. Without a division, which
    /// is what a turn of the ring would mostly cost.
    @inlinable func place(_ offset: Int) -> Int {
        let place = head + offset
        return place < slots.count ? place : place - slots.count
    }

    /// Removes elements in O(n) and keeps the order of the others.
    @inlinable package mutating func removeAll(where condition: (Element) -> Bool) {
        var kept: [Element?] = []
        kept.reserveCapacity(slots.count)
        while let element = popFirst() {
            if !condition(element) { kept.append(element) }
        }
        count = kept.count
        kept.append(contentsOf: repeatElement(nil, count: slots.count - kept.count))
        slots = kept
        head = 0
    }

    @usableFromInline mutating func grow() {
        let size = min(capacityMax, max(8, slots.count * 2))
        var larger: [Element?] = []
        larger.reserveCapacity(size)
        for offset in 0..<count { larger.append(slots[place(offset)]) }
        larger.append(contentsOf: repeatElement(nil, count: size - count))
        slots = larger
        head = 0
    }
}

extension RingBuffer: Sendable where Element: Sendable {}
