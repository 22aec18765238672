import HCCore

/// What shards take for the steps of a migration, and what is in its way there.
///
/// The times were recorded by `deploy/local/bench migrate`: 64 shards under load, statements that only add. They are those of
/// a small machine that all shards share; of servers of their own they would be shorter.
package struct RolloutProfile: Sendable {
    /// Times by share of all: a straight line between two of the points, none beyond the last.
    package struct Quantiles: Sendable {
        let points: [(share: Double, milliseconds: Double)]

        func sample<Random: RandomNumberGenerator>(using random: inout Random) -> Duration {
            let share = Double.random(in: 0...1, using: &random)
            var before = points[0]
            for point in points {
                guard point.share < share else {
                    let width = point.share - before.share
                    let part = width > 0 ? (share - before.share) / width : 1
                    return .microseconds(
                        Int64(
                            1000
                                * (before.milliseconds + part
                                    * (point.milliseconds - before.milliseconds))))
                }
                before = point
            }
            return .microseconds(Int64(1000 * before.milliseconds))
        }

        var text: String {
            points.map { "\(Int($0.share * 100)) % below \($0.milliseconds) ms" }
                .joined(separator: ", ")
        }
    }

    /// Looking at a shard: its ledger, its fingerprint, a connection.
    package var look = Quantiles(points: [(0, 40), (0.5, 120), (0.9, 200), (1, 400)])
    /// One line written to the control database.
    package var control = Quantiles(points: [(0, 1), (0.5, 3), (0.9, 8), (1, 40)])
    /// The migration itself, once it has its locks.
    package var apply = Quantiles(points: [(0, 40), (0.5, 80), (0.9, 120), (1, 350)])
    /// For how long its locks are held, of that.
    package var hold = Quantiles(points: [(0, 5), (0.5, 15), (0.9, 40), (1, 90)])
    /// What an attempt waits for its locks among requests.
    package var wait = Quantiles(points: [(0, 0), (0.8, 0), (0.95, 5), (0.99, 20), (1, 80)])
    /// Shards at which somebody has a long transaction when the migration comes, and for how long he still has it.
    package var longShare = 0.02
    package var long = Quantiles(points: [(0, 200), (0.5, 2000), (0.9, 10_000), (1, 45_000)])

    package init() {}

    package var assumptions: [String] {
        [
            "looking at a shard: \(look.text)", "a line in the control database: \(control.text)",
            "the migration with its locks: \(apply.text)",
            "for how long it holds them: \(hold.text)",
            "what an attempt waits for them: \(wait.text)",
            "at \(Int(longShare * 100)) % of the shards a transaction is in its way: \(long.text)",
        ]
    }
}
