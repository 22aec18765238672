/// How answers are compressed, and how much that may take.
package struct CompressionConfiguration: Sendable {
    package var gzipLevel = 6
    package var brotliQuality = 4
    /// Smaller content is sent as it is: headers and one packet cost more than is won.
    package var bytesMin = 1024
    /// Content is coded in slices of this size, and the loop gets its turn between two of them.
    package var sliceBytes = 64 << 10
    /// Streams that are coded at once; further ones are sent as they are. Each holds one state
    /// (`BrotliEncoder.stateBytes`, `ZlibEncoder.stateBytes`) for as long as it lasts.
    package var streamsMax = 32
    /// zlib states that wait to be used again, of each coding.
    package var idleEncodersMax = 2
    /// Memory of brotli states that waits to be used again.
    package var brotliKeptBytesMax = 4 << 20

    package init() {}

    /// Media types that are worth it: text in any form. What is not listed is sent as it is, for it is compressed
    /// already or unknown.
    static func isCompressible(mediaType field: UnsafeRawBufferPointer) -> Bool {
        var end = 0
        while end < field.count, field[end] != 0x3B, !ByteClass.isBlank(field[end]) { end += 1 }
        let type = field.slice(0..<end)
        if type.isEqualIgnoringCase(to: "application/json") { return true }
        if type.count > 5, type.slice(0..<5).isEqualIgnoringCase(to: "text/") { return true }
        if type.count > 5, type.slice(end - 5..<end).isEqualIgnoringCase(to: "+json") {
            return true
        }
        if type.count > 4, type.slice(end - 4..<end).isEqualIgnoringCase(to: "+xml") { return true }
        for known: StaticString in [
            "application/javascript", "application/xml", "application/x-ndjson",
            "application/fhir+ndjson", "application/manifest+json", "application/wasm",
            "application/openmetrics-text",
        ] where type.isEqualIgnoringCase(to: known) {
            return true
        }
        return false
    }
}
