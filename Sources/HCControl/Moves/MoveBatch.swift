package import HCIO
import HCTenancy

/// Several clinics to one shard, each by a move of its own, so many at a time. What it leaves when it dies, agents carry on.
///
/// A slot of its own for each, and not one for all: a clinic that is written to heavily, or cannot be moved, holds up no
/// other, and each can be aborted and taken back alone. What that costs is measured in `ShardDrain`.
@LoopActor
package final class MoveBatch {
    package enum Result: Sendable {
        /// How its move ended, or soaks.
        case moved(Move)
        case failed(any Error)
        /// One before it has failed.
        case notBegun
    }

    package struct Outcome: Sendable {
        package var slug: String
        package var result: Result
    }

    /// Moves at once.
    package static let sizes = 1...16
    package static let usualSize = 4
    package static let clinicsMax = 1000

    private let plane: ControlPlane
    private let options: MoveOptions
    private let groups: MoveGroups
    private let reason: String?
    private let tell: MoveService.Tell
    private var waiting: [String] = []
    private var outcomes: [String: Result] = [:]
    private var hasFailed = false

    package init(
        plane: ControlPlane, options: MoveOptions, groups: MoveGroups, reason: String?,
        tell: @escaping MoveService.Tell
    ) {
        self.plane = plane
        self.options = options
        self.groups = groups
        self.reason = reason
        self.tell = tell
    }

    /// Moves clinics, of which each may be moved by itself: who asks has seen their plans. After one that fails no more are
    /// begun; those under way are carried to their end.
    ///
    /// - Returns: in the order of `slugs`.
    package func run(_ slugs: [String], to shard: String, size: Int) async -> [Outcome] {
        waiting = slugs.reversed()
        let movers = (0..<min(size, slugs.count)).map { _ in
            Loop.shared.makeTask { await self.moveOneByOne(to: shard) }
        }
        for mover in movers { await mover.value }
        return slugs.map { Outcome(slug: $0, result: outcomes[$0] ?? .notBegun) }
    }

    private func moveOneByOne(to shard: String) async {
        while !hasFailed, let slug = waiting.popLast() {
            // Moves do not wait for each other's statements.
            let own = plane.twin()
            do {
                let plan = try await MovePreflight(plane: own).plan(
                    slug, to: shard, options, groups)
                let service = MoveService(plane: own)
                let mover = try await service.begin(plan, reason: reason, tell: tell)
                _ = try await mover.run()
                // Another process may have taken it over.
                let move = try await service.follow(mover.id, tell: tell)
                outcomes[slug] = .moved(move)
                if move.state != .done, move.state != .soaking { hasFailed = true }
            } catch {
                outcomes[slug] = .failed(error)
                hasFailed = true
            }
            await own.close()
        }
    }
}
