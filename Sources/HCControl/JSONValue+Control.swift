package import HCCore

extension JSONValue {
    /// The document as bytes.
    package var serialized: [UInt8] { Array(text.utf8) }

    /// An object with further members; a name that is there already gets the new value.
    package func adding(_ members: KeyValuePairs<String, JSONValue>) -> JSONValue {
        var object = asObject ?? JSONObject()
        for (name, value) in members { object.set(value, for: name) }
        return .object(object)
    }

    /// The object with the members of another, which win.
    package func merging(_ other: JSONValue) -> JSONValue {
        var object = asObject ?? JSONObject()
        for member in other.asObject?.members ?? [] { object.set(member.value, for: member.name) }
        return .object(object)
    }
}
