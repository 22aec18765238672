/// Patterns as a trie over path segments: one walk finds the node, a literal is tried before a parameter.
///
/// Nodes lie in one array, literals in another and their bytes in a third, and name each other by index: a walk touches
/// no reference count. What a node answers is the business of whoever has the node's number.
struct RouteTrie: Sendable {
    private struct Literal: Sendable {
        let start: Int
        let count: Int
        let node: Int
        /// Of the same node; -1 is none.
        var next = -1
    }

    private struct Node: Sendable {
        /// -1 is none, here and below.
        var literal = -1
        var parameter = -1
        var isEnd = false
    }

    private var nodes: [Node] = [Node()]
    private var literals: [Literal] = []
    private var text: [UInt8] = []

    var nodeCount: Int { nodes.count }

    /// Adds a pattern.
    /// - Returns: the number of its node: the same for patterns that differ in their parameters' names only.
    mutating func insert(_ segments: [RouteDescription.Segment]) -> Int {
        var current = 0
        for segment in segments {
            switch segment {
            case .literal(let literal): current = child(of: current, Array(literal.utf8))
            case .parameter:
                if nodes[current].parameter < 0 {
                    nodes[current].parameter = nodes.count
                    nodes.append(Node())
                }
                current = nodes[current].parameter
            }
        }
        nodes[current].isEnd = true
        return current
    }

    private mutating func child(of node: Int, _ bytes: [UInt8]) -> Int {
        var last = -1
        var place = nodes[node].literal
        while place >= 0 {
            let literal = literals[place]
            if text[literal.start..<literal.start + literal.count].elementsEqual(bytes) {
                return literal.node
            }
            last = place
            place = literal.next
        }
        let made = nodes.count
        nodes.append(Node())
        if last < 0 {
            nodes[node].literal = literals.count
        } else {
            literals[last].next = literals.count
        }
        literals.append(Literal(start: text.count, count: bytes.count, node: made))
        text.append(contentsOf: bytes)
        return made
    }

    /// The node whose pattern fits the path, nil if there is none.
    ///
    /// - Parameter parameters: becomes the raw segments that stand for parameters, in the order of the pattern.
    func find(_ target: RequestTarget, parameters: inout [Range<Int>]) -> Int? {
        target.bytes.withUnsafeBytes { bytes in
            text.withUnsafeBytes { text in
                nodes.withUnsafeBufferPointer { nodes in
                    literals.withUnsafeBufferPointer { literals in
                        let walk = Walk(
                            nodes: nodes, literals: literals, text: text, bytes: bytes,
                            isEncoded: target.isPathEncoded)
                        return walk.descend(from: 0, SegmentWalk(target.pathRange), &parameters)
                    }
                }
            }
        }
    }

    private struct Walk {
        let nodes: UnsafeBufferPointer<Node>
        let literals: UnsafeBufferPointer<Literal>
        let text: UnsafeRawBufferPointer
        let bytes: UnsafeRawBufferPointer
        let isEncoded: Bool

        /// Goes back to a parameter if the literal leads nowhere: no deeper than the longest pattern.
        func descend(from node: Int, _ walk: SegmentWalk, _ parameters: inout [Range<Int>]) -> Int?
        {
            var walk = walk
            guard let segment = walk.next(bytes) else { return nodes[node].isEnd ? node : nil }
            if let child = literal(of: node, bytes.slice(segment)),
                let found = descend(from: child, walk, &parameters)
            {
                return found
            }
            // An empty segment is no value.
            let child = nodes[node].parameter
            guard child >= 0, !segment.isEmpty else { return nil }
            parameters.append(segment)
            if let found = descend(from: child, walk, &parameters) { return found }
            parameters.removeLast()
            return nil
        }

        private func literal(of node: Int, _ segment: UnsafeRawBufferPointer) -> Int? {
            if isEncoded, segment.contains(0x25) {
                let decoded = PercentCoding.decodedBytes(segment, plusIsSpace: false)
                return decoded.withUnsafeBytes { search(node, $0) }
            }
            return search(node, segment)
        }

        private func search(_ node: Int, _ segment: UnsafeRawBufferPointer) -> Int? {
            var place = nodes[node].literal
            while place >= 0 {
                let literal = literals[place]
                if literal.count == segment.count,
                    text.slice(literal.start..<literal.start + literal.count).isEqual(to: segment)
                {
                    return literal.node
                }
                place = literal.next
            }
            return nil
        }
    }
}
