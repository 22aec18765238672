/// Routes as a trie over path segments: one walk finds the node, a literal is tried before a parameter.
///
/// Nodes lie in one array and name each other by index. `Endpoint` is what a node answers with.
struct RouteTrie<Endpoint: Sendable>: Sendable {
    private struct Node: Sendable {
        var literals: [(text: [UInt8], node: Int)] = []
        var parameter: Int?
        /// By `HTTPMethod.rawValue`; empty for a node that is only passed.
        var endpoints: [Endpoint?] = []
    }

    struct Found {
        let endpoint: Endpoint
        let node: Int
        /// Raw segments that stand for parameters, in the order of the pattern.
        let parameters: [Range<Int>]
    }

    private var nodes: [Node] = [Node()]

    /// The node of that pattern, made if it is not there.
    mutating func node(for segments: [RouteDescription.Segment]) -> Int {
        var current = 0
        for segment in segments {
            switch segment {
            case .literal(let text):
                let bytes = Array(text.utf8)
                if let known = nodes[current].literals.first(where: { $0.text == bytes }) {
                    current = known.node
                } else {
                    nodes.append(Node())
                    nodes[current].literals.append((bytes, nodes.count - 1))
                    current = nodes.count - 1
                }
            case .parameter:
                if let known = nodes[current].parameter {
                    current = known
                } else {
                    nodes.append(Node())
                    nodes[current].parameter = nodes.count - 1
                    current = nodes.count - 1
                }
            }
        }
        return current
    }

    mutating func set(_ endpoint: Endpoint, for method: HTTPMethod, at node: Int) {
        if nodes[node].endpoints.isEmpty {
            nodes[node].endpoints = Array(repeating: nil, count: HTTPMethod.allCases.count)
        }
        nodes[node].endpoints[Int(method.rawValue)] = endpoint
    }

    func endpoint(_ method: HTTPMethod, at node: Int) -> Endpoint? {
        nodes[node].endpoints.isEmpty ? nil : nodes[node].endpoints[Int(method.rawValue)]
    }

    /// The endpoint for that method and path; nil if no pattern fits the path. Every node with endpoints has
    /// one for each method once the application has filled it.
    func find(_ method: HTTPMethod, _ target: RequestTarget) -> Found? {
        var parameters: [Range<Int>] = []
        let node = target.bytes.withUnsafeBytes { bytes in
            descend(
                from: 0, SegmentWalk(target.pathRange), bytes, target.isPathEncoded, &parameters)
        }
        guard let node, let endpoint = endpoint(method, at: node) else { return nil }
        return Found(endpoint: endpoint, node: node, parameters: parameters)
    }

    /// Goes back to a parameter if the literal leads nowhere: no deeper than the longest pattern.
    private func descend(
        from node: Int, _ walk: SegmentWalk, _ bytes: UnsafeRawBufferPointer, _ isEncoded: Bool,
        _ parameters: inout [Range<Int>]
    ) -> Int? {
        var walk = walk
        guard let segment = walk.next(bytes) else {
            return nodes[node].endpoints.isEmpty ? nil : node
        }
        let text = bytes.slice(segment)
        for literal in nodes[node].literals where RouteTrie.matches(text, literal.text, isEncoded) {
            if let found = descend(from: literal.node, walk, bytes, isEncoded, &parameters) {
                return found
            }
        }
        // An empty segment is no value.
        guard let child = nodes[node].parameter, !segment.isEmpty else { return nil }
        parameters.append(segment)
        if let found = descend(from: child, walk, bytes, isEncoded, &parameters) { return found }
        parameters.removeLast()
        return nil
    }

    private static func matches(
        _ segment: UnsafeRawBufferPointer, _ literal: [UInt8], _ isEncoded: Bool
    ) -> Bool {
        guard isEncoded, segment.contains(0x25) else { return segment.elementsEqual(literal) }
        return PercentCoding.decodedBytes(segment, plusIsSpace: false) == literal
    }
}
