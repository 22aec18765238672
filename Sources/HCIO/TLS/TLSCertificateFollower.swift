internal import CLinux
internal import COpenSSL
package import HCCore

/// Takes new certificate files into use as they come, without a restart and without touching a connection.
///
/// Files are looked at by name, size, inode and time of change, every `interval`: that works on every file system, and
/// for the way in which Kubernetes replaces mounted secrets. A change is acted upon when it has stayed the same for one
/// interval, so that a certificate is not read without its key. A pair that cannot be used is refused, and the one of
/// that name before stays.
@LoopActor package final class TLSCertificateFollower: Service {
    private let directory: String
    private let baseDomain: String
    private let interval: Duration
    private let contexts: [TLSContext]
    private let blocking: BlockingPool
    private let clocks: Clocks
    private let logger: Logger
    private var known: [UInt8]
    private var candidate: [UInt8]?

    private static let patience = Duration.seconds(30)

    /// - Parameter loading: what `contexts` were made with.
    package init(
        _ loading: TLSCertificates.Loading, directory: String, baseDomain: String,
        interval: Duration,
        contexts: [TLSContext], blocking: BlockingPool, clocks: Clocks, logger: Logger
    ) {
        self.directory = directory
        self.baseDomain = baseDomain
        self.interval = interval
        self.contexts = contexts
        self.blocking = blocking
        self.clocks = clocks
        self.logger = logger
        known = loading.fingerprint
    }

    package var serviceName: String { "certificates" }

    package func run() async throws {
        while true {
            try await Loop.shared.sleep(for: interval)
            try await look()
        }
    }

    /// One look at the files.
    package func look() async throws {
        for context in contexts { context.updateExpiry() }
        let directory = directory
        do {
            let found = try await blocking.run(deadline: deadline) {
                TLSCertificates.fingerprint(of: directory)
            }
            guard found != known else {
                candidate = nil
                return
            }
            guard found == candidate else {
                candidate = found
                return
            }
            candidate = nil
            try await reload()
        } catch let error as CancellationError {
            throw error
        } catch {
            logger.warning("certificate files were not looked at", [("error", .string("\(error)"))])
        }
    }

    private var deadline: Deadline {
        .after(TLSCertificateFollower.patience, from: Loop.now)
    }

    private func reload() async throws {
        let (directory, baseDomain, now) = (directory, baseDomain, clocks.now())
        let previous = contexts.first?.certificates
        let loading = try await blocking.run(deadline: deadline) {
            TLSCertificates.load(
                directory: directory, baseDomain: baseDomain, now: now, previous: previous)
        }
        known = loading.fingerprint
        for problem in loading.problems {
            contexts.first?.metrics?.refusedReloads.increment()
            logger.error(
                "certificate refused, the one before stays in use",
                [
                    ("file", .string(problem.file)), ("problem", .string(problem.problem)),
                    ("remedy", .string(problem.remedy)),
                ])
        }
        guard let certificates = loading.certificates else { return }
        for context in contexts {
            do throws(TLSFailure) {
                try context.replaceCertificates(certificates)
            } catch {
                logger.error(
                    "certificates refused, those before stay in use",
                    [("error", .string("\(error)"))])
                return
            }
        }
        contexts.first?.metrics?.reloads.increment()
        logger.notice(
            "certificates in use",
            [
                ("count", .integer(certificates.all.count)),
                ("default", .string(certificates.standard.name)),
                ("firstExpiry", .string(certificates.firstExpiry.rfc3339)),
            ])
    }
}

extension TLSCertificates {
    /// Changes when a file of the directory does. Blocking; any thread.
    package static func fingerprint(of directory: String) -> [UInt8] {
        var text = ""
        do throws(Files.FileError) {
            for name in try Files.list(directory).prefix(Limits.filesMax * 3) {
                var status = stat()
                guard stat("\(directory)/\(name)", &status) == 0 else { continue }
                text +=
                    "\(name) \(status.st_dev) \(status.st_ino) \(status.st_size) \(status.st_mode)"
                text += " \(status.st_mtim.tv_sec) \(status.st_mtim.tv_nsec)\n"
            }
        } catch {
            text = "\(error)"
        }
        var digest = [UInt8](repeating: 0, count: 32)
        let bytes = Array(text.utf8)
        _ = SHA256(bytes, bytes.count, &digest)
        return digest
    }
}
