import HCCore

/// Header fields in their order: names and values lie in one array of bytes, and a table says where.
///
/// A request's headers are the head as it was received; an answer's headers are built by `append`, already in
/// the form in which HTTP/1.1 sends them. Nothing here is a dictionary: repeated fields stay repeated, so that
/// whoever needs a single one can see that there are two.
package struct HTTPHeaders: Sendable {
    struct Field: Sendable {
        var nameStart: UInt32
        var valueStart: UInt32
        var valueCount: UInt32
        var nameCount: UInt16
        var known: KnownField

        var name: Range<Int> { Int(nameStart)..<Int(nameStart) + Int(nameCount) }
        var value: Range<Int> { Int(valueStart)..<Int(valueStart) + Int(valueCount) }
    }

    private(set) var bytes: [UInt8]
    private(set) var fields: [Field]
    /// The known fields that are present, one bit each.
    private(set) var knownFields: UInt64
    /// Whether `bytes` is "Name: value CRLF" repeated and nothing else.
    private let isWireForm: Bool

    package init() {
        bytes = []
        fields = []
        knownFields = 0
        isWireForm = true
    }

    /// The head of a request as the parser saw it.
    init(head: [UInt8], fields: [Field], knownFields: UInt64) {
        bytes = head
        self.fields = fields
        self.knownFields = knownFields
        isWireForm = false
    }

    package init(_ pairs: [(HTTPFieldName, String)]) {
        self.init()
        for (name, value) in pairs { append(name, value) }
    }

    package var count: Int { fields.count }
    package var isEmpty: Bool { fields.isEmpty }

    // MARK: Reading

    package func contains(_ name: HTTPFieldName) -> Bool {
        // Of most fields that are asked for there is none.
        name.known == .other ? index(of: name) != nil : knownFields & name.known.bit != 0
    }

    /// The value of the first field of that name. Bytes that are not UTF-8 are replaced.
    package subscript(_ name: HTTPFieldName) -> String? {
        index(of: name).map { value(at: $0) }
    }

    /// How many fields have that name: a caller that must not guess asks for exactly one.
    package func count(of name: HTTPFieldName) -> Int {
        guard name.known == .other || knownFields & name.known.bit != 0 else { return 0 }
        return fields.indices.reduce(0) { $0 + (isNamed($1, name) ? 1 : 0) }
    }

    /// The value of the only field of that name, nil if there is none: for what must not be guessed, as credentials
    /// and preconditions.
    ///
    /// - Throws: a `Problem` 400 that names the field if it was sent more than once.
    package func single(_ name: HTTPFieldName) throws(Problem) -> String? {
        guard count(of: name) <= 1 else {
            throw .invalid([FieldProblem(name.text, code: "duplicate", "Send this header once.")])
        }
        return self[name]
    }

    /// The values of all fields of that name, in order.
    package func values(_ name: HTTPFieldName) -> [String] {
        fields.indices.filter { isNamed($0, name) }.map { value(at: $0) }
    }

    /// Gives the bytes of the first field of that name, without a copy.
    package func withValue<Result>(
        _ name: HTTPFieldName, _ body: (UnsafeRawBufferPointer) throws -> Result
    ) rethrows -> Result? {
        guard let index = index(of: name) else { return nil }
        let range = fields[index].value
        return try bytes.withUnsafeBytes { try body($0.slice(range)) }
    }

    /// As above, for other rooms' hot paths: code that is made for any type of answer looks that type up each time.
    package func lendValue(of name: HTTPFieldName, to body: (UnsafeRawBufferPointer) -> Void) {
        _ = withValue(name, body)
    }

    /// Gives the bytes of each field of that name in their order, without a copy.
    func forEachValue<Failure: Error>(
        _ name: HTTPFieldName, _ body: (UnsafeRawBufferPointer) throws(Failure) -> Void
    ) throws(Failure) {
        guard name.known == .other || knownFields & name.known.bit != 0 else { return }
        try bytes.withBytes { bytes throws(Failure) in
            for index in fields.indices where isNamed(index, name) {
                try body(bytes.slice(fields[index].value))
            }
        }
    }

    /// Whether a comma-separated list field has `token` among its elements, in any case of its letters.
    /// `token` is written in lower case.
    package func hasToken(_ name: HTTPFieldName, _ token: StaticString) -> Bool {
        guard name.known == .other || knownFields & name.known.bit != 0 else { return false }
        var found = false
        bytes.withUnsafeBytes { bytes in
            for index in fields.indices where isNamed(index, name) {
                bytes.slice(fields[index].value).forEachListElement {
                    if $0.isEqualIgnoringCase(to: token) { found = true }
                }
            }
        }
        return found
    }

    /// The elements of a comma-separated list field in their order, without the empty ones (RFC 9110 5.6.1).
    package func elements(_ name: HTTPFieldName) -> [String] {
        var elements: [String] = []
        forEachValue(name) { line in
            line.forEachListElement { element in
                if !element.isEmpty { elements.append(String(decoding: element, as: UTF8.self)) }
            }
        }
        return elements
    }

    /// Every field in its order, as text.
    package var pairs: [(name: String, value: String)] {
        fields.indices.map { index in
            (String(decoding: bytes[fields[index].name], as: UTF8.self), value(at: index))
        }
    }

    // MARK: Writing

    /// Adds a field after the others. Control characters in `value` become spaces: a value made from a user's
    /// text can never end the line it stands in (RFC 9110 5.5).
    package mutating func append(_ name: HTTPFieldName, _ value: String) {
        value.withBytes { append(name, UnsafeRawBufferPointer($0)) }
    }

    /// As above, of the bytes of a text.
    package mutating func append(_ name: HTTPFieldName, _ value: UnsafeRawBufferPointer) {
        append(name, value, isField: value.isFieldValue())
    }

    package mutating func append(_ name: HTTPFieldName, _ value: StaticString) {
        append(
            name, UnsafeRawBufferPointer(start: value.utf8Start, count: value.utf8CodeUnitCount),
            isField: true)
    }

    package mutating func append(_ name: HTTPFieldName, _ value: Int) {
        append(name, String(value))
    }

    /// Replaces every field of that name by this one.
    package mutating func set(_ name: HTTPFieldName, _ value: String) {
        remove(name)
        append(name, value)
    }

    /// Adds an element to a list field, to the line that is there already if there is one.
    package mutating func add(_ element: StaticString, to name: HTTPFieldName) {
        guard contains(name) else { return append(name, element) }
        let line = (values(name) + [element.description]).joined(separator: ", ")
        set(name, line)
    }

    package mutating func remove(_ name: HTTPFieldName) {
        guard contains(name) else { return }
        var kept = HTTPHeaders()
        for index in fields.indices where !isNamed(index, name) { kept.append(from: self, index) }
        self = kept
    }

    /// Adds every field of `other`.
    package mutating func append(contentsOf other: HTTPHeaders) {
        for index in other.fields.indices { append(from: other, index) }
    }

    /// The fields of these names, which are those of a `ResponseStream`.
    func trailers(_ names: [HTTPFieldName]) -> HTTPHeaders {
        var trailers = HTTPHeaders()
        guard !names.isEmpty else { return trailers }
        for index in fields.indices where names.contains(where: { isNamed(index, $0) }) {
            trailers.append(from: self, index)
        }
        return trailers
    }

    /// Writes the fields as HTTP/1.1 lines, without the empty line that ends a head.
    func write(into output: inout [UInt8]) {
        if isWireForm {
            output.append(bytes: bytes)
        } else {
            for field in fields {
                output.append(contentsOf: bytes[field.name])
                output.append(0x3A)
                output.append(0x20)
                output.append(contentsOf: bytes[field.value])
                output.append(0x0D)
                output.append(0x0A)
            }
        }
    }

    /// Writes those fields whose names `taken` does not have.
    func write(into output: inout [UInt8], unlessIn taken: HTTPHeaders) {
        if isWireForm, knownFields & taken.knownFields == 0,
            fields.allSatisfy({ $0.known != .other })
        {
            output.append(bytes: bytes)
            return
        }
        for index in fields.indices {
            let field = fields[index]
            let name = String(decoding: bytes[field.name], as: UTF8.self)
            if let name = HTTPFieldName(name), taken.contains(name) { continue }
            output.append(contentsOf: bytes[field.name])
            output.append(0x3A)
            output.append(0x20)
            output.append(contentsOf: bytes[field.value])
            output.append(0x0D)
            output.append(0x0A)
        }
    }

    /// Whether a field of the name of that field of `other` is here.
    func has(_ other: HTTPHeaders, _ index: Int) -> Bool {
        let field = other.fields[index]
        if field.known != .other { return knownFields & field.known.bit != 0 }
        return fields.contains { mine in
            mine.known == .other && mine.nameCount == field.nameCount
                && zip(bytes[mine.name], other.bytes[field.name]).allSatisfy {
                    ByteClass.lower($0) == ByteClass.lower($1)
                }
        }
    }

    // MARK: Details

    /// Writes the whole line in one piece: each append asks anew whether the bytes are shared and whether there is room.
    private mutating func append(
        _ name: HTTPFieldName, _ value: UnsafeRawBufferPointer, isField: Bool
    ) {
        precondition(isWireForm, "the headers of a received request are read only")
        if bytes.isEmpty {
            bytes.reserveCapacity(256)
            fields.reserveCapacity(8)
        }
        let start = bytes.count
        let nameCount = name.withBytes { name in
            bytes.append(addingCapacity: name.count + value.count + 4) { line in
                line.append(name)
                line.append(0x3A)
                line.append(0x20)
                if isField { line.append(value) } else { line.append(spacing: value) }
                line.append(0x0D)
                line.append(0x0A)
            }
            return name.count
        }
        fields.append(
            Field(
                nameStart: UInt32(start), valueStart: UInt32(start + nameCount + 2),
                valueCount: UInt32(value.count), nameCount: UInt16(nameCount), known: name.known))
        knownFields |= name.known.bit
    }

    private mutating func append(from other: HTTPHeaders, _ index: Int) {
        precondition(isWireForm, "the headers of a received request are read only")
        var field = other.fields[index]
        let (name, value) = (field.name, field.value)
        field.nameStart = UInt32(bytes.count)
        bytes.append(contentsOf: other.bytes[name])
        bytes.append(0x3A)
        bytes.append(0x20)
        field.valueStart = UInt32(bytes.count)
        bytes.append(contentsOf: other.bytes[value])
        bytes.append(0x0D)
        bytes.append(0x0A)
        fields.append(field)
        knownFields |= field.known.bit
    }

    private func value(at index: Int) -> String {
        String(decoding: bytes[fields[index].value], as: UTF8.self)
    }

    private func index(of name: HTTPFieldName) -> Int? {
        guard name.known == .other || knownFields & name.known.bit != 0 else { return nil }
        return fields.firstIndex { isNamed($0, name) }
    }

    private func isNamed(_ index: Int, _ name: HTTPFieldName) -> Bool {
        isNamed(fields[index], name)
    }

    private func isNamed(_ field: Field, _ name: HTTPFieldName) -> Bool {
        guard field.known == .other, name.known == .other else { return field.known == name.known }
        guard Int(field.nameCount) == name.text.utf8.count else { return false }
        return zip(bytes[field.name], name.text.utf8).allSatisfy {
            ByteClass.lower($0) == ByteClass.lower($1)
        }
    }
}
