package import HCCore

/// A patient as the clinic keeps it: the document with id, version and times.
package struct PatientRecord: Sendable, JSONWritable {
    package let id: PatientID
    let document: PatientDocument
    package let version: Int64
    package let createdAt: Timestamp
    package let updatedAt: Timestamp

    package var entityTag: String { EntityTag.text(version: version) }

    /// Parses the document.
    package func patient() throws -> Patient { try document.patient() }

    /// `{"id":…,` the document's members `,"version":…,"createdAt":…,"updatedAt":…}`.
    package func write(to writer: inout JSONWriter) {
        writer.raw(json())
    }

    /// The JSON text, made with one allocation.
    package func json() -> [UInt8] {
        var buffer = ByteBuffer(reserving: document.bytes.count + 200)
        buffer.append("{\"id\":\"")
        buffer.append(id.uuid)
        buffer.append("\",")
        // The document without its braces; it always has members.
        buffer.append(document.bytes[1..<document.bytes.count - 1])
        buffer.append(",\"version\":")
        buffer.append(decimal: version)
        buffer.append(",\"createdAt\":\"")
        buffer.append(createdAt)
        buffer.append("\",\"updatedAt\":\"")
        buffer.append(updatedAt)
        buffer.append("\"}")
        return buffer.bytes
    }
}

extension PatientRecord: CustomStringConvertible, CustomReflectable {
    package var description: String { "patient \(id)" }
    package var customMirror: Mirror { Mirror(self, children: []) }
}
