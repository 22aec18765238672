internal import COpenSSL
internal import HCCore

/// One secret that ticket keys are derived from. Wiped before it is freed, printed as `***`.
///
/// Sendable because the bytes are written in `init` only and never afterwards.
package final class TLSTicketSecret: @unchecked Sendable, CustomStringConvertible {
    fileprivate let bytes: UnsafeMutableRawBufferPointer

    package init(_ source: UnsafeRawBufferPointer) {
        bytes = .allocate(byteCount: max(1, source.count), alignment: 16)
        bytes.copyMemory(from: source)
    }

    deinit {
        OPENSSL_cleanse(bytes.baseAddress, bytes.count)
        bytes.deallocate()
    }

    package var description: String { "***" }
}

/// How sessions are resumed without any state on our side (RFC 5077, RFC 8446 4.6.1).
package struct TLSTickets: Sendable {
    /// The first makes new tickets, all of them open what clients bring. Every process and machine that has the
    /// same secrets resumes the sessions of the others.
    package var secrets: [TLSTicketSecret]
    /// How long one derived key makes tickets.
    package var period: Duration
    /// How long a session can be resumed after its full handshake.
    package var lifetime: Duration

    package static let periodsMax = 200

    package init(
        secrets: [TLSTicketSecret], period: Duration = .seconds(3600),
        lifetime: Duration = .seconds(12 * 3600)
    ) {
        precondition(!secrets.isEmpty, "tickets need a secret")
        precondition(period >= .seconds(1) && lifetime >= .seconds(1), "times are positive")
        precondition(lifetime.inSeconds / period.inSeconds < TLSTickets.periodsMax)
        self.secrets = secrets
        self.period = period
        self.lifetime = lifetime
    }
}

extension Duration {
    fileprivate var inSeconds: Int64 { components.seconds }
}

/// The ticket keys of one context, derived from the secrets by HKDF and the number of the period: nothing is sent
/// between processes, and clocks that differ by less than a period do no harm.
///
/// The 16 bytes of a ticket's key name are: the period (4), which secret it was (4), and a tag of the host that the
/// client asked for (8). So a ticket is not even decrypted for another host (RFC 6066 3), nor by a context of another
/// purpose or with other client authorities. All of the ticket is under its MAC, the name too (RFC 5077 4).
@LoopActor final class TLSTicketRing {
    enum Opening {
        case unknown
        case current
        /// Of an earlier period, or of a secret that is being retired: the client gets a new ticket.
        case renew
    }

    /// Wiped before it is freed.
    private final class Key {
        static let encryption = 4..<36
        static let authentication = 36..<68
        static let tagging = 68..<100
        static let count = 100

        let bytes = UnsafeMutableRawBufferPointer.allocate(byteCount: Key.count, alignment: 16)

        deinit {
            OPENSSL_cleanse(bytes.baseAddress, bytes.count)
            bytes.deallocate()
        }

        func pointer(_ range: Range<Int>) -> UnsafePointer<UInt8>? {
            bytes.baseAddress.map {
                UnsafePointer(($0 + range.lowerBound).assumingMemoryBound(to: UInt8.self))
            }
        }
    }

    private struct Identity: Hashable {
        let period: Int64
        let secret: Int
    }

    static let nameCount = 16
    static let ivCount = 16

    private let tickets: TLSTickets
    /// What tickets are for: part of every derivation.
    private let purpose: [UInt8]
    private let clocks: Clocks
    private var keys: [Identity: Key] = [:]
    private var lastPeriod: Int64 = .min

    init(_ tickets: TLSTickets, purpose: [UInt8], clocks: Clocks) {
        self.tickets = tickets
        self.purpose = purpose
        self.clocks = clocks
    }

    /// Keys in memory.
    var keyCount: Int { keys.count }

    /// Periods that may still have a ticket within its lifetime.
    private var periodsBack: Int64 {
        (tickets.lifetime.inSeconds + tickets.period.inSeconds - 1) / tickets.period.inSeconds
    }

    private func currentPeriod() -> Int64 {
        let period = clocks.now().seconds / tickets.period.inSeconds
        if period != lastPeriod {
            lastPeriod = period
            let oldest = period - periodsBack
            keys = keys.filter { $0.key.period >= oldest && $0.key.period <= period + 1 }
        }
        return period
    }

    /// Sets up the encryption of a new ticket and writes its name and initialisation vector.
    func seal(
        host: String, name: UnsafeMutablePointer<UInt8>, iv: UnsafeMutablePointer<UInt8>,
        cipher: OpaquePointer, mac: OpaquePointer
    ) -> Bool {
        let period = currentPeriod()
        guard let key = key(Identity(period: period, secret: 0)),
            RAND_bytes(iv, Int32(TLSTicketRing.ivCount)) == 1
        else { return false }
        writeName(name, period: period, key: key, host: host)
        return EVP_EncryptInit_ex(
            cipher, EVP_aes_256_cbc(), nil, key.pointer(Key.encryption), iv) == 1
            && hc_hmac_sha256_init(mac, key.pointer(Key.authentication), 32) == 1
    }

    /// Sets up the decryption of a ticket that a client has brought for `host`.
    func open(
        host: String, name: UnsafePointer<UInt8>, iv: UnsafePointer<UInt8>, cipher: OpaquePointer,
        mac: OpaquePointer
    ) -> Opening {
        let current = currentPeriod()
        let period = (0..<4).reduce(Int64(0)) { $0 << 8 | Int64(name[$1]) }
        // The next one too: the clock of another machine may be ahead.
        guard period >= current - periodsBack, period <= current + 1 else { return .unknown }
        var expected = [UInt8](repeating: 0, count: TLSTicketRing.nameCount)
        for secret in tickets.secrets.indices {
            guard let key = key(Identity(period: period, secret: secret)) else { continue }
            expected.withUnsafeMutableBufferPointer {
                guard let base = $0.baseAddress else { return }
                writeName(base, period: period, key: key, host: host)
            }
            guard CRYPTO_memcmp(expected, name, TLSTicketRing.nameCount) == 0 else { continue }
            guard
                EVP_DecryptInit_ex(
                    cipher, EVP_aes_256_cbc(), nil, key.pointer(Key.encryption), iv) == 1,
                hc_hmac_sha256_init(mac, key.pointer(Key.authentication), 32) == 1
            else { return .unknown }
            return secret == 0 && period >= current ? .current : .renew
        }
        return .unknown
    }

    private func writeName(
        _ name: UnsafeMutablePointer<UInt8>, period: Int64, key: Key, host: String
    ) {
        for index in 0..<4 {
            name[index] = UInt8(truncatingIfNeeded: period >> (24 - 8 * Int64(index)))
            name[4 + index] = key.bytes[index]
        }
        var digest = [UInt8](repeating: 0, count: 32)
        var host = host
        host.withUTF8 { host in
            // HMAC takes a null pointer for "no data" gladly.
            _ = HMAC(
                EVP_sha256(), key.pointer(Key.tagging), 32, host.baseAddress, host.count, &digest,
                nil)
        }
        for index in 0..<8 { name[8 + index] = digest[index] }
    }

    private func key(_ identity: Identity) -> Key? {
        if let key = keys[identity] { return key }
        guard let algorithm = TLSTicketRing.hkdf, let context = EVP_KDF_CTX_new(algorithm) else {
            return nil
        }
        defer { EVP_KDF_CTX_free(context) }
        let key = Key()
        let secret = tickets.secrets[identity.secret].bytes
        let info =
            Array("hc.tls.ticket.1|\(identity.period)|\(tickets.period.inSeconds)|".utf8) + purpose
        let output = key.bytes.baseAddress?.assumingMemoryBound(to: UInt8.self)
        guard
            hc_hkdf_sha256(
                context, secret.baseAddress, secret.count, nil, 0, info, info.count, output,
                Key.count) == 1
        else { return nil }
        keys[identity] = key
        return key
    }

    /// Fetched once and never freed; immutable.
    private static let hkdf: OpaquePointer? = EVP_KDF_fetch(nil, "HKDF", nil)
}
