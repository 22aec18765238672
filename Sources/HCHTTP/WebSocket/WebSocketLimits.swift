/// What is read from a peer at most. Bytes of a message count after inflating.
package struct WebSocketLimits: Sendable {
    package var messageBytesMax = 64 << 10
    /// A frame that announces more ends the connection before its content is read.
    package var frameBytesMax = 64 << 10
    /// Fragments without content in one message: each costs its sender 6 bytes and brings us nothing.
    package var emptyFragmentsMax = 64

    package init() {}

    package init(messageBytesMax: Int) {
        self.messageBytesMax = messageBytesMax
        frameBytesMax = messageBytesMax
    }

    /// A DEFLATE stream is longer than its content by 5 bytes for each 16 KiB at worst, and a few.
    var compressedBytesMax: Int { messageBytesMax + messageBytesMax / 1024 + 64 }
}
