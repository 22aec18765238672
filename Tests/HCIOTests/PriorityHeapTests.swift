import HCTesting
import Testing

@testable import HCIO

@Suite("The heap of the timers")
struct PriorityHeapTests {
    @Test("a heap gives its elements in order, whatever the order they came in")
    func heap() {
        var random = SeededRandom(seed: 5)
        for size in [0, 1, 2, 3, 10, 1000] {
            let values = (0..<size).map { _ in Int.random(in: 0..<100, using: &random) }
            var heap = PriorityHeap<Int>()
            for value in values { heap.insert(value) }
            #expect(heap.count == size)
            #expect(heap.first == values.min())
            heap.removeAll { $0 % 3 == 0 }
            var popped: [Int] = []
            while let value = heap.popFirst() { popped.append(value) }
            #expect(popped == values.filter { $0 % 3 != 0 }.sorted(), "seed \(random.seed)")
        }
    }

    @Test("a heap gives its first element only if asked for such a one")
    func heapCondition() {
        var heap = PriorityHeap<Int>()
        heap.insert(5)
        #expect(heap.popFirst { $0 < 5 } == nil)
        #expect(heap.popFirst { $0 <= 5 } == 5)
        #expect(heap.popFirst { _ in true } == nil)
        #expect(heap.isEmpty)
    }
}
