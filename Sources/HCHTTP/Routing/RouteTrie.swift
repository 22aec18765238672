/// Patterns as a trie over path segments: one walk finds the node, a literal is tried before a parameter.
///
/// Nodes lie in one array and name each other by index, as do the bytes of the literals: a walk touches no
/// reference count. What a node answers is the business of whoever has the node's number.
struct RouteTrie: Sendable {
    private struct Literal: Sendable {
        let start: Int
        let count: Int
        let node: Int
    }

    private struct Node: Sendable {
        var literals: [Literal] = []
        var parameter = -1
        var isEnd = false
    }

    private var nodes: [Node] = [Node()]
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
        for literal in nodes[node].literals
        where text[literal.start..<literal.start + literal.count].elementsEqual(bytes) {
            return literal.node
        }
        let made = nodes.count
        nodes.append(Node())
        nodes[node].literals.append(Literal(start: text.count, count: bytes.count, node: made))
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
                    let walk = Walk(
                        nodes: nodes, text: text, bytes: bytes, isEncoded: target.isPathEncoded)
                    return walk.descend(from: 0, SegmentWalk(target.pathRange), &parameters)
                }
            }
        }
    }

    private struct Walk {
        let nodes: UnsafeBufferPointer<Node>
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
            let literals = nodes[node].literals
            for index in literals.indices where literals[index].count == segment.count {
                let literal = literals[index]
                var position = 0
                while position < literal.count,
                    text[literal.start + position] == segment[position]
                {
                    position += 1
                }
                if position == literal.count { return literal.node }
            }
            return nil
        }
    }
}
