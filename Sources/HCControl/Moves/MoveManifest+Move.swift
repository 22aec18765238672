import HCCore
import HCCrypto
import HCIO
import HCTenancy

extension MoveManifest {
    /// Of a move that has passed its commit point, signed, from what was written down on the way.
    ///
    /// - Parameter confirmed: up to where the destination has the origin's log on its disk.
    @LoopActor
    static func make(
        _ move: Move, confirmed: LogPosition, plane: ControlPlane, store: MoveStore
    ) async throws -> JSONValue {
        let now = try await store.find(move.id)
        let progress = now.progress
        let identities = try await store.identities(of: move.id)
        func time(_ name: String) -> Timestamp {
            progress[name]?.asString.flatMap { Timestamp(rfc3339: $0) } ?? now.updatedAt
        }
        let source = Side(shard: move.source, identity: identities.source)
        let target = Side(shard: move.target, identity: identities.target)
        let isForward = move.direction == .forward
        let verification = progress["verification"] ?? [:]
        func count(_ name: String) -> Int { Int(verification[name]?.asInteger ?? 0) }
        let tables = (verification["tables"]?.asArray ?? []).compactMap { table -> Table? in
            guard let name = table["name"]?.asString, let rows = table["rows"]?.asInteger,
                let digest = RowDigest(rows: Int(rows), hex: table["digest"]?.asString ?? "")
            else { return nil }
            return Table(name: name, digest: digest)
        }
        let manifest = MoveManifest(
            move: move.id.uuid, tenant: move.tenant, slug: move.slug,
            source: isForward ? source : target, target: isForward ? target : source,
            epochBefore: move.epoch, epochAfter: move.epoch + 1,
            fencePosition: progress["fencePosition"]?.asString.flatMap { LogPosition(text: $0) }
                ?? LogPosition(0), confirmedPosition: confirmed,
            times: Times(
                started: move.createdAt, gate: time("gatedAt"), fence: time("fencedAt"),
                committed: time("committedAt"), opened: time("openedAt")),
            pause: .microseconds(progress["pauseMicroseconds"]?.asInteger ?? 0), tables: tables,
            verification: Verification(
                mode: verification["mode"]?.asString.flatMap { Verification.Mode(rawValue: $0) }
                    ?? .whole, rowsPerChunk: count("rowsPerChunk"), chunks: count("chunks"),
                chunksInPause: count("chunksInPause"), rowsInPause: count("rowsInPause"),
                rounds: count("rounds")),
            attempts: move.attempt, toolVersion: PlatformVersion.text)
        return try manifest.signed(by: MoveManifest.makeSigner(plane.controlDoor().master))
    }

    /// Checks a manifest, or the answer of `move show --json` that has one, with the master key file alone.
    ///
    /// - Throws: `ControlError` with what is wrong with it, and where.
    package static func verified(
        _ bytes: [UInt8], from name: String, masterKeyFile: String
    ) throws -> MoveManifest {
        let signer = try makeSigner(try MasterKey.load(path: masterKeyFile))
        do {
            let answer: JSONValue
            do throws(JSONError) {
                answer = try JSONReader.parse(bytes)
            } catch {
                throw MoveManifestError.malformed(error)
            }
            guard let manifest = answer["manifest"] else { return try verified(bytes, by: signer) }
            guard manifest != .null else {
                throw ControlError(
                    .refused, code: "no-manifest",
                    "the move in \(name) has no manifest: it has not passed its commit point")
            }
            return try verified(manifest, by: signer)
        } catch let error as MoveManifestError {
            throw ControlError(
                .refused, code: "bad-manifest",
                "\(name) is no manifest that was signed here: \(error)")
        }
    }
}
