/// A binary heap: the smallest element first. Insertion and removal cost O(log n), the look is free.
///
/// Equal elements come in no set order: give elements a sequence number where order matters.
/// Inlinable: the loop's timers are compared without witness tables.
package struct PriorityHeap<Element: Comparable> {
    @usableFromInline var elements: [Element] = []

    @inlinable package init() {}

    @inlinable package var count: Int { elements.count }
    @inlinable package var isEmpty: Bool { elements.isEmpty }

    /// The smallest element.
    @inlinable package var first: Element? { elements.first }

    @inlinable package mutating func insert(_ element: Element) {
        elements.append(element)
        siftUp(from: elements.count - 1)
    }

    /// Removes and returns the smallest element.
    @inlinable package mutating func popFirst() -> Element? {
        guard let last = elements.popLast() else { return nil }
        guard let first = elements.first else { return last }
        elements[0] = last
        siftDown(from: 0)
        return first
    }

    /// Removes the smallest element if `condition` holds for it.
    @inlinable package mutating func popFirst(if condition: (Element) -> Bool) -> Element? {
        guard let first = elements.first, condition(first) else { return nil }
        return popFirst()
    }

    /// Drops elements in O(n): how a timer heap rids itself of the cancelled ones.
    @inlinable package mutating func removeAll(where condition: (Element) -> Bool) {
        elements.removeAll(where: condition)
        for index in stride(from: elements.count / 2 - 1, through: 0, by: -1) {
            siftDown(from: index)
        }
    }

    @inlinable mutating func siftUp(from start: Int) {
        var index = start
        while index > 0 {
            let parent = (index - 1) / 2
            guard elements[index] < elements[parent] else { return }
            elements.swapAt(index, parent)
            index = parent
        }
    }

    @inlinable mutating func siftDown(from start: Int) {
        var index = start
        while true {
            var smallest = index
            let left = 2 * index + 1
            if left < elements.count, elements[left] < elements[smallest] { smallest = left }
            let right = left + 1
            if right < elements.count, elements[right] < elements[smallest] { smallest = right }
            guard smallest != index else { return }
            elements.swapAt(index, smallest)
            index = smallest
        }
    }
}

extension PriorityHeap: Sendable where Element: Sendable {}
