/// The members of a JSON object in the order of the text, names unique.
///
/// Names are equal if they are the same bytes, not if they look alike: JSON compares code units
/// (RFC 8259 8.3), while Swift's String compares canonical forms.
package struct JSONObject: Sendable {
    package struct Member: Sendable {
        package let name: String
        package let value: JSONValue
    }

    package private(set) var members: [Member] = []

    // Small objects are searched from front to back; larger ones get an index, so that a text with
    // many thousand names costs linear time.
    private var index: [[UInt8]: Int]?

    private static var indexedFrom: Int { 16 }

    package init() {}

    package var count: Int { members.count }
    package var isEmpty: Bool { members.isEmpty }
    package var names: [String] { members.map(\.name) }

    package subscript(name: String) -> JSONValue? {
        position(of: name).map { members[$0].value }
    }

    /// Adds a member at the end.
    ///
    /// - Returns: false, and nothing is changed, if the name is there already.
    @discardableResult
    package mutating func insert(_ value: JSONValue, for name: String) -> Bool {
        guard position(of: name) == nil else { return false }
        append(Member(name: name, value: value))
        return true
    }

    /// Sets a member, in its place if it is there, else at the end.
    package mutating func set(_ value: JSONValue, for name: String) {
        if let position = position(of: name) {
            members[position] = Member(name: name, value: value)
        } else {
            append(Member(name: name, value: value))
        }
    }

    /// Removes a member in O(n).
    @discardableResult
    package mutating func remove(_ name: String) -> JSONValue? {
        guard let position = position(of: name) else { return nil }
        let member = members.remove(at: position)
        if index != nil { buildIndex() }
        return member.value
    }

    private mutating func append(_ member: Member) {
        members.append(member)
        if index != nil {
            index?[Array(member.name.utf8)] = members.count - 1
        } else if members.count >= JSONObject.indexedFrom {
            buildIndex()
        }
    }

    private mutating func buildIndex() {
        var built: [[UInt8]: Int] = [:]
        for (position, member) in members.enumerated() { built[Array(member.name.utf8)] = position }
        index = built
    }

    private func position(of name: String) -> Int? {
        if let index { return index[Array(name.utf8)] }
        let count = name.utf8.count
        // String's own comparison is the fast one, but calls canonical equivalents equal.
        return members.firstIndex {
            $0.name.utf8.count == count && $0.name == name
                && $0.name.utf8.elementsEqual(name.utf8)
        }
    }
}

extension JSONObject: Equatable {
    /// The order of members does not matter (RFC 8259 1: an object is unordered).
    package static func == (left: JSONObject, right: JSONObject) -> Bool {
        left.count == right.count && left.members.allSatisfy { right[$0.name] == $0.value }
    }
}

extension JSONObject: ExpressibleByDictionaryLiteral {
    /// A name that is written twice is our bug.
    package init(dictionaryLiteral elements: (String, JSONValue)...) {
        self.init()
        for (name, value) in elements {
            let isNew = insert(value, for: name)
            precondition(isNew, "a JSON literal names a member twice")
        }
    }
}
