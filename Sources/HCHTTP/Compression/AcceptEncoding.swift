/// What a client accepts of content codings (RFC 9110 12.5.3).
///
/// The field is a wish, not a part of the message: an element that cannot be read is as if it were not there, and
/// no wish is ever answered with 406. A client that refuses `identity` gets a coding if it accepts one that we
/// have, however small the content; if it accepts none its wish is disregarded, as RFC 9110 12.4.1 allows, for
/// the work has been done and its outcome is worth more to the client than a refusal.
package struct AcceptEncoding: Sendable, Equatable {
    /// In thousandths; below 0 for what was not named.
    private var weights = (brotli: unnamed, gzip: unnamed, deflate: unnamed)
    private var identity = unnamed
    private var any = unnamed

    private static let unnamed: Int16 = -1

    package static func == (left: AcceptEncoding, right: AcceptEncoding) -> Bool {
        left.weights == right.weights && left.identity == right.identity && left.any == right.any
    }

    /// Nothing was said: any coding would do, and none is what everybody can read.
    package init() {}

    package init(_ headers: HTTPHeaders) {
        headers.forEachValue(.acceptEncoding) { add($0) }
    }

    package init(_ value: String) {
        var value = value
        value.withUTF8 { add(UnsafeRawBufferPointer($0)) }
    }

    /// Takes in one line of the field; several are one list (RFC 9110 5.2).
    mutating func add(_ line: UnsafeRawBufferPointer) {
        line.forEachListElement { element in
            guard let (name, weight) = AcceptEncoding.parse(element) else { return }
            if let coding = ContentCoding(name) {
                self[coding] = AcceptEncoding.stricter(self[coding], weight)
            } else if name.isEqualIgnoringCase(to: "identity") {
                identity = AcceptEncoding.stricter(identity, weight)
            } else if name.count == 1, name[0] == 0x2A {
                any = AcceptEncoding.stricter(any, weight)
            }
        }
    }

    /// The coding to answer with; nil: none.
    ///
    /// The highest weight wins, and of equal weights the coding that is earlier in `ContentCoding`. What is not
    /// coded is sent only if the client likes it better than every coding that it accepts.
    package func choose(among codings: [ContentCoding] = ContentCoding.allCases) -> ContentCoding? {
        var best: ContentCoding?
        var bestWeight: Int16 = 0
        for coding in codings {
            let named = self[coding]
            let weight = named == AcceptEncoding.unnamed ? any : named
            if weight > bestWeight {
                best = coding
                bestWeight = weight
            }
        }
        return bestWeight < identityWeight ? nil : best
    }

    /// Whether the client has said that it takes no uncoded content.
    package var refusesIdentity: Bool { identityWeight == 0 }

    /// -1 if it is accepted without being named: then every coding that is named comes first.
    private var identityWeight: Int16 {
        identity == AcceptEncoding.unnamed ? any : identity
    }

    private subscript(coding: ContentCoding) -> Int16 {
        get {
            switch coding {
            case .brotli: weights.brotli
            case .gzip: weights.gzip
            case .deflate: weights.deflate
            }
        }
        set {
            switch coding {
            case .brotli: weights.brotli = newValue
            case .gzip: weights.gzip = newValue
            case .deflate: weights.deflate = newValue
            }
        }
    }

    /// What is named twice has the lower of its weights: a refusal is never lost.
    private static func stricter(_ old: Int16, _ new: Int16) -> Int16 {
        old == unnamed ? new : min(old, new)
    }

    /// `codings [ OWS ";" OWS "q=" qvalue ]`; nil for anything else.
    private static func parse(
        _ element: UnsafeRawBufferPointer
    ) -> (name: UnsafeRawBufferPointer, weight: Int16)? {
        var end = 0
        while end < element.count, ByteClass.isToken(element[end]) { end += 1 }
        guard end > 0 else { return nil }
        let name = element.slice(0..<end)
        guard end < element.count else { return (name, 1000) }
        while end < element.count, ByteClass.isBlank(element[end]) { end += 1 }
        guard end < element.count, element[end] == 0x3B else { return nil }
        end += 1
        while end < element.count, ByteClass.isBlank(element[end]) { end += 1 }
        guard element.count >= end + 2, ByteClass.lower(element[end]) == 0x71,
            element[end + 1] == 0x3D,
            let weight = qvalue(element.slice(end + 2..<element.count))
        else { return nil }
        return (name, weight)
    }

    /// `0[.ddd]` or `1[.000]`, at most three digits (RFC 9110 12.4.2), in thousandths.
    private static func qvalue(_ text: UnsafeRawBufferPointer) -> Int16? {
        guard text.count >= 1, text.count <= 5, text[0] == 0x30 || text[0] == 0x31 else {
            return nil
        }
        var weight = Int16(text[0] - 0x30) * 1000
        guard text.count > 1 else { return weight }
        guard text[1] == 0x2E else { return nil }
        var unit: Int16 = 100
        for index in 2..<text.count {
            guard ByteClass.isDigit(text[index]) else { return nil }
            weight += Int16(text[index] - 0x30) * unit
            unit /= 10
        }
        return weight <= 1000 ? weight : nil
    }
}
