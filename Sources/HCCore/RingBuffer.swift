/// A queue with a bound: append at the back, take at the front, both in O(1). The memory grows with use
/// up to `capacityMax` elements and is reused.
package struct RingBuffer<Element> {
    package let capacityMax: Int
    private var slots: [Element?] = []
    private var head = 0
    package private(set) var count = 0

    package init(capacityMax: Int) {
        precondition(capacityMax > 0, "a queue has room for something")
        self.capacityMax = capacityMax
    }

    package var isEmpty: Bool { count == 0 }
    package var isFull: Bool { count == capacityMax }
    package var first: Element? { count == 0 ? nil : slots[head] }

    /// The element `offset` places behind the front, `0..<count`.
    package subscript(offset: Int) -> Element {
        precondition(offset >= 0 && offset < count, "beyond the end of the queue")
        guard let element = slots[(head + offset) % slots.count] else {
            preconditionFailure("a counted slot is empty")
        }
        return element
    }

    /// - Returns: false, and the element is not taken, if the queue is full.
    @discardableResult
    package mutating func append(_ element: Element) -> Bool {
        guard count < capacityMax else { return false }
        if count == slots.count { grow() }
        slots[(head + count) % slots.count] = element
        count += 1
        return true
    }

    /// Appends, and makes room by dropping the element at the front, which is returned.
    package mutating func appendDroppingFirst(_ element: Element) -> Element? {
        let dropped = isFull ? popFirst() : nil
        append(element)
        return dropped
    }

    package mutating func popFirst() -> Element? {
        guard count > 0 else { return nil }
        let element = slots[head]
        slots[head] = nil
        head = (head + 1) % slots.count
        count -= 1
        return element
    }

    /// Removes elements in O(n) and keeps the order of the others.
    package mutating func removeAll(where condition: (Element) -> Bool) {
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

    private mutating func grow() {
        let size = min(capacityMax, max(8, slots.count * 2))
        var larger: [Element?] = []
        larger.reserveCapacity(size)
        for offset in 0..<count { larger.append(slots[(head + offset) % slots.count]) }
        larger.append(contentsOf: repeatElement(nil, count: size - count))
        slots = larger
        head = 0
    }
}

extension RingBuffer: Sendable where Element: Sendable {}
