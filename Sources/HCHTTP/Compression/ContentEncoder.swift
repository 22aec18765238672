import HCCore

/// What is wanted of an encoder besides taking the bytes in.
enum EncoderOperation {
    /// Nothing: output comes when there is enough of it.
    case proceed
    /// All that was given so far can be decoded from what is put out.
    case flush
    /// The end of the content.
    case finish
}

/// Makes one coded content from pieces.
protocol ContentEncoder: AnyObject {
    /// Takes in all of `bytes` and appends what comes out.
    ///
    /// - Throws: if the library fails, which is memory that ran out.
    func encode(
        _ bytes: UnsafeRawBufferPointer, _ operation: EncoderOperation,
        into output: inout ByteBuffer
    ) throws(ContentEncoderError)
}

struct ContentEncoderError: Error {
    let coding: ContentCoding
}
