package import HCCore
import HCCrypto
package import HCTenancy

/// A plan as it is written down, to be looked at and applied later: bound to the version of the directory that it was made
/// from, and to a digest of itself.
package struct RebalancePlanFile: Sendable, Equatable {
    package struct Move: Sendable, Equatable {
        package var clinic: TenantID
        package var slug: String
        package var source: String
        package var target: String
        /// The clinic's, when the plan was made: it grows when it moves.
        package var epoch: Int64
        package var cause: RebalancePlan.Cause
        package var bytes: Int64
        /// Clinics of its group: it is not to come to a shard where one of them is, or will be.
        package var apart: [TenantID] = []
    }

    package var mapVersion: Int64
    package var madeAt: Timestamp
    package var moves: [Move]

    package static let bytesMax = 64 << 20
    private static let format = "hc-rebalance-plan/1"

    package init(mapVersion: Int64, madeAt: Timestamp, moves: [Move]) {
        self.mapVersion = mapVersion
        self.madeAt = madeAt
        self.moves = moves
    }

    package init(_ plan: RebalancePlan, _ view: RebalanceView, madeAt: Timestamp) {
        let groups = view.fleet.groups()
        self.init(
            mapVersion: view.mapVersion, madeAt: madeAt,
            moves: plan.moves.map { move in
                let clinic = view.fleet.clinics[move.clinic]
                let group = clinic.group.flatMap { groups[$0] } ?? []
                return Move(
                    clinic: clinic.id, slug: view.slugs[move.clinic],
                    source: view.fleet.shards[move.source].id,
                    target: view.fleet.shards[move.target].id, epoch: view.epochs[move.clinic],
                    cause: move.cause, bytes: Int64(clinic.bytes),
                    apart: group.filter { $0 != clinic.id })
            })
    }

    private var body: JSONValue {
        [
            "format": .string(RebalancePlanFile.format), "mapVersion": .integer(mapVersion),
            "madeAt": .string(madeAt.rfc3339),
            "moves": .array(
                moves.map { move in
                    let json: JSONValue = [
                        "clinic": .string(move.clinic.description), "slug": .string(move.slug),
                        "source": .string(move.source), "target": .string(move.target),
                        "epoch": .integer(move.epoch), "cause": .string(move.cause.rawValue),
                        "bytes": .integer(move.bytes),
                    ]
                    guard !move.apart.isEmpty else { return json }
                    return json.adding([
                        "apart": .array(move.apart.map { .string($0.description) })
                    ])
                }),
        ]
    }

    /// With the digest of the rest: SHA-256 of its text as it is written without.
    package func json() throws -> JSONValue {
        body.adding(["digest": .string(try SHA256.hash(body.text).hex)])
    }

    /// - Throws: `RebalanceFormatError` for what is no plan, or was changed since it was written.
    package init(_ text: [UInt8]) throws {
        let json: JSONValue
        do {
            json = try JSONReader.parse(text, limits: JSONLimits(bytesMax: Self.bytesMax))
        } catch {
            throw RebalanceFormatError("it is no JSON: \(error)")
        }
        guard json["format"]?.asString == RebalancePlanFile.format else {
            throw RebalanceFormatError("it is no plan of this release (\(Self.format))")
        }
        guard let version = json["mapVersion"]?.asInteger,
            let madeAt = json["madeAt"]?.asString.flatMap({ Timestamp(rfc3339: $0) }),
            let moves = json["moves"]?.asArray
        else {
            throw RebalanceFormatError("it lacks mapVersion, madeAt or moves")
        }
        self.init(
            mapVersion: version, madeAt: madeAt, moves: try moves.enumerated().map(Move.init))
        guard json["digest"]?.asString == (try SHA256.hash(body.text).hex) else {
            throw RebalanceFormatError("it was changed since it was written: make another plan")
        }
    }
}

extension RebalancePlanFile.Move {
    fileprivate init(_ index: Int, _ json: JSONValue) throws(RebalanceFormatError) {
        guard let clinic = json["clinic"]?.asString.flatMap({ TenantID($0) }),
            let slug = json["slug"]?.asString, let source = json["source"]?.asString,
            let target = json["target"]?.asString, let epoch = json["epoch"]?.asInteger,
            let cause = json["cause"]?.asString.flatMap(RebalancePlan.Cause.init(rawValue:)),
            let bytes = json["bytes"]?.asInteger
        else { throw RebalanceFormatError("moves[\(index)] is no move") }
        let apart = json["apart"]?.asArray ?? []
        let ids = apart.compactMap { $0.asString.flatMap { TenantID($0) } }
        guard ids.count == apart.count else {
            throw RebalanceFormatError("moves[\(index)].apart names no clinics")
        }
        self.init(
            clinic: clinic, slug: slug, source: source, target: target, epoch: epoch,
            cause: cause, bytes: bytes, apart: ids)
    }
}
