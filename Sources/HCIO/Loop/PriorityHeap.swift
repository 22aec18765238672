/// A binary heap: the smallest element first. Insertion and removal cost O(log n), the look is free.
///
/// Equal elements come in no set order: give elements a sequence number where order matters.
/// In the room of its one user: there it is specialised, and timers are compared without witness tables.
struct PriorityHeap<Element: Comparable> {
    private var elements: [Element] = []

    init() {}

    var count: Int { elements.count }
    var isEmpty: Bool { elements.isEmpty }

    /// The smallest element.
    var first: Element? { elements.first }

    mutating func insert(_ element: Element) {
        elements.append(element)
        siftUp(from: elements.count - 1)
    }

    /// Removes and returns the smallest element.
    mutating func popFirst() -> Element? {
        guard let last = elements.popLast() else { return nil }
        guard let first = elements.first else { return last }
        elements[0] = last
        siftDown(from: 0)
        return first
    }

    /// Removes the smallest element if `condition` holds for it.
    mutating func popFirst(if condition: (Element) -> Bool) -> Element? {
        guard let first = elements.first, condition(first) else { return nil }
        return popFirst()
    }

    /// Drops elements in O(n): how a timer heap rids itself of the cancelled ones.
    mutating func removeAll(where condition: (Element) -> Bool) {
        elements.removeAll(where: condition)
        for index in stride(from: elements.count / 2 - 1, through: 0, by: -1) {
            siftDown(from: index)
        }
    }

    private mutating func siftUp(from start: Int) {
        var index = start
        while index > 0 {
            let parent = (index - 1) / 2
            guard elements[index] < elements[parent] else { return }
            elements.swapAt(index, parent)
            index = parent
        }
    }

    private mutating func siftDown(from start: Int) {
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
