package import HCCore
import HCCrypto

/// Sealed bytes of a column and the key version that goes into the row beside them.
package struct SealedValue: Hashable, Sendable {
    package let bytes: [UInt8]
    package let keyVersion: Int32
}

/// The opened keys of one clinic: seals and opens columns, makes search tokens.
///
/// Ciphertext is bound to where it stands, by the associated data tenant|table|column|row|key version: copied
/// to another row, column, table or clinic it does not open. Keys live in memory only and are wiped with the
/// last reference. Safe to use from the blocking pool.
package final class TenantKeys: Sendable {
    private let tenant: UUID
    private let data: AEADKeyRing
    private let index: BlindIndex

    /// Unwraps what the directory has: master key, then the clinic's key-encryption keys, then the rest.
    ///
    /// - Throws: `.keyUnavailable` if a key that is needed is not there or does not unwrap.
    init(of tenant: TenantID, wrapped: [WrappedKey], master: MasterKey) throws(TenancyError) {
        self.tenant = tenant.uuid
        do {
            let keyring = try TenantKeyring(of: tenant, wrapped: wrapped, master: master)
            data = keyring.data
            index = keyring.index
        } catch {
            throw .keyUnavailable
        }
    }

    /// - Parameters:
    ///   - table, column: names in the program; constant, as no name of a place comes from data.
    ///   - row: the id of the row that the bytes will stand in.
    package func seal(
        _ plaintext: [UInt8], table: StaticString, column: StaticString, row: UUID
    ) throws(TenancyError) -> SealedValue {
        do {
            let bytes = try data.seal(
                plaintext, associatedData: associatedData(table, column, row, data.active.version))
            return SealedValue(
                bytes: bytes, keyVersion: Int32(bitPattern: data.active.version))
        } catch {
            throw .keyUnavailable
        }
    }

    /// - Throws: `.sealBroken` for bytes that were altered or stood elsewhere; `.keyUnavailable` for bytes
    ///   under a key that the clinic no longer has.
    package func open(
        _ sealed: [UInt8], table: StaticString, column: StaticString, row: UUID
    ) throws(TenancyError) -> [UInt8] {
        do throws(CryptoError) {
            let version = try SealedBytes.keyVersion(of: sealed)
            return try data.open(
                sealed, associatedData: associatedData(table, column, row, version))
        } catch {
            throw TenantKeys.failure(error)
        }
    }

    /// Opens bytes where they lie in a result, without copying them first.
    package func open(
        _ sealed: UnsafeRawBufferPointer, table: StaticString, column: StaticString, row: UUID
    ) throws(TenancyError) -> [UInt8] {
        do throws(CryptoError) {
            let version = try SealedBytes.keyVersion(of: sealed)
            return try data.open(
                sealed, associatedData: associatedData(table, column, row, version))
        } catch {
            throw TenantKeys.failure(error)
        }
    }

    /// Seals something that stands in no row, bound to the clinic and to what `place` says.
    func seal(_ plaintext: [UInt8], as place: AssociatedData) throws(TenancyError) -> [UInt8] {
        do {
            return try data.seal(
                plaintext, associatedData: associatedData(place, data.active.version))
        } catch {
            throw .keyUnavailable
        }
    }

    /// - Throws: as `open` of a column.
    func open(_ sealed: [UInt8], as place: AssociatedData) throws(TenancyError) -> [UInt8] {
        do throws(CryptoError) {
            let version = try SealedBytes.keyVersion(of: sealed)
            return try data.open(sealed, associatedData: associatedData(place, version))
        } catch {
            throw TenantKeys.failure(error)
        }
    }

    /// Whether the bytes stand under an older key and should be sealed again when the row is next written.
    package func needsReseal(_ sealed: [UInt8]) -> Bool {
        (try? data.needsReseal(sealed)) ?? true
    }

    /// A token by which equal values are found.
    /// - Parameters:
    ///   - kind: the field, `patient.phone`: equal values of two fields have different tokens.
    ///   - value: normalised by HCCrypto's `SearchText`.
    package func token(kind: StaticString, value: String) throws(TenancyError) -> Int64 {
        do {
            return try index.token(kind: kind, value: value)
        } catch {
            throw .keyUnavailable
        }
    }

    /// The tokens under which a value is stored to be found by its beginnings: at most 12.
    package func prefixTokens(kind: StaticString, value: String) throws(TenancyError) -> [Int64] {
        do {
            return try index.prefixTokens(kind: kind, value: value)
        } catch {
            throw .keyUnavailable
        }
    }

    /// The token to look a beginning up with; nil for an empty one.
    package func prefixToken(kind: StaticString, prefix: String) throws(TenancyError) -> Int64? {
        do {
            return try index.prefixToken(kind: kind, prefix: prefix)
        } catch {
            throw .keyUnavailable
        }
    }

    private func associatedData(
        _ table: StaticString, _ column: StaticString, _ row: UUID, _ version: UInt32
    ) -> [UInt8] {
        var data = AssociatedData(tenant: tenant, table: table, column: column, row: row)
        data.append(version)
        return data.bytes
    }

    private func associatedData(_ place: AssociatedData, _ version: UInt32) -> [UInt8] {
        var data = AssociatedData()
        data.append(tenant)
        place.bytes.withUnsafeBytes { data.append($0) }
        data.append(version)
        return data.bytes
    }

    private static func failure(_ error: CryptoError) -> TenancyError {
        switch error {
        case .unknownKeyVersion, .library: .keyUnavailable
        case .authenticationFailed, .malformed: .sealBroken
        }
    }
}
