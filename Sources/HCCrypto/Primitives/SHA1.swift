import COpenSSL

/// SHA-1 (FIPS 180-4), for the protocol that names it and asks nothing of it: the WebSocket handshake (RFC 6455
/// 10.8). It protects nothing.
package enum SHA1 {
    package static let byteCount = 20

    package static func hash(_ bytes: [UInt8]) -> [UInt8] {
        [UInt8](unsafeUninitializedCapacity: byteCount) { output, count in
            let result = bytes.withUnsafeBytes { input in
                COpenSSL.SHA1(
                    input.bindMemory(to: UInt8.self).baseAddress, input.count, output.baseAddress)
            }
            precondition(result != nil, "SHA1 of OpenSSL needs no memory and cannot fail")
            count = byteCount
        }
    }
}
