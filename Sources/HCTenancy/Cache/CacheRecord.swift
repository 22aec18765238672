import HCCore
import HCCrypto

/// A copy as it stands in Redis and in the shard database.
///
/// Bytes: format (1) · kind (0 nothing, 1 value, 2 compressed value) · count of the value (4, big-endian) · good until
/// (8, microseconds since 1970, 0 for ever) · count of the entity tag (1) · the tag · the value. If it is sensitive all
/// of it is sealed under the clinic's key, with tenant, key and epoch as associated data: a copy opens nowhere else.
enum CacheRecord {
    private static let format: UInt8 = 1
    private static let headCount = 15

    private enum Kind: UInt8 {
        case nothing
        case plain
        case compressed
    }

    struct Limits {
        var bytesMax: Int
        var compressedFrom: Int

        init(_ configuration: CacheConfiguration) {
            bytesMax = configuration.valueBytesMax
            compressedFrom = configuration.compressedFromBytes
        }
    }

    /// - Returns: nil for a value that is too large to be kept.
    static func encode(_ answer: CacheAnswer, _ limits: Limits) -> [UInt8]? {
        guard case .value(let value) = answer else {
            return [format, Kind.nothing.rawValue] + [UInt8](repeating: 0, count: headCount - 2)
        }
        let tag = Array(value.entityTag.utf8)
        guard value.bytes.count <= limits.bytesMax, tag.count <= Int(UInt8.max) else { return nil }
        let compressed =
            value.bytes.count >= limits.compressedFrom
            ? CacheCompression.compress(value.bytes) : nil
        var bytes: [UInt8] = []
        bytes.reserveCapacity(headCount + tag.count + (compressed ?? value.bytes).count)
        bytes.append(format)
        bytes.append((compressed == nil ? Kind.plain : .compressed).rawValue)
        append(UInt64(value.bytes.count), 4, to: &bytes)
        append(UInt64(bitPattern: value.goodUntil?.microseconds ?? 0), 8, to: &bytes)
        bytes.append(UInt8(tag.count))
        bytes += tag
        bytes += compressed ?? value.bytes
        return bytes
    }

    /// - Returns: nil for anything that `encode` did not make.
    static func decode(_ bytes: ArraySlice<UInt8>, _ limits: Limits) -> CacheAnswer? {
        guard bytes.count >= headCount, bytes[bytes.startIndex] == format,
            let kind = Kind(rawValue: bytes[bytes.startIndex + 1])
        else { return nil }
        if kind == .nothing { return bytes.count == headCount ? .nothing : nil }
        let start = bytes.startIndex
        let count = Int(number(bytes[(start + 2)..<(start + 6)]))
        let until = Int64(bitPattern: number(bytes[(start + 6)..<(start + 14)]))
        let tagCount = Int(bytes[start + 14])
        guard count <= limits.bytesMax, bytes.count >= headCount + tagCount,
            let tag = String(
                validating: bytes[(start + headCount)..<(start + headCount + tagCount)],
                as: UTF8.self)
        else { return nil }
        let rest = bytes[(start + headCount + tagCount)...]
        let value: [UInt8]
        if kind == .compressed {
            guard let expanded = CacheCompression.expand(rest, count: count) else { return nil }
            value = expanded
        } else {
            guard rest.count == count else { return nil }
            value = Array(rest)
        }
        return .value(
            CachedValue(
                bytes: value, entityTag: tag,
                goodUntil: until == 0 ? nil : Timestamp(microseconds: until)))
    }

    private static func append(_ number: UInt64, _ count: Int, to bytes: inout [UInt8]) {
        for index in (0..<count).reversed() {
            bytes.append(UInt8(truncatingIfNeeded: number >> (8 * UInt64(index))))
        }
    }

    private static func number(_ bytes: ArraySlice<UInt8>) -> UInt64 {
        bytes.reduce(0) { $0 << 8 | UInt64($1) }
    }
}

extension TenantKeys {
    /// Seals a copy that leaves the process, bound to the clinic, the key and the epoch.
    func seal(copy bytes: [UInt8], key: String, epoch: Int64) throws(TenancyError) -> [UInt8] {
        try seal(bytes, as: copyData(key, epoch))
    }

    /// - Throws: `.sealBroken`, also for a copy of another key, clinic or epoch; `.keyUnavailable`.
    func open(
        copy sealed: ArraySlice<UInt8>, key: String, epoch: Int64
    ) throws(TenancyError) -> [UInt8] {
        try open(Array(sealed), as: copyData(key, epoch))
    }

    private func copyData(_ key: String, _ epoch: Int64) -> AssociatedData {
        var data = AssociatedData()
        data.append("copy")
        data.append(key)
        data.append(epoch)
        return data
    }
}
