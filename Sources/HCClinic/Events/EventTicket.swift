package import HCCore
import HCCrypto
import HCTenancy

/// What opens a socket, once: browsers cannot send an Authorization field with a WebSocket handshake, and an access
/// token in an address would end up in logs.
///
/// 256 random bits in base64url. Redis has only their hash, under the clinic's prefix: at another clinic's host the
/// ticket is as unknown as one that never was.
package struct EventTicket: Sendable, JSONWritable {
    static let life = Duration.seconds(30)
    private static let secretCount = 32
    /// The text of 32 bytes.
    private static let textCount = 43

    package let text: Sensitive<String>
    /// Of the clinic's keys in Redis.
    let name: String

    /// Makes one.
    init() throws(CryptoError) {
        try self.init(Base64.url.encode(SystemRandom.bytes(EventTicket.secretCount)))
    }

    /// Reads one; nil for what no ticket looks like.
    init?(presented text: String) throws(CryptoError) {
        guard text.utf8.count == EventTicket.textCount,
            Base64.url.decode(text)?.count == EventTicket.secretCount
        else { return nil }
        try self.init(text)
    }

    private init(_ text: String) throws(CryptoError) {
        self.text = Sensitive(text)
        name = "ticket:" + (try SHA256.hash(Array(text.utf8)).hex)
    }

    package func write(to writer: inout JSONWriter) {
        writer.beginObject()
        writer.member("ticket", text.reveal())
        writer.member("expiresIn", EventTicket.life.components.seconds)
        writer.endObject()
    }
}

/// Who a ticket was given to: `1|<session>|<account>|<patient or nothing>|<end in microseconds>`.
struct TicketHolder: Hashable, Sendable {
    var session: SessionID
    var account: AccountID
    var patient: PatientID?
    /// When the access token ends that the ticket was asked for with, and with it the socket.
    var endsAt: Timestamp

    var bytes: [UInt8] {
        let patient = patient.map { "\($0)" } ?? ""
        return Array("1|\(session)|\(account)|\(patient)|\(endsAt.microseconds)".utf8)
    }

    init(session: SessionID, account: AccountID, patient: PatientID?, endsAt: Timestamp) {
        self.session = session
        self.account = account
        self.patient = patient
        self.endsAt = endsAt
    }

    init?(_ bytes: [UInt8]) {
        let fields = bytes.split(separator: UInt8(ascii: "|"), omittingEmptySubsequences: false)
            .map { String(decoding: $0, as: UTF8.self) }
        guard fields.count == 5, fields[0] == "1", let session = SessionID(fields[1]),
            let account = AccountID(fields[2]), let ends = Int64(fields[4])
        else { return nil }
        if fields[3].isEmpty {
            patient = nil
        } else {
            guard let id = PatientID(fields[3]) else { return nil }
            patient = id
        }
        self.session = session
        self.account = account
        endsAt = Timestamp(microseconds: ends)
    }
}
