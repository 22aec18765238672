import HCCore
import HCIO
import HCPostgres
import HCTenancy

/// Ends a move one of whose servers is gone for good.
///
/// A move needs both servers to its end: what it has made is taken down on each, and the rows that the clinic left behind
/// are removed. While one of them is away the move waits, for ever if it never comes back. That it does not is for an
/// operator to say:
///
///     aborting, the target is gone                                       → aborted: the clinic is where it always was
///     opened, switched, soaking, closing, purging; the shard that
///     the clinic left is gone                                            → finished, without what was to be done there
///
/// - The shard that the clinic is placed on is never given up: its rows are there, or on its standby, or in a backup.
/// - Before the commit point an abort comes first. At `committed` the destination opens by itself: nothing is asked of the
///   other one.
/// - A server that answers is not gone, whatever it answers; nor is a shard while one of its replicas does, which could
///   take over.
/// - It is written down in one transaction with its audit, under a new attempt, and takes the move from whoever has it:
///   that process waits for the server. What it still sends is refused by its number. A process that dies here, or later,
///   leaves a move that says so itself (`Move.givenUp`): any other goes on without the server.
/// - What stays behind is not forgotten: cleanup records of the shard stay open, `move show` names them, and `doctor`
///   does as soon as the server answers after all.
extension MoveService {
    package struct Loss: Sendable {
        package var move: Move
        /// What stays on the server, in words.
        package var leftBehind: [String]
    }

    /// Whether a move can be ended without one of its shards. Changes nothing.
    ///
    /// - Throws: `ControlError` with the reason why not.
    package func examine(_ name: String, without shard: String) async throws -> Loss {
        let move = try await store.find(named: name)
        try await requireEnding(move, without: shard)
        try await requireGone(shard)
        var left = try await store.objects(of: move.id).filter { $0.shard == shard }.map {
            "\($0.kind.rawValue) \($0.name)"
        }
        left.append(
            move.state == .aborting
                ? "what was copied of the rows of '\(move.slug)'"
                : "the rows that '\(move.slug)' left there")
        return Loss(move: move, leftBehind: left)
    }

    /// Goes on without a server that is gone for good.
    ///
    /// - Returns: the move, for this process to carry to its end.
    package func finalize(
        _ name: String, without shard: String, reason: String?, tell: @escaping Tell
    ) async throws -> Mover {
        let loss = try await examine(name, without: shard)
        let since = plane.clocks.monotonic()
        let move = try await store.giveUp(
            shard, of: loss.move, leftBehind: loss.leftBehind, owner: makeOwner(), reason: reason)
        return Mover(move, plane: plane, since: since, tell: tell)
    }

    private func requireEnding(_ move: Move, without shard: String) async throws {
        guard [move.source, move.target].contains(shard) else {
            throw ControlError(
                .invalid, code: "other-shard",
                "the move of '\(move.slug)' is between \(move.source) and \(move.target)",
                remedy: "Name the one whose server is gone.")
        }
        guard !move.state.isOver else {
            throw ControlError(
                .conflict, code: "move-over", "the move is over: \(move.state.rawValue)")
        }
        let tenant = try await TenantRegistry(plane: plane).find(move.slug)
        guard tenant.shard != shard else {
            throw ControlError(
                .refused, code: "placed-there",
                "'\(move.slug)' is placed on shard \(shard): its rows are there, and nowhere else for certain",
                remedy:
                    "Bring the server, a standby or a backup of it back, then 'hc-admin shard reconcile \(shard)':"
                    + " deploy/runbooks/shard-down.md.")
        }
        guard move.canLoseShard else {
            throw ControlError(
                .conflict, code: "move-goes-on",
                move.step.isBeforeCommit
                    ? "the move has not passed its commit point (\(move.step.rawValue))"
                    : "the move opens the clinic without shard \(shard) (\(move.step.rawValue))",
                remedy: move.step.isBeforeCommit
                    ? "Undo it first: hc-admin move abort \(move.slug)"
                    : "Wait for it: hc-admin move show \(move.slug) --wait")
        }
    }

    /// - Throws: `ControlError` (`shard-answers`) if the server, or a replica of the shard, gives any answer at all, or
    ///   nobody can tell.
    private func requireGone(_ id: String) async throws {
        let shard = try await ShardRegistry(plane: plane).find(id)
        if let answer = try await answer(of: "shards/\(shard.reference).mover") {
            throw ControlError(
                .refused, code: "shard-answers", "shard \(id) is not gone: \(answer)",
                remedy: "The move goes on by itself when the server serves it again.")
        }
        for replica in try await ReplicaRegistry(plane: plane).list(of: id) {
            guard let answer = try await answer(of: "shards/\(replica.reference).app") else {
                continue
            }
            throw ControlError(
                .refused, code: "shard-answers",
                "replica \(replica.name) of shard \(id) is not gone: \(answer)",
                remedy:
                    "Let it take over (deploy/runbooks/shard-down.md), or take it away first:"
                    + " hc-admin shard replica remove \(id) \(replica.name)")
        }
    }

    /// What the server of a connection file says, in words; nil if nobody answers there.
    private func answer(of file: String) async throws -> String? {
        do {
            let connection = try await PostgresConnection.connect(
                PostgresConfiguration(
                    connectionString: try plane.configuration.conninfo(file),
                    applicationName: "hc-admin"),
                deadline: .after(ControlPlane.connectTimeout, from: plane.clocks.monotonic()))
            connection.close()
            return "its server answers"
        } catch let error as PostgresError {
            switch error.kind {
            case .connectFailed(.unreachable), .deadlineExceeded: return nil
            case .cancelled: throw error
            default: return "its server answers, or \(file).conninfo is wrong: \(error)"
            }
        }
    }
}

extension Move {
    /// The shard that an operator has given up: it is asked nothing any more.
    package var givenUp: String? { progress["givenUp"]?.asString }

    /// It has only to take down what it has made.
    var canLoseShard: Bool {
        if state == .aborting { return true }
        return [.opened, .switched, .soaking, .closing, .purging].contains(step)
    }
}

extension MoveStore {
    /// - Throws: `ControlError` (`move-changed`) if the move is not as it was looked at.
    fileprivate func giveUp(
        _ shard: String, of move: Move, leftBehind: [String], owner: String, reason: String?
    ) async throws -> Move {
        let left = JSONValue.array(leftBehind.map { .string($0) })
        let isTaken = try await plane.attempt("the move cannot be changed") {
            try await plane.control().transaction(deadline: plane.deadline) { transaction in
                let changed = try await transaction.execute(
                    Query(
                        """
                        UPDATE move
                        SET step = CASE WHEN step IN ('switched', 'soaking') THEN 'closing' ELSE step END,
                            progress = progress
                                || jsonb_build_object('givenUp', $3::text, 'leftBehind', $4::jsonb, 'waitingFor', NULL),
                            attempt = attempt + 1, lease_owner = $5,
                            lease_until = clock_timestamp() + $6 * interval '1 ms', updated_at = clock_timestamp()
                        WHERE id = $1 AND attempt = $2 AND step = $7 AND state = $8
                            AND EXISTS (SELECT FROM placement
                                WHERE placement.tenant_id = move.tenant_id AND shard_id <> $3)
                        """,
                        [
                            .id(move.id), .int8(move.attempt), .text(shard),
                            .json(left.serialized), .text(owner),
                            .int8(MoveStore.lease.inMilliseconds), .text(move.step.rawValue),
                            .text(move.state.rawValue),
                        ])
                ).affectedRows
                guard changed == 1 else { return false }
                _ = try await transaction.execute(final: [
                    plane.audit(
                        "tenant.move.without", subject: move.slug,
                        detail: [
                            "move": .string("\(move.id.uuid)"), "shard": .string(shard),
                            "step": .string(move.step.rawValue), "leftBehind": left,
                            "reason": reason.map { .string($0) } ?? .null,
                        ])
                ])
                return true
            }
        }
        guard isTaken else {
            throw ControlError(
                .conflict, code: "move-changed", "the move has just gone on",
                remedy: "Give the command again.")
        }
        return try await find(move.id)
    }
}
