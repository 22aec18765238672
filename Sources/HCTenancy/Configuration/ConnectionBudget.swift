/// Whether all processes together stay within what a shard takes: the sum is checked before anything starts,
/// since a shard that refuses connections refuses them to whoever comes last.
package struct ConnectionBudget: Sendable, Equatable {
    /// Worker processes of one instance.
    package var workers: Int
    package var instances: Int
    package var connectionsPerShard: Int
    /// Left to operators, movers and backups.
    package var reserve: Int

    package init(workers: Int, pools: PlatformConfiguration.Pools) {
        self.workers = workers
        instances = pools.instances
        connectionsPerShard = pools.shardConnectionsMax
        reserve = pools.shardReserve
    }

    /// Processes that hold connections and share a clinic's limits.
    package var processes: Int { workers * instances }

    /// A rolled worker and its successor overlap: each instance may have one more for a while.
    package var needed: Int { (processes + instances) * connectionsPerShard }

    /// - Parameter limits: shard and the most connections it takes (`shard.connection_limit`).
    /// - Returns: one sentence for each shard that would be overrun; empty when all is well.
    package func problems(limits: [(shard: String, limit: Int)]) -> [String] {
        limits.compactMap { shard, limit in
            guard needed > limit - reserve else { return nil }
            return "shard \(shard) takes \(limit) connections, \(reserve) of them reserved, but"
                + " \(processes) workers and \(instances) successors may hold \(needed)"
                + " (\(connectionsPerShard) each): lower pools.shardConnectionsMax or server.workers,"
                + " or raise the shard's limit"
        }
    }
}
