package import HCCore
import HCPostgres
package import HCTenancy

/// How far a move is: the value of `move.step`. Each is written when what it names is done; a successor goes on from
/// there, and does once more what its predecessor may have begun.
///
/// Forward: planned → reserved → published → slotted → subscribed → copied → mirrored → verified → gating → committed →
/// opened → switched → soaking → closing → purging → finished. Back: returning → verified → gating → … → opened →
/// closing → purging → finished. Undone before the commit point: aborting → aborted.
package enum MoveStep: String, Sendable, CaseIterable {
    /// S0: the preflight has passed.
    case planned
    /// S1: the destination expects the clinic and holds nothing of it.
    case reserved
    /// S2: what the origin publishes.
    case published
    /// S2: the origin keeps its log from here on.
    case slotted
    /// S2: the destination copies and follows.
    case subscribed
    /// S3: every table is copied and the stream is close behind.
    case copied
    /// S3: the way back is prepared on the destination.
    case mirrored
    /// Back only: the former origin expects the clinic again.
    case returning
    /// S4: both sides were compared.
    case verified
    /// S5 to S8: from here to `committed` the door to writers may be closed.
    case gating
    /// S9: the commit point has been passed.
    case committed
    /// S10: the destination serves.
    case opened
    /// S10: the stream runs the other way.
    case switched
    /// S11: may be reverted.
    case soaking
    /// S12: the streams are taken down.
    case closing
    /// S13: the rows left behind are removed.
    case purging
    case finished
    case aborting
    case aborted

    /// Reached before the step is taken; "<name>.done" when it is done and not written down yet.
    var faultPoint: StaticString {
        switch self {
        case .planned: "move.planned"
        case .reserved: "move.reserved"
        case .published: "move.published"
        case .slotted: "move.slotted"
        case .subscribed: "move.subscribed"
        case .copied: "move.copied"
        case .mirrored: "move.mirrored"
        case .returning: "move.returning"
        case .verified: "move.verified"
        case .gating: "move.gating"
        case .committed: "move.committed"
        case .opened: "move.opened"
        case .switched: "move.switched"
        case .soaking: "move.soaking"
        case .closing: "move.closing"
        case .purging: "move.purging"
        case .finished: "move.finished"
        case .aborting: "move.aborting"
        case .aborted: "move.aborted"
        }
    }

    /// Whether the commit point has been passed, now or in the end.
    var isPastCommit: Bool {
        switch self {
        case .committed, .opened, .switched, .soaking, .closing, .purging, .finished: true
        default: false
        }
    }

    /// Whether an abort may still win.
    package var isBeforeCommit: Bool {
        switch self {
        case .planned, .reserved, .published, .slotted, .subscribed, .copied, .mirrored, .returning,
            .verified, .gating:
            true
        default: false
        }
    }
}

package enum MoveState: String, Sendable {
    case running
    case aborting
    case soaking
    case done
    case aborted
    case reverted
    case failed

    package var isOver: Bool {
        switch self {
        case .running, .aborting, .soaking: false
        case .done, .aborted, .reverted, .failed: true
        }
    }
}

package enum MoveKind {}
package typealias MoveID = Identifier<MoveKind>

/// One row of `move`.
package struct Move: Sendable {
    package enum Direction: String, Sendable {
        case forward
        case back
    }

    package var id: MoveID
    package var tenant: TenantID
    package var slug: String
    package var source: String
    package var target: String
    package var state: MoveState
    package var step: MoveStep
    package var direction: Direction
    package var attempt: Int64
    package var epoch: Int64
    package var isAbortRequested: Bool
    package var options: MoveOptions
    package var progress: JSONValue
    package var error: String?
    package var leaseOwner: String?
    package var isLeased: Bool
    package var createdAt: Timestamp
    package var updatedAt: Timestamp
    package var soakUntil: Timestamp?
    package var finishedAt: Timestamp?
    package var reason: String?
    package var operatorName: String
    package var manifest: JSONValue?

    /// The shard that the clinic leaves, as this move goes now.
    package var origin: String { direction == .forward ? source : target }
    package var destination: String { direction == .forward ? target : source }
    /// Clinics of its group that it met there when it set out, though they are to be apart.
    package var together: [String] {
        (progress["together"]?.asArray ?? []).compactMap(\.asString)
    }

    package var json: JSONValue {
        [
            "id": .string("\(id.uuid)"), "tenant": .string(slug),
            "tenantId": .string("\(tenant.uuid)"),
            "source": .string(source), "target": .string(target),
            "state": .string(state.rawValue), "step": .string(step.rawValue),
            "direction": .string(direction.rawValue), "attempt": .integer(attempt),
            "epoch": .integer(epoch), "abortRequested": .bool(isAbortRequested),
            "options": options.json, "progress": progress,
            "error": error.map { .string($0) } ?? .null,
            "leaseOwner": isLeased ? leaseOwner.map { .string($0) } ?? .null : .null,
            "operator": .string(operatorName), "reason": reason.map { .string($0) } ?? .null,
            "createdAt": .string(createdAt.rfc3339), "updatedAt": .string(updatedAt.rfc3339),
            "soakUntil": soakUntil.map { .string($0.rfc3339) } ?? .null,
            "finishedAt": finishedAt.map { .string($0.rfc3339) } ?? .null,
            "manifest": manifest ?? .null,
        ]
    }

    static let columns = """
        move.id, move.tenant_id, tenant.slug, source_shard, target_shard, move.state, step, direction, attempt,
        move.epoch, abort_requested, options, progress, error, lease_owner,
        coalesce(lease_until > clock_timestamp(), false), move.created_at, move.updated_at, soak_until,
        finished_at, move.reason, move.operator_name, manifest
        """

    init(_ row: PostgresRow) throws {
        id = try row.id(0)
        tenant = try row.id(1)
        slug = try row.text(2)
        source = try row.text(3)
        target = try row.text(4)
        guard let state = MoveState(rawValue: try row.text(5)),
            let step = MoveStep(rawValue: try row.text(6)),
            let direction = Direction(rawValue: try row.text(7))
        else {
            throw ControlError(
                .failed, code: "move-unknown-step",
                "move \(id.uuid) is in step '\(try row.text(6))', which this release does not know",
                remedy: "Use the release that began it, or a newer one.")
        }
        (self.state, self.step, self.direction) = (state, step, direction)
        attempt = Int64(try row.int(8))
        epoch = Int64(try row.int(9))
        isAbortRequested = try row.bool(10)
        options = MoveOptions(json: try JSONReader.parse(try row.json(11)))
        progress = try JSONReader.parse(try row.json(12))
        error = try row.textIfPresent(13)
        leaseOwner = try row.textIfPresent(14)
        isLeased = try row.bool(15)
        createdAt = try row.timestamp(16)
        updatedAt = try row.timestamp(17)
        soakUntil = try row.timestampIfPresent(18)
        finishedAt = try row.timestampIfPresent(19)
        reason = try row.textIfPresent(20)
        operatorName = try row.text(21)
        manifest = try row.jsonIfPresent(22).map { try JSONReader.parse($0) }
    }
}

/// What the operator may choose of a move.
package struct MoveOptions: Sendable, Equatable {
    /// For which the door to writers may be closed: after it, it is opened again and tried later.
    package var pauseBudget: Duration
    /// For which the way back is kept.
    package var soak: Duration
    /// Tries of the pause before the move is undone.
    package var pauseTries: Int

    package static let pauseBudgets: ClosedRange<Duration> = .milliseconds(20)...(.seconds(10))
    package static let soaks: ClosedRange<Duration> = .zero...(.seconds(30 * 86_400))

    package init(
        pauseBudget: Duration = .milliseconds(250), soak: Duration = .seconds(86_400),
        pauseTries: Int = 20
    ) {
        self.pauseBudget = pauseBudget
        self.soak = soak
        self.pauseTries = pauseTries
    }

    init(json: JSONValue) {
        self.init()
        if let budget = json["pauseBudgetMilliseconds"]?.asInteger {
            pauseBudget = .milliseconds(budget)
        }
        if let seconds = json["soakSeconds"]?.asInteger { soak = .seconds(seconds) }
        if let tries = json["pauseTries"]?.asInteger { pauseTries = Int(tries) }
    }

    package var json: JSONValue {
        [
            "pauseBudgetMilliseconds": .integer(pauseBudget.inMilliseconds),
            "soakSeconds": .integer(soak.inMilliseconds / 1000),
            "pauseTries": .integer(Int64(pauseTries)),
        ]
    }
}
