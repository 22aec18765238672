package import HCCore

/// The certificates of one moment, and which of them a client gets.
///
/// By the name that the client asks for (SNI, RFC 6066 3): a certificate with exactly this name; else one with a
/// wildcard for it, which stands for one label (RFC 6125 6.4.3); else the default. A client that asks for a name
/// which nobody knows gets the default certificate as well, without our acknowledgement of the name: RFC 6066 allows
/// that or the alert `unrecognized_name`, and with the certificate the client's own message says what is wrong
/// ("the certificate is for …") where the alert says nothing. Nothing is served by it: the host is looked up again.
package struct TLSCertificates: Sendable {
    /// By name, which is the files' name.
    package let all: [TLSCertificate]
    package let standard: TLSCertificate
    private let exact: [String: TLSCertificateChoice]
    /// By what follows the asterisk: `.clinics.example`.
    private let wildcards: [String: TLSCertificateChoice]

    /// - Parameter baseDomain: the certificate with a wildcard for it is the default, unless one is named `default`.
    /// - Returns: nil if there is none at all.
    package init?(_ certificates: [TLSCertificate], baseDomain: String) {
        all = certificates.sorted { $0.name < $1.name }
        var exact: [String: TLSCertificateChoice] = [:]
        var wildcards: [String: TLSCertificateChoice] = [:]
        for certificate in all {
            for host in certificate.hosts {
                if host.hasPrefix("*.") {
                    wildcards[String(host.dropFirst()), default: .init()].add(certificate)
                } else {
                    exact[host, default: .init()].add(certificate)
                }
            }
        }
        let named = all.first { $0.name == TLSCertificates.standardName }
        let ofBase = wildcards["." + baseDomain] ?? exact[baseDomain]
        guard let standard = named ?? ofBase?.all.first ?? all.first else { return nil }
        self.standard = standard
        self.exact = exact
        self.wildcards = wildcards
    }

    package static let standardName = "default"

    /// The certificate for a host, the one with the smaller key if there are two.
    ///
    /// - Parameter host: in lower case, without a dot at its end.
    package func find(host: String) -> TLSCertificate? { choice(host: host)?.all.first }

    func choice(host: String) -> TLSCertificateChoice? {
        if let choice = exact[host] { return choice }
        guard let dot = host.firstIndex(of: "."), dot != host.startIndex else { return nil }
        return wildcards[String(host[dot...])]
    }

    /// When the first of them expires.
    package var firstExpiry: Timestamp { all.map(\.notAfter).min() ?? standard.notAfter }

    // MARK: Directory

    package enum Limits {
        package static let filesMax = 20_000
    }

    /// What was found in a directory.
    package struct Loading: Sendable {
        /// Nil: nothing there can be used.
        package let certificates: TLSCertificates?
        package let problems: [TLSFileProblem]
        /// Of the files as they were before they were read.
        package let fingerprint: [UInt8]
    }

    /// Reads every `<name>.crt` with its `<name>.key` and `<name>.ocsp`. Blocking; any thread.
    ///
    /// - Parameter previous: where a pair cannot be used any more, the one of that name that is in use stays.
    package static func load(
        directory: String, baseDomain: String, now: Timestamp, previous: TLSCertificates? = nil
    ) -> Loading {
        let fingerprint = fingerprint(of: directory)
        var problems: [TLSFileProblem] = []
        var found: [TLSCertificate] = []
        do throws(Files.FileError) {
            for name in try names(in: directory) {
                do throws(TLSFileProblem) {
                    let loaded = try TLSCertificate.load(
                        path: "\(directory)/\(name)", name: name, now: now)
                    found.append(loaded.certificate)
                    problems += loaded.problems
                } catch {
                    problems.append(error)
                    if let kept = previous?.all.first(where: { $0.name == name }) {
                        found.append(kept)
                    }
                }
            }
        } catch {
            problems.append(
                TLSFileProblem(
                    file: directory, problem: "\(error)",
                    remedy: "make the directory and put <name>.crt and <name>.key there"))
        }
        let certificates = TLSCertificates(found, baseDomain: baseDomain)
        if certificates == nil, problems.isEmpty {
            problems.append(
                TLSFileProblem(
                    file: directory, problem: "holds no certificate",
                    remedy: "put <name>.crt (PEM, with its chain) and <name>.key (mode 0600) there")
            )
        }
        return Loading(
            certificates: certificates, problems: problems, fingerprint: fingerprint)
    }

    private static func names(in directory: String) throws(Files.FileError) -> [String] {
        try Files.list(directory).prefix(Limits.filesMax).compactMap { file in
            // A name that begins with a dot is a mount's or an editor's own.
            file.hasSuffix(".crt") && !file.hasPrefix(".") ? String(file.dropLast(4)) : nil
        }
    }
}

/// What there is for one name: of each kind of key at most one. OpenSSL takes the one that the client can verify, by
/// the signature algorithms that it names, and that with ECDSA first (SSL_CTX_use_certificate(3)).
package struct TLSCertificateChoice: Sendable {
    private var ecdsa: TLSCertificate?
    private var rsa: TLSCertificate?

    var all: [TLSCertificate] { [ecdsa, rsa].compactMap { $0 } }

    /// Two of one kind, as around a renewal: the one that lasts longer.
    mutating func add(_ certificate: TLSCertificate) {
        let place = certificate.isRSA ? \Self.rsa : \Self.ecdsa
        if let other = self[keyPath: place], other.notAfter >= certificate.notAfter { return }
        self[keyPath: place] = certificate
    }
}
