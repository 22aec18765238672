package import HCCore
package import HCCrypto

extension MoveManifest {
    static let format = "hc.move-manifest.1"

    enum Limits {
        static let json = JSONLimits(bytesMax: 256 * 1024, depthMax: 4, elementsMax: 10_000)
        static let tablesMax = 1000
        static let textBytesMax = 200
    }

    package static func makeSigner(_ master: MasterKey) throws(CryptoError) -> PlatformSigner {
        try PlatformSigner(master: master, purpose: "hc.move-manifest.1")
    }

    /// The document with its signature, members in order of their names: as text (RFC 8785), and after any change of
    /// form that JSON allows, such as a round through jsonb, ``verified(_:by:)`` reads it.
    package func signed(by signer: PlatformSigner) throws(CryptoError) -> JSONValue {
        try Self.signed(json, by: signer)
    }

    static func signed(
        _ document: JSONValue, by signer: PlatformSigner
    ) throws(CryptoError) -> JSONValue {
        var signature: JSONObject = [
            "algorithm": .string(PlatformSigner.algorithm), "key": .string("\(signer.active)"),
        ]
        let unsigned = document.adding(["signature": .object(signature)]).canonical
        let value = Hex.encode(try signer.sign(unsigned.serialized))
        signature.set(.string(value), for: "value")
        return unsigned.adding(["signature": .object(signature)]).canonical
    }

    /// Reads a manifest that was signed, or says why it is none.
    package static func verified(
        _ bytes: [UInt8], by signer: PlatformSigner
    ) throws(MoveManifestError) -> MoveManifest {
        let document: JSONValue
        do throws(JSONError) {
            document = try JSONReader.parse(bytes, limits: Limits.json)
        } catch {
            throw .malformed(error)
        }
        return try verified(document, by: signer)
    }

    package static func verified(
        _ document: JSONValue, by signer: PlatformSigner
    ) throws(MoveManifestError) -> MoveManifest {
        var reader = try ManifestReader(document, at: "")
        let format = try reader.text("format")
        guard format == Self.format else { throw .unsupportedFormat(format) }
        var signature = try reader.object("signature")
        let algorithm = try signature.text("algorithm")
        guard algorithm == PlatformSigner.algorithm else {
            throw .unsupportedAlgorithm(algorithm)
        }
        let key = PlatformSigner.KeyName(try signature.text("key"))
        let value = try signature.text("value")
        guard let code = Hex.decode(value), code.count == 32, Hex.encode(code) == value else {
            throw .invalid("signature.value", expected: "64 lower-case hex digits")
        }
        try signature.finish()
        try requireCanonical(document, at: "", depth: 1)
        let unsigned = document.adding([
            "signature": [
                "algorithm": .string(algorithm), "key": .string("\(key)"),
            ]
        ]).canonical
        let isValid: Bool?
        do throws(CryptoError) {
            isValid = try signer.isValid(code, of: unsigned.serialized, by: key)
        } catch {
            throw .crypto("\(error)")
        }
        guard let isValid else {
            throw .unknownKey("\(key)", known: signer.names.map { "\($0)" })
        }
        guard isValid else { throw .changed(key: "\(key)") }
        return try MoveManifest(&reader)
    }

    /// One text for each value: no fractions, whose digits could be written in several ways, no integers that other
    /// readers would round (RFC 8785 3.2.2.3), no control characters, whose escapes differ.
    private static func requireCanonical(
        _ value: JSONValue, at path: String, depth: Int
    ) throws(MoveManifestError) {
        switch value {
        case .null, .bool: break
        case .integer(let number):
            guard number.magnitude < 1 << 53 else {
                throw .invalid(path, expected: "an integer below 2^53")
            }
        case .double: throw .invalid(path, expected: "an integer")
        case .string(let text):
            guard text.utf8.allSatisfy({ $0 >= 0x20 && $0 < 0x7F }) else {
                throw .invalid(path, expected: "a text of printable ASCII characters")
            }
        case .array(let values):
            for (index, value) in values.enumerated() {
                try requireCanonical(value, at: "\(path)[\(index)]", depth: depth + 1)
            }
        case .object(let object):
            for member in object.members {
                let path = path.isEmpty ? member.name : "\(path).\(member.name)"
                try requireCanonical(.string(member.name), at: path, depth: depth + 1)
                try requireCanonical(member.value, at: path, depth: depth + 1)
            }
        }
    }
}

extension JSONValue {
    /// With the members of all objects in order of their names.
    fileprivate var canonical: JSONValue {
        switch self {
        case .array(let values): return .array(values.map(\.canonical))
        case .object(let object):
            var sorted = JSONObject()
            // Names are ASCII: UTF-16's order is that of the bytes.
            for member in object.members.sorted(by: {
                $0.name.utf8.lexicographicallyPrecedes($1.name.utf8)
            }) {
                sorted.insert(member.value.canonical, for: member.name)
            }
            return .object(sorted)
        default: return self
        }
    }
}
