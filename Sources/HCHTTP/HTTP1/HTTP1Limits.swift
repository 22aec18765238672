/// What a client may send on an HTTP/1 connection. Sizes in bytes.
package struct HTTP1Limits: Sendable {
    /// The request line with its CRLF; above it 414.
    package var requestLineBytesMax = 8 << 10
    /// One decoded segment of the path; above it 414.
    package var pathSegmentBytesMax = 500
    /// All header lines with the empty line that ends them; above it 431.
    package var headerBytesMax = 32 << 10
    /// Header fields; above it 431.
    package var headerCountMax = 100
    /// The content; above it 413, before any of it is read if the length is announced.
    package var bodyBytesMax = 50 << 20
    /// One chunk-size line with its extensions; above it 400.
    package var chunkLineBytesMax = 1 << 10
    /// Chunk-size lines may outweigh the content by this much in all: a body of tiny chunks is refused with 400.
    package var chunkOverheadBytesMax = 16 << 10
    /// The trailer section; above it 431.
    package var trailerBytesMax = 8 << 10
    /// Trailer fields; above it 431.
    package var trailerCountMax = 32
    /// Empty lines that are forgiven before a request (RFC 9112 2.2).
    package var emptyLinesMax = 2

    package init() {}

    /// The most that a connection keeps of a message that is not complete: what the parser may ask to see again.
    package var pendingBytesMax: Int {
        max(requestLineBytesMax + headerBytesMax, chunkLineBytesMax, trailerBytesMax)
            + 2 * emptyLinesMax
    }
}
