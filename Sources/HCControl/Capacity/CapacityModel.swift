/// What a fleet of a given size needs, from measured costs and stated assumptions. Arithmetic only: every number that
/// goes in is a member, and is printed with what comes out.
package struct CapacityModel: Sendable, Equatable {
    // MARK: The fleet

    package var users: Int
    package var pods: Int
    package var workersPerPod = 2
    package var shards = 4
    package var tenants = 1000
    package var shuffleWidth: Int?

    // MARK: What is asked of it

    /// Requests of one user in a second: 5,000 users of a pod make 500.
    package var requestsPerUser = 0.1
    /// Of all requests, in percent: those that wait for a shard.
    package var databasePercent = 90.0
    /// Those that ask Redis exactly: login, one-time codes, and what else is not leased.
    package var exactPercent = 2.0
    /// Requests that one lease of units covers.
    package var leaseRequests = 50
    /// Rules that a request is compared with.
    package var rulesPerRequest = 7
    /// Times that the same cached value of a clinic is asked for in the life of an entry.
    package var readsPerEntry = 600.0

    // MARK: What it costs

    /// CPU time of the server for a request, in microseconds.
    package var requestMicroseconds = 100.0
    /// Time for which a request holds a connection to its shard, in milliseconds.
    package var transactionMilliseconds = 4.0
    /// Share of a pool that may be busy before queues grow, in percent.
    package var poolUsePercent = 50.0
    package var connectionsPerProcess = 8
    package var shardConnectionsMax = 500
    package var shardReserve = 13
    /// Memory of an idle client connection in the server, in bytes, with TLS.
    package var clientBytes = 20_000
    /// Memory of one clinic in the directory of one process, in bytes.
    package var tenantBytes = 1_300

    package init(users: Int, pods: Int) {
        self.users = users
        self.pods = pods
    }

    /// The rows of the platform's table of promises: 5,000 users a pod in each.
    package static let graded: [(users: Int, pods: Int, milliseconds: Int)] = [
        (25_000, 5, 100), (100_000, 20, 120), (500_000, 100, 150), (1_000_000, 200, 200),
    ]

    // MARK: What comes out

    package var width: Int {
        min(shuffleWidth ?? ShuffleSharding.defaultWidth(pods: pods), pods)
    }
    package var processes: Int { pods * workersPerPod }
    /// A rolled worker and its successor overlap.
    package var processesAtMost: Int { processes + pods }
    package var requestsPerSecond: Double { Double(users) * requestsPerUser }
    package var requestsPerPod: Double { requestsPerSecond / Double(pods) }
    /// CPU of one pod that its workers use, in percent of one core each.
    package var workerPercent: Double {
        requestsPerPod / Double(workersPerPod) * requestMicroseconds / 10_000
    }

    /// Connections to one shard, if every process has its own.
    package var connectionsPerShard: Int { processesAtMost * connectionsPerProcess }
    package var shardAvailable: Int { shardConnectionsMax - shardReserve }
    package var fitsDirectly: Bool { connectionsPerShard <= shardAvailable }
    /// Own connections per process that would fit; 0: none does.
    package var connectionsPerProcessThatFit: Int { max(0, shardAvailable / processesAtMost) }
    /// Connections that are busy at one moment on one shard, by Little's law.
    package var busyPerShard: Double {
        requestsPerSecond * databasePercent / 100 / Double(shards) * transactionMilliseconds / 1000
    }
    /// Connections that a transaction pooler in front of a shard needs.
    package var pooledPerShard: Int { Int((busyPerShard * 100 / poolUsePercent).rounded(.up)) }
    package var fitsPooled: Bool { pooledPerShard <= shardAvailable }
    /// Shards below which a shard would have to give more connections than it has.
    package var shardsAtLeast: Int {
        max(1, Int((Double(shards * pooledPerShard) / Double(max(1, shardAvailable))).rounded(.up)))
    }

    package var limiterDecisions: Double { requestsPerSecond * Double(rulesPerRequest) }
    /// Commands to Redis in a second, all processes together: what is asked exactly, and leases.
    package var redisPerSecond: Double {
        let exact = requestsPerSecond * exactPercent / 100
        return exact + (requestsPerSecond - exact) / Double(leaseRequests)
    }

    package var directoryBytesPerProcess: Int { tenants * tenantBytes }
    package var directoryBytesPerPod: Int { directoryBytesPerProcess * workersPerPod }
    package var clientBytesPerPod: Int { users / pods * clientBytes }

    package var combinations: Double { ShuffleSharding.combinations(pods, width) }
    package var fullyHit: Double { ShuffleSharding.fullyHit(pods: pods, width: width) }
    package var partlyHit: Double { ShuffleSharding.partlyHit(pods: pods, width: width) }
    package var imbalance: Double {
        ShuffleSharding.imbalance(pods: pods, width: width, clinics: tenants)
    }
    package var hitRateEverywhere: Double {
        ShuffleSharding.hitRate(requests: readsPerEntry, processes: processes)
    }
    package var hitRateShuffled: Double {
        ShuffleSharding.hitRate(requests: readsPerEntry, processes: width * workersPerPod)
    }
    package var hitRateOnePod: Double {
        ShuffleSharding.hitRate(requests: readsPerEntry, processes: workersPerPod)
    }
}
