import CLinux
import Glibc

/// Certificates that the `openssl` program makes in a directory of their own, which goes with this object.
package final class TestCertificates: Sendable {
    package let directory: String

    package init() throws {
        var template = Array("/tmp/hc-tls-XXXXXX".utf8CString)
        guard mkdtemp(&template) != nil else { throw FixtureError("mkdtemp failed") }
        directory = String(
            decoding: template.dropLast().map { UInt8(bitPattern: $0) }, as: UTF8.self)
    }

    deinit {
        // What is left over is in the temporary directory.
        _ = try? Subprocess.run("/bin/rm", ["-rf", directory])
    }

    package func path(_ file: String) -> String { "\(directory)/\(file)" }

    package enum Key: Sendable {
        case p256
        case rsa(Int)

        fileprivate var arguments: [String] {
            switch self {
            case .p256: ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1"]
            case .rsa(let bits): ["-newkey", "rsa:\(bits)"]
            }
        }
    }

    /// `<name>.crt` and `<name>.key`, signed by itself or by an authority that was made before.
    package func make(
        _ name: String, hosts: [String] = [], days: Int = 30, key: Key = .p256,
        authority: String? = nil
    ) throws {
        let names = hosts.map { "DNS:\($0)" } + ["IP:127.0.0.1"]
        let subject = ["-subj", "/CN=\(name)", "-nodes", "-keyout", path("\(name).key")]
        let extensions = "subjectAltName=" + names.joined(separator: ",")
        guard let authority else {
            try openssl(
                ["req", "-x509", "-sha256", "-days", "\(days)", "-addext", extensions]
                    + key.arguments + subject + ["-out", path("\(name).crt")])
            return
        }
        try write(Array((extensions + "\n").utf8), to: "\(name).ext")
        try openssl(["req"] + key.arguments + subject + ["-out", path("\(name).csr")])
        try openssl([
            "x509", "-req", "-sha256", "-days", "\(days)", "-in", path("\(name).csr"), "-CA",
            path("\(authority).crt"), "-CAkey", path("\(authority).key"), "-CAcreateserial",
            "-extfile", path("\(name).ext"), "-out", path("\(name).crt"),
        ])
    }

    /// `<name>.ocsp`: the authority's word that the certificate is good, or is not.
    package func staple(_ name: String, authority: String, isGood: Bool = true) throws {
        let serial =
            try openssl(["x509", "-in", path("\(name).crt"), "-noout", "-serial"])
            .split(separator: "=").last.map { $0.filter { $0.isHexDigit } } ?? ""
        let entry =
            isGood
            ? "V\t491231235959Z\t\t\(serial)\tunknown\t/CN=\(name)\n"
            : "R\t491231235959Z\t250101000000Z\t\(serial)\tunknown\t/CN=\(name)\n"
        try write(Array(entry.utf8), to: "index.txt")
        try openssl([
            "ocsp", "-issuer", path("\(authority).crt"), "-cert", path("\(name).crt"), "-reqout",
            path("\(name).req"),
        ])
        try openssl([
            "ocsp", "-index", path("index.txt"), "-CA", path("\(authority).crt"), "-rsigner",
            path("\(authority).crt"), "-rkey", path("\(authority).key"), "-reqin",
            path("\(name).req"), "-respout", path("\(name).ocsp"), "-ndays", "7",
        ])
    }

    @discardableResult
    package func openssl(_ arguments: [String]) throws -> String {
        try Subprocess.run("/usr/bin/openssl", arguments)
    }

    package func write(_ bytes: [UInt8], to file: String, mode: UInt32 = 0o600) throws {
        let descriptor = hc_open(path(file), O_WRONLY | O_CREAT | O_TRUNC, mode)
        guard descriptor >= 0 else { throw FixtureError("cannot create \(path(file))") }
        defer { close(descriptor) }
        guard fchmod(descriptor, mode) == 0,
            Glibc.write(descriptor, bytes, bytes.count) == bytes.count
        else { throw FixtureError("cannot write \(path(file))") }
    }

    package func move(_ file: String, to other: String) throws {
        guard rename(path(file), path(other)) == 0 else {
            throw FixtureError("cannot rename \(path(file))")
        }
    }

    package func remove(_ file: String) throws {
        guard unlink(path(file)) == 0 else { throw FixtureError("cannot remove \(path(file))") }
    }
}
