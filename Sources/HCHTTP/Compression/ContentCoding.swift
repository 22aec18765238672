/// The content codings that are made and understood here, the preferred first (RFC 9110 8.4.1, RFC 7932).
package enum ContentCoding: UInt8, Sendable, Hashable, CaseIterable {
    case brotli
    case gzip
    /// RFC 1950 around RFC 1951, as the name has always meant; never the bare deflate that some have sent.
    case deflate

    package var name: StaticString {
        switch self {
        case .brotli: "br"
        case .gzip: "gzip"
        case .deflate: "deflate"
        }
    }

    /// What a strong entity tag of this coding ends with, before its last quote.
    var tagSuffix: String {
        switch self {
        case .brotli: "-br"
        case .gzip: "-gzip"
        case .deflate: "-deflate"
        }
    }

    /// In any case of its letters; `x-gzip` is gzip (RFC 9110 8.4.1.3).
    init?(_ name: UnsafeRawBufferPointer) {
        if name.isEqualIgnoringCase(to: "gzip") || name.isEqualIgnoringCase(to: "x-gzip") {
            self = .gzip
        } else if name.isEqualIgnoringCase(to: "br") {
            self = .brotli
        } else if name.isEqualIgnoringCase(to: "deflate") {
            self = .deflate
        } else {
            return nil
        }
    }
}
