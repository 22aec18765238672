/// A doubly linked list of small integers, such as the slots of an array: in and out anywhere in O(1), no memory of
/// its own. The links are in `IndexLinks`, which several lists share as long as no index is in two of them.
struct IndexList {
    fileprivate(set) var first: Int32 = IndexList.none
    fileprivate var last: Int32 = IndexList.none

    static let none: Int32 = -1

    var isEmpty: Bool { first == IndexList.none }
}

/// Who comes before and after each index in its list.
struct IndexLinks {
    private var before: [Int32] = []
    private var after: [Int32] = []

    /// Makes room for the indices below `count`.
    mutating func grow(to count: Int) {
        while before.count < count {
            before.append(IndexList.none)
            after.append(IndexList.none)
        }
    }

    func next(_ index: Int32) -> Int32 { after[Int(index)] }

    mutating func append(_ index: Int32, to list: inout IndexList) {
        before[Int(index)] = list.last
        after[Int(index)] = IndexList.none
        if list.last == IndexList.none {
            list.first = index
        } else {
            after[Int(list.last)] = index
        }
        list.last = index
    }

    mutating func prepend(_ index: Int32, to list: inout IndexList) {
        before[Int(index)] = IndexList.none
        after[Int(index)] = list.first
        if list.first == IndexList.none {
            list.last = index
        } else {
            before[Int(list.first)] = index
        }
        list.first = index
    }

    mutating func remove(_ index: Int32, from list: inout IndexList) {
        let (previous, next) = (before[Int(index)], after[Int(index)])
        if previous == IndexList.none { list.first = next } else { after[Int(previous)] = next }
        if next == IndexList.none { list.last = previous } else { before[Int(next)] = previous }
    }

    mutating func popFirst(from list: inout IndexList) -> Int32? {
        guard !list.isEmpty else { return nil }
        let index = list.first
        remove(index, from: &list)
        return index
    }
}
