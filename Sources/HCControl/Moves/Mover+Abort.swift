import HCCore
import HCIO
import HCPostgres
import HCTenancy

/// A move that has not passed its commit point is undone.
extension Mover {
    func beginAbort(_ reason: String) async throws {
        if move.direction == .back { return try await stay(reason) }
        try await advance(to: .aborting, state: .aborting, ["abortReason": .string(reason)])
    }

    /// The way back is given up: the clinic stays where it is, and the former origin goes on following.
    func stay(_ reason: String) async throws {
        try await fence().reopen()
        try await advance(
            to: .soaking, state: .soaking, ["abortReason": .string(reason)],
            also: [
                Query(
                    "UPDATE move SET direction = 'forward', abort_requested = false WHERE id = $1",
                    [.id(move.id)]),
                Query(
                    "SELECT placement_swap($1, $2, 'moving', $3, 'serving')",
                    [.id(move.tenant), .int8(move.epoch), .text(move.origin)]),
            ])
    }

    func abort() async throws {
        let fence = try await fence()
        try await fence.reopen()
        try await dropAll()
        if fence.destination.id != move.givenUp {
            // So that nothing of an earlier attempt comes after.
            try await fence.reserve()
            try await fence.purge(fence.destination)
            try await fence.dismiss(fence.destination)
        }
        try await fence.removeBarriers(on: fence.origin)
        try FaultPoint.reach("move.aborting.done")
        try await advance(
            to: .aborted, state: .aborted, [:],
            also: [
                Query(
                    "SELECT placement_swap($1, $2, 'moving', $3, 'serving')",
                    [.id(move.tenant), .int8(move.epoch), .text(move.origin)]),
                plane.audit(
                    "tenant.move.aborted", subject: move.slug,
                    detail: [
                        "move": .string("\(move.id.uuid)"),
                        "reason": move.progress["abortReason"] ?? .null,
                    ]),
            ])
    }
}
