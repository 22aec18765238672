internal import CLinux
internal import COpenSSL
package import HCCore

/// What is wrong with a file of TLS, and what to do about it.
package struct TLSFileProblem: Error, Hashable, Sendable, CustomStringConvertible {
    package let file: String
    package let problem: String
    package let remedy: String

    package init(file: String, problem: String, remedy: String) {
        self.file = file
        self.problem = problem
        self.remedy = remedy
    }

    package var description: String { "\(file): \(problem): \(remedy)" }
}

/// A certificate with its chain and private key, and the OCSP answer that goes with it.
///
/// Sendable: the OpenSSL objects are not changed after `init` and count their references atomically
/// (openssl-threads(7)); they are freed with this object, and contexts hold references of their own.
package final class TLSCertificate: @unchecked Sendable {
    package enum Limits {
        package static let fileBytesMax = 256 << 10
        package static let chainMax = 10
    }

    /// The files' name without extension.
    package let name: String
    /// The DNS names that it is good for, in lower case; one may begin with `*.`.
    package let hosts: [String]
    package let notBefore: Timestamp
    package let notAfter: Timestamp
    /// SHA-256 of the certificate.
    package let fingerprint: [UInt8]
    /// Whether it is for a key of RSA: clients that are old verify no other.
    package let isRSA: Bool
    /// Until when the OCSP answer may be sent; nil: there is none.
    package let stapleExpires: Timestamp?

    let certificate: OpaquePointer
    let key: OpaquePointer
    /// What follows the certificate in its file.
    let chain: OpaquePointer
    let staple: [UInt8]

    private init(
        name: String, certificate: OpaquePointer, chain: OpaquePointer, key: OpaquePointer,
        staple: OCSPStaple?
    ) {
        self.name = name
        self.certificate = certificate
        self.chain = chain
        self.key = key
        self.staple = staple?.bytes ?? []
        stapleExpires = staple?.expires
        isRSA = EVP_PKEY_get_base_id(key) == EVP_PKEY_RSA
        hosts = TLSCertificate.hosts(of: certificate)
        notBefore = Timestamp(asn1: X509_get0_notBefore(certificate))
        notAfter = Timestamp(asn1: X509_get0_notAfter(certificate))
        fingerprint = TLSCertificate.fingerprint(of: certificate)
    }

    deinit {
        X509_free(certificate)
        hc_x509_stack_free(chain)
        EVP_PKEY_free(key)
    }

    // MARK: Reading

    /// Reads `<path>.crt`, `<path>.key` and, where there is one, `<path>.ocsp`.
    ///
    /// - Returns: also problems of the OCSP answer, without which the certificate is used all the same.
    /// - Throws: what makes the pair useless.
    static func load(
        path: String, name: String, now: Timestamp
    ) throws(TLSFileProblem) -> (certificate: TLSCertificate, problems: [TLSFileProblem]) {
        let certificateFile = path + ".crt"
        let keyFile = path + ".key"
        let certificateBytes = try read(
            certificateFile, remedy: "put the certificate there, in PEM, with its chain after it")
        let keyBytes = try read(
            keyFile, remedy: "put the private key of \(certificateFile) there, with mode 0600")
        try checkMode(keyFile)
        var problems: [TLSFileProblem] = []
        let stack = try parseCertificates(certificateBytes, file: certificateFile)
        var owned: OpaquePointer? = stack.certificate
        var chain: OpaquePointer? = stack.chain
        defer {
            X509_free(owned)
            if let chain { hc_x509_stack_free(chain) }
        }
        let key = try parseKey(keyBytes, file: keyFile)
        var ownedKey: OpaquePointer? = key
        defer { EVP_PKEY_free(ownedKey) }
        ERR_clear_error()
        guard X509_check_private_key(stack.certificate, key) == 1 else {
            ERR_clear_error()
            throw TLSFileProblem(
                file: keyFile, problem: "is not the key of the certificate in \(certificateFile)",
                remedy: "put the two that belong together there")
        }
        try checkAcceptable(stack.certificate, key, stack.chain, file: certificateFile)
        try checkDates(stack.certificate, file: certificateFile, now: now)

        var staple: OCSPStaple?
        do throws(TLSFileProblem) {
            staple = try OCSPStaple.load(
                file: path + ".ocsp", certificate: stack.certificate, now: now)
        } catch {
            problems.append(error)
        }
        owned = nil
        chain = nil
        ownedKey = nil
        return (
            TLSCertificate(
                name: name, certificate: stack.certificate, chain: stack.chain, key: key,
                staple: staple), problems
        )
    }

    private static func read(_ file: String, remedy: String) throws(TLSFileProblem) -> [UInt8] {
        do throws(Files.FileError) {
            return try Files.read(file, bytesMax: Limits.fileBytesMax)
        } catch {
            let problem = error.isMissing ? "there is no such file" : "\(error)"
            throw TLSFileProblem(file: file, problem: problem, remedy: remedy)
        }
    }

    /// As for other keys of the platform: nobody but the owner.
    private static func checkMode(_ file: String) throws(TLSFileProblem) {
        var status = stat()
        guard stat(file, &status) == 0, status.st_mode & 0o077 == 0 else {
            throw TLSFileProblem(
                file: file, problem: "can be read or written by others",
                remedy: "only the owner may read it: chmod 600 \(file)")
        }
    }

    /// The certificates of a PEM text: the first, and a stack of the others.
    private static func parseCertificates(
        _ bytes: [UInt8], file: String
    ) throws(TLSFileProblem) -> (certificate: OpaquePointer, chain: OpaquePointer) {
        func refuse(_ problem: String) -> TLSFileProblem {
            TLSFileProblem(
                file: file, problem: problem,
                remedy:
                    "write the certificate and then its chain, each between BEGIN and END CERTIFICATE"
            )
        }
        let all: [OpaquePointer]
        do throws(PEMError) {
            all = try PEM.certificates(bytes)
        } catch {
            throw refuse(error.text)
        }
        guard let first = all.first, all.count <= Limits.chainMax,
            let chain = hc_x509_stack_new()
        else {
            for certificate in all { X509_free(certificate) }
            throw refuse(
                all.isEmpty
                    ? "holds no certificate" : "has more than \(Limits.chainMax) certificates")
        }
        for certificate in all.dropFirst() { _ = hc_x509_stack_push(chain, certificate) }
        return (first, chain)
    }

    private static func parseKey(
        _ bytes: [UInt8], file: String
    ) throws(TLSFileProblem) -> OpaquePointer {
        ERR_clear_error()
        let key = PEM.withBIO(bytes) { bio in
            // Nobody is there to type a password: an encrypted key is refused, not asked about.
            PEM_read_bio_PrivateKey(bio, nil, { _, _, _, _ in -1 }, nil)
        }
        guard let key else {
            let text = String(decoding: bytes, as: UTF8.self)
            let isEncrypted = text.contains("ENCRYPTED")
            ERR_clear_error()
            throw TLSFileProblem(
                file: file,
                problem: isEncrypted ? "is encrypted" : "holds no private key in PEM",
                remedy: isEncrypted
                    ? "write it without a password: openssl pkey -in FILE -out \(file); chmod 600 \(file)"
                    : "write the key there, between BEGIN and END PRIVATE KEY")
        }
        return key
    }

    /// What OpenSSL's security level refuses: short keys, SHA-1.
    private static func checkAcceptable(
        _ certificate: OpaquePointer, _ key: OpaquePointer, _ chain: OpaquePointer, file: String
    ) throws(TLSFileProblem) {
        ERR_clear_error()
        guard let trial = SSL_CTX_new(TLS_server_method()) else { return }
        defer { SSL_CTX_free(trial) }
        SSL_CTX_set_security_level(trial, TLSContext.securityLevel)
        guard SSL_CTX_use_cert_and_key(trial, certificate, key, chain, 1) == 1 else {
            throw TLSFileProblem(
                file: file, problem: "cannot be used: \(TLSLibrary.takeError())",
                remedy:
                    "use a certificate with an ECDSA P-256 key, or RSA of 2048 bits or more, and SHA-256"
            )
        }
    }

    private static func checkDates(
        _ certificate: OpaquePointer, file: String, now: Timestamp
    ) throws(TLSFileProblem) {
        let notBefore = Timestamp(asn1: X509_get0_notBefore(certificate))
        let notAfter = Timestamp(asn1: X509_get0_notAfter(certificate))
        guard now <= notAfter else {
            throw TLSFileProblem(
                file: file, problem: "expired at \(notAfter)", remedy: "put a renewed one there")
        }
        guard notBefore <= now else {
            throw TLSFileProblem(
                file: file, problem: "is valid only from \(notBefore)",
                remedy: "use the certificate before it until then, or set this machine's clock")
        }
    }

    private static func hosts(of certificate: OpaquePointer) -> [String] {
        var names: [String] = []
        withUnsafeMutablePointer(to: &names) { names in
            hc_x509_dns_names(
                certificate,
                { context, bytes, count in
                    guard let context, let bytes, (1...255).contains(count) else { return }
                    let text = UnsafeBufferPointer(start: bytes, count: Int(count))
                    guard let name = TLSHost.normalised(text, allowsWildcard: true) else { return }
                    context.assumingMemoryBound(to: [String].self).pointee.append(name)
                }, names)
        }
        return names
    }

    private static func fingerprint(of certificate: OpaquePointer) -> [UInt8] {
        var digest = [UInt8](repeating: 0, count: 32)
        _ = X509_digest(certificate, EVP_sha256(), &digest, nil)
        return digest
    }
}

/// Names of hosts as certificates and clients write them.
enum TLSHost {
    /// In lower case, without the dot at the end; nil for what is no host name (RFC 6066 3: ASCII, no address).
    static func normalised(
        _ bytes: some Collection<UInt8>, allowsWildcard: Bool = false
    ) -> String? {
        guard (1...255).contains(bytes.count) else { return nil }
        var text: [UInt8] = []
        text.reserveCapacity(bytes.count)
        for byte in bytes {
            switch byte {
            case 0x61...0x7A, 0x30...0x39, 0x2D, 0x2E, 0x5F: text.append(byte)
            case 0x41...0x5A: text.append(byte | 0x20)
            case 0x2A where allowsWildcard && text.isEmpty: text.append(byte)
            default: return nil
            }
        }
        if text.last == 0x2E { text.removeLast() }
        guard !text.isEmpty, text.first != 0x2E else { return nil }
        if text.first == 0x2A { guard text.count > 2, text[1] == 0x2E else { return nil } }
        return String(decoding: text, as: UTF8.self)
    }
}

struct PEMError: Error {
    let text: String
}

enum PEM {
    /// Reads from memory; nothing of it is kept.
    static func withBIO<Result>(_ bytes: [UInt8], _ body: (OpaquePointer) -> Result?) -> Result? {
        bytes.withUnsafeBytes { bytes in
            guard let bio = BIO_new_mem_buf(bytes.baseAddress, Int32(bytes.count)) else {
                return nil
            }
            defer { BIO_free(bio) }
            return body(bio)
        }
    }

    /// Every certificate of a PEM text; the caller frees them.
    static func certificates(_ bytes: [UInt8]) throws(PEMError) -> [OpaquePointer] {
        guard !bytes.isEmpty else { return [] }
        ERR_clear_error()
        var found: [OpaquePointer] = []
        _ = withBIO(bytes) { bio -> Void? in
            while let certificate = PEM_read_bio_X509(bio, nil, { _, _, _, _ in -1 }, nil) {
                found.append(certificate)
            }
            return nil
        }
        // The end of the text is told as an error, and it is the only one that is none.
        let code = ERR_peek_last_error()
        let isEnd = ERR_GET_LIB(code) == ERR_LIB_PEM && ERR_GET_REASON(code) == PEM_R_NO_START_LINE
        ERR_clear_error()
        guard isEnd || code == 0 else {
            for certificate in found { X509_free(certificate) }
            throw PEMError(text: "is damaged: \(TLSLibrary.text(of: UInt(code)))")
        }
        return found
    }
}

extension Timestamp {
    /// A time that cannot be read is long past.
    init(asn1 time: UnsafePointer<ASN1_TIME>?) {
        var seconds: Int64 = 0
        if let time, hc_asn1_time_seconds(time, &seconds) == 1 {
            self.init(seconds: seconds)
        } else {
            self.init(seconds: 0)
        }
    }
}
