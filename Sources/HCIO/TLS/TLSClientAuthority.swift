internal import COpenSSL

/// The authorities whose certificates clients must show (mutual TLS). Sendable as `TLSCertificate` is.
package final class TLSClientAuthority: @unchecked Sendable {
    let certificates: [OpaquePointer]
    /// SHA-256 over the certificates: sessions that were begun under other authorities are not resumed.
    let digest: [UInt8]

    private init(certificates: [OpaquePointer], digest: [UInt8]) {
        self.certificates = certificates
        self.digest = digest
    }

    deinit {
        for certificate in certificates { X509_free(certificate) }
    }

    /// Reads a PEM file of one or more authorities.
    package static func load(file: String) throws(TLSFileProblem) -> TLSClientAuthority {
        let remedy = "put the authorities' certificates there, in PEM"
        let bytes: [UInt8]
        do throws(Files.FileError) {
            bytes = try Files.read(file, bytesMax: TLSCertificate.Limits.fileBytesMax)
        } catch {
            throw TLSFileProblem(
                file: file, problem: error.isMissing ? "there is no such file" : "\(error)",
                remedy: remedy)
        }
        let certificates: [OpaquePointer]
        do throws(PEMError) {
            certificates = try PEM.certificates(bytes)
        } catch {
            throw TLSFileProblem(file: file, problem: error.text, remedy: remedy)
        }
        guard !certificates.isEmpty else {
            throw TLSFileProblem(file: file, problem: "holds no certificate", remedy: remedy)
        }
        var digests: [UInt8] = []
        for certificate in certificates {
            var digest = [UInt8](repeating: 0, count: 32)
            _ = X509_digest(certificate, EVP_sha256(), &digest, nil)
            digests += digest
        }
        var digest = [UInt8](repeating: 0, count: 32)
        _ = SHA256(digests, digests.count, &digest)
        return TLSClientAuthority(certificates: certificates, digest: digest)
    }
}
