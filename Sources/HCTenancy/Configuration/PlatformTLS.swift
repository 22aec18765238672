package import HCCore
internal import HCCrypto
package import HCIO

extension PlatformConfiguration {
    /// Where the files of TLS are, and how sessions are resumed.
    package struct TLS: Sendable, Equatable {
        /// Holds `<name>.crt`, `<name>.key` and, where there is one, `<name>.ocsp`.
        package var certificatesDirectory: String
        package var ticketKeyFile: String
        package var ticketPeriod: Duration
        package var ticketLifetime: Duration
        /// How often the certificate files are looked at.
        package var reloadInterval: Duration
        /// The port that clients reach TLS at, for redirects: it differs from ours behind a load balancer.
        package var publicPort: Int
        /// For Strict-Transport-Security; zero: not sent.
        package var strictTransportSecurity: Duration
        package var handshakeTimeout: Duration
        package var handshakesMax: Int
    }

    /// The operator listener.
    package struct Operations: Sendable, Equatable {
        /// Set: operators come by TLS and show a certificate of these authorities.
        package var clientAuthorityFile: String?
    }
}

extension PlatformConfiguration.TLS {
    init(
        _ reader: ConfigurationReader, _ profile: PlatformConfiguration.Profile, secrets: String,
        port: Int
    ) {
        certificatesDirectory = reader.string("certificatesDirectory", default: "\(secrets)/tls")
        ticketKeyFile = reader.string("ticketKeyFile", default: "\(secrets)/tickets.key")
        ticketPeriod = reader.duration(
            "ticketPeriod", in: .seconds(1)...(.seconds(86_400)), default: .seconds(3600))
        ticketLifetime = reader.duration(
            "ticketLifetime", in: .seconds(1)...(.seconds(7 * 86_400)), default: .seconds(12 * 3600)
        )
        reloadInterval = reader.duration(
            "reloadInterval", in: .milliseconds(100)...(.seconds(3600)), default: .seconds(2))
        publicPort = reader.integer("publicPort", in: 1...65535, default: port)
        // A browser that trusts a local certificate would not come back to the plain local port for so long.
        strictTransportSecurity = reader.duration(
            "strictTransportSecurity", in: .zero...(.seconds(63_072_000)),
            default: profile == .production ? .seconds(31_536_000) : .seconds(300))
        handshakeTimeout = reader.duration(
            "handshakeTimeout", in: .seconds(1)...(.seconds(120)), default: .seconds(10))
        handshakesMax = reader.integer("handshakesMax", in: 1...100_000, default: 1024)
        if ticketLifetime.components.seconds / ticketPeriod.components.seconds
            >= TLSTickets.periodsMax
        {
            reader.report(
                "ticketLifetime", "is \(TLSTickets.periodsMax) periods or more",
                "write a longer ticketPeriod or a shorter ticketLifetime")
        }
    }
}

/// The files of TLS, read. Blocking.
package struct PlatformTLS: Sendable {
    package let loading: TLSCertificates.Loading
    package let certificates: TLSCertificates
    package let tickets: TLSTickets
    /// Whose certificates operators show; nil: none is asked for.
    package let operators: TLSClientAuthority?

    /// Everything without which TLS cannot be served.
    package struct Refusal: Error, Sendable, CustomStringConvertible {
        package let problems: [String]

        package init(problems: [String]) {
            self.problems = problems
        }

        package var description: String {
            "TLS cannot be served:\n" + problems.map { "  \($0)" }.joined(separator: "\n")
        }
    }

    /// Certificates that cannot be used, while others can: clients of their hosts get the default one.
    package var problems: [TLSFileProblem] { loading.problems }

    /// - Returns: nil if the configuration has no TLS.
    /// - Throws: `Refusal` naming each file and what to do.
    package static func load(
        _ platform: PlatformConfiguration, now: Timestamp
    ) throws(Refusal) -> PlatformTLS? {
        guard let tls = platform.tls else { return nil }
        var refusals: [String] = []
        let loading = TLSCertificates.load(
            directory: tls.certificatesDirectory, baseDomain: platform.baseDomain, now: now)
        if loading.certificates == nil { refusals += loading.problems.map(\.description) }
        var secrets: [TLSTicketSecret] = []
        do throws(KeyFileError) {
            secrets = try TicketKeys.load(path: tls.ticketKeyFile).map { secret in
                secret.withUnsafeBytes { TLSTicketSecret($0) }
            }
        } catch {
            refusals.append("\(error)")
        }
        var operators: TLSClientAuthority?
        if let file = platform.operations.clientAuthorityFile {
            do throws(TLSFileProblem) {
                operators = try TLSClientAuthority.load(file: file)
            } catch {
                refusals.append("\(error)")
            }
        }
        guard let certificates = loading.certificates, refusals.isEmpty else {
            throw Refusal(problems: refusals)
        }
        return PlatformTLS(
            loading: loading, certificates: certificates,
            tickets: TLSTickets(
                secrets: secrets, period: tls.ticketPeriod, lifetime: tls.ticketLifetime),
            operators: operators)
    }

    /// Everything that is not as it should be, for `config check` and before workers are replaced.
    package static func problems(_ platform: PlatformConfiguration, now: Timestamp) -> [String] {
        do throws(Refusal) {
            guard let loaded = try load(platform, now: now) else { return [] }
            var found = loaded.problems.map(\.description)
            let sample = "clinic.\(platform.baseDomain)"
            if loaded.certificates.find(host: sample) == nil, let tls = platform.tls {
                found.append(
                    "\(tls.certificatesDirectory): no certificate is for *.\(platform.baseDomain): "
                        + "clients of clinics under the base domain will refuse to connect; add one"
                )
            }
            return found
        } catch {
            return error.problems
        }
    }
}
