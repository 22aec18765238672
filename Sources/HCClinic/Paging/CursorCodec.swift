import HCCore
import HCCrypto
import HCTenancy

/// Opaque cursors: the position after which a page begins, signed together with the clinic and the query,
/// so that a cursor of another clinic, another list, other filters or another order is refused.
///
/// Text: base64url of format (1) · position · 16 bytes of HMAC-SHA256. The filters are not in it, not even
/// as a hash: a phone number could be guessed from one.
struct CursorCodec: Sendable {
    private static let format: UInt8 = 1
    private static let textBytesMax = 128

    private let ring: MACRing

    init(_ ring: MACRing) {
        self.ring = ring
    }

    /// - Parameter query: names the list, its order and its filters.
    func text(
        position: [UInt8], tenant: TenantID, query: QueryIdentity
    ) throws(CryptoError) -> String {
        let payload = [CursorCodec.format] + position
        let code = try ring.code(for: CursorCodec.message(payload, tenant, query))
        return Base64.url.encode(payload + code)
    }

    /// - Returns: the position.
    /// - Throws: `invalid-cursor` for anything that this codec did not make for this clinic and query.
    func position(in text: String, tenant: TenantID, query: QueryIdentity) throws -> [UInt8] {
        guard text.utf8.count <= CursorCodec.textBytesMax, let bytes = Base64.url.decode(text),
            bytes.count > MACRing.codeCount, bytes[0] == CursorCodec.format
        else { throw ClinicError(.invalidCursor) }
        let payload = Array(bytes.dropLast(MACRing.codeCount))
        let code = Array(bytes.suffix(MACRing.codeCount))
        guard try ring.isValid(code, for: CursorCodec.message(payload, tenant, query)) else {
            throw ClinicError(.invalidCursor)
        }
        return Array(payload.dropFirst())
    }

    private static func message(
        _ payload: [UInt8], _ tenant: TenantID, _ query: QueryIdentity
    ) -> [UInt8] {
        var message = AssociatedData()
        message.append("cursor")
        message.append(tenant.uuid)
        query.bytes.withUnsafeBytes { message.append($0) }
        payload.withUnsafeBytes { message.append($0) }
        return message.bytes
    }
}

/// What makes two requests the same list: its name, its order and its filters.
struct QueryIdentity: Sendable {
    private(set) var bytes: [UInt8]

    init(_ list: StaticString) {
        var parts = AssociatedData()
        parts.append(list)
        bytes = parts.bytes
    }

    mutating func add(_ filter: StaticString, _ value: String?) {
        guard let value else { return }
        var parts = AssociatedData()
        parts.append(filter)
        parts.append(value)
        bytes.append(contentsOf: parts.bytes)
    }
}

/// Positions of keyset paging.
enum KeysetPosition {
    static func bytes(of id: UUID) -> [UInt8] {
        id.bytes
    }

    static func bytes(of instant: Timestamp, _ id: UUID) -> [UInt8] {
        withUnsafeBytes(of: instant.microseconds.bigEndian) { Array($0) } + id.bytes
    }

    static func id(in bytes: [UInt8]) throws(ClinicError) -> UUID {
        guard let id = UUID(bytes: bytes) else { throw ClinicError(.invalidCursor) }
        return id
    }

    static func instantAndID(in bytes: [UInt8]) throws(ClinicError) -> (Timestamp, UUID) {
        guard bytes.count == 24, let id = UUID(bytes: bytes[8...]) else {
            throw ClinicError(.invalidCursor)
        }
        var microseconds: UInt64 = 0
        for byte in bytes[..<8] { microseconds = microseconds << 8 | UInt64(byte) }
        return (Timestamp(microseconds: Int64(bitPattern: microseconds)), id)
    }
}

extension CursorCodec {
    /// The position of a list by id; nil at its beginning.
    func id(_ cursor: String?, in tenant: TenantID, _ query: QueryIdentity) throws -> UUID? {
        guard let cursor else { return nil }
        return try KeysetPosition.id(in: position(in: cursor, tenant: tenant, query: query))
    }

    /// Makes a page of what was found: the query asked for one more than the limit, to see whether there is more.
    func page<Item>(
        _ found: [Item], _ request: PageRequest, in tenant: TenantID, _ query: QueryIdentity,
        position: (Item) -> [UInt8]
    ) throws -> Page<Item> {
        let items = Array(found.prefix(request.limit))
        guard found.count > request.limit, let last = items.last else {
            return Page(items: items, nextCursor: nil)
        }
        return Page(
            items: items,
            nextCursor: try text(position: position(last), tenant: tenant, query: query))
    }
}
