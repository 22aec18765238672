package import HCCore

/// What a client asks of a list.
package struct PageRequest: Sendable, Equatable {
    package static let limitDefault = 50
    package static let limitMax = 200

    package let limit: Int
    package let cursor: String?

    package init(limit: Int = PageRequest.limitDefault, cursor: String? = nil) {
        precondition((1...PageRequest.limitMax).contains(limit), "the caller checks the limit")
        self.limit = limit
        self.cursor = cursor
    }

    /// From query parameters.
    ///
    /// - Throws: `invalid-input` for a limit that is no number from 1 to 200.
    package init(limitText: String?, cursor: String?) throws(ClinicError) {
        guard let limitText else {
            self.init(cursor: cursor)
            return
        }
        guard limitText.utf8.count <= 3, limitText.utf8.allSatisfy({ TextRules.isDigit($0) }),
            let limit = Int(limitText), (1...PageRequest.limitMax).contains(limit)
        else {
            throw .invalid(
                "limit", .outOfRange, "must be a number from 1 to \(PageRequest.limitMax)")
        }
        self.init(limit: limit, cursor: cursor)
    }
}

/// Something that can be written as one JSON value.
package protocol JSONWritable: Sendable {
    func write(to writer: inout JSONWriter)
}

/// One page of a list, in the list's fixed order.
package struct Page<Item: JSONWritable>: Sendable, JSONWritable {
    package let items: [Item]
    /// Where the next page begins; nil at the end.
    package let nextCursor: String?

    package init(items: [Item], nextCursor: String?) {
        self.items = items
        self.nextCursor = nextCursor
    }

    /// `{"items":[…],"nextCursor":…}`, null at the end.
    package func write(to writer: inout JSONWriter) {
        writer.beginObject()
        writer.key("items")
        writer.beginArray()
        for item in items { item.write(to: &writer) }
        writer.endArray()
        writer.member("nextCursor", nextCursor)
        writer.endObject()
    }
}

extension JSONWritable {
    /// The JSON text.
    package func json() -> [UInt8] {
        var writer = JSONWriter()
        write(to: &writer)
        return writer.finish().bytes
    }
}
