internal import COpenSSL

/// Where OpenSSL reads and writes: not sockets, but memory that all connections of the loop share.
///
/// A connection's BIO has no buffer. While a call of OpenSSL runs, `input` is what has arrived for this connection, and
/// what OpenSSL writes is gathered in `output`, which the caller takes at once. So an idle connection holds no
/// buffer at all; what a socket did not take is kept by its `TLSStream`.
@LoopActor enum TLSEngine {
    /// What OpenSSL has not read yet of this call's input.
    private static var input = UnsafeRawBufferPointer(start: nil, count: 0)
    private static var output: [UInt8] = []
    /// Whether OpenSSL asked for more than there was in the last call.
    private(set) static var isStarved = false

    private static let plaintext = UnsafeMutableRawBufferPointer.allocate(
        byteCount: plaintextBytes, alignment: 64)
    private static var isPlaintextTaken = false

    nonisolated static let plaintextBytes = 64 << 10
    /// The content of one record (RFC 8446 5.1).
    nonisolated static let recordBytesMax = 16 << 10
    /// The output's memory is kept up to this between calls.
    private static let outputKeptMax = 128 << 10

    /// Calls OpenSSL with `rest` as the input that it may read; what it did not read stays in `rest`.
    static func run(_ rest: inout UnsafeRawBufferPointer, _ body: () -> Int32) -> Int32 {
        ERR_clear_error()
        input = rest
        isStarved = false
        let result = body()
        rest = input
        input = UnsafeRawBufferPointer(start: nil, count: 0)
        return result
    }

    /// For calls that read nothing.
    static func run(_ body: () -> Int32) -> Int32 {
        var nothing = UnsafeRawBufferPointer(start: nil, count: 0)
        return run(&nothing, body)
    }

    static var hasOutput: Bool { !output.isEmpty }

    /// Takes what OpenSSL has written. To be given back, for its memory.
    static func takeOutput() -> [UInt8] {
        var taken: [UInt8] = []
        swap(&taken, &output)
        return taken
    }

    static func giveBack(_ buffer: consuming [UInt8]) {
        guard buffer.capacity <= outputKeptMax, buffer.capacity > output.capacity, output.isEmpty
        else { return }
        buffer.removeAll(keepingCapacity: true)
        output = buffer
    }

    /// Memory to decrypt into, for the length of `body`. A stream inside a stream gets memory of its own.
    static func withPlaintext(_ body: (UnsafeMutableRawBufferPointer) -> Void) {
        guard isPlaintextTaken else {
            isPlaintextTaken = true
            defer { isPlaintextTaken = false }
            return body(plaintext)
        }
        let own = UnsafeMutableRawBufferPointer.allocate(byteCount: plaintextBytes, alignment: 64)
        defer { own.deallocate() }
        body(own)
    }

    // MARK: The BIO

    /// A new BIO; the SSL object that it is given to owns it.
    static func makeBIO() -> OpaquePointer? {
        guard let method, let bio = BIO_new(method) else { return nil }
        BIO_set_init(bio, 1)
        return bio
    }

    private static let method: OpaquePointer? = {
        guard let method = BIO_meth_new(BIO_get_new_index() | BIO_TYPE_SOURCE_SINK, "hc stream")
        else { return nil }
        BIO_meth_set_write_ex(method) { _, bytes, count, written in
            // OpenSSL calls back in the middle of our own call, on the loop's thread; the pointers are used before
            // this returns.
            nonisolated(unsafe) let bytes = bytes
            LoopActor.assumeIsolated {
                TLSEngine.output.append(
                    contentsOf: UnsafeRawBufferPointer(start: bytes, count: count))
            }
            written?.pointee = count
            return 1
        }
        BIO_meth_set_read_ex(method) { bio, bytes, count, copied in
            // As above.
            nonisolated(unsafe) let bytes = bytes
            let taken = LoopActor.assumeIsolated {
                TLSEngine.read(UnsafeMutableRawBufferPointer(start: bytes, count: count))
            }
            hc_bio_clear_retry(bio)
            if taken == 0 {
                hc_bio_set_retry_read(bio)
                return 0
            }
            copied?.pointee = taken
            return 1
        }
        BIO_meth_set_ctrl(method) { _, command, _, _ in
            command == BIO_CTRL_FLUSH ? 1 : 0
        }
        return method
    }()

    private static func read(_ buffer: UnsafeMutableRawBufferPointer) -> Int {
        let count = min(buffer.count, input.count)
        guard count > 0 else {
            isStarved = true
            return 0
        }
        buffer.copyMemory(from: UnsafeRawBufferPointer(rebasing: input[..<count]))
        input = UnsafeRawBufferPointer(rebasing: input[count...])
        return count
    }
}

/// The owner of one `SSL`, with its BIO and its session (SSL_free).
struct TLSSession: ~Copyable {
    let pointer: OpaquePointer

    init(_ pointer: OpaquePointer) {
        self.pointer = pointer
    }

    deinit { SSL_free(pointer) }
}

/// The owner of one `SSL_CTX`. Connections hold references of their own to it.
struct TLSLibraryContext: ~Copyable {
    let pointer: OpaquePointer

    init(_ pointer: OpaquePointer) {
        self.pointer = pointer
    }

    deinit { SSL_CTX_free(pointer) }
}
