/// How many processes of the platform share a clinic's limits. What they may hold together is `FleetBudget`.
package struct ConnectionBudget: Sendable, Equatable {
    /// Worker processes of one instance.
    package var workers: Int
    package var instances: Int

    package init(workers: Int, pools: PlatformConfiguration.Pools) {
        self.workers = workers
        instances = pools.instances
    }

    /// Processes that hold connections and share a clinic's limits.
    package var processes: Int { workers * instances }
}
