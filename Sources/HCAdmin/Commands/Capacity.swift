import HCControl
import HCCore
import HCIO

struct Capacity: Command {
    static let specification = CommandSpecification(
        path: ["capacity"],
        summary: "Computes what a fleet needs, and prints the assumptions with the result.",
        discussion: """
            Without --pods and --users: the four sizes of the platform's table of promises. Connections,
            Redis, memory, and what shuffle sharding of clinics over pods costs and gains
            (admin/capacity.md). With --host: the pods that a load balancer sends a clinic to. Nothing is
            measured, and nothing is asked of a running platform.
            """,
        options: [
            .value("users", "N", "People who are connected; 5000 for each pod."),
            .value("pods", "N", "Machines or pods that run workers; one for each 5000 users."),
            .value("workers", "N", "Workers of a pod; 2."),
            .value("shards", "N", "Databases; 4."),
            .value("tenants", "N", "Clinics; 1000."),
            .value("width", "K", "Pods of one clinic; 2 of less than 8, else 4."),
            .value("requests-per-user", "R", "In a second; 0.1."),
            .value("request-us", "T", "CPU time of a request in microseconds; 100."),
            .value("transaction-ms", "T", "For which a request holds a connection; 4."),
            .value("connections", "N", "Of one process to one shard; 8."),
            .value("max-connections", "N", "That a shard takes; 500."),
            .value("lease-requests", "N", "Requests that one lease of rate units covers; 50."),
            .value("exact-percent", "P", "Of the requests that ask Redis each; 2."),
            .value("reads-per-entry", "N", "Reads of a cached value in its life; 600."),
            .value("tenant-bytes", "N", "Memory of a clinic in a process' directory; 1300."),
            .value("host", "HOST", "Show the pods of this host."),
            .values("pod", "NAME", "Their names, with --host; pod-1, pod-2, … unless given."),
        ],
        examples: [
            "capacity", "capacity --users 250000 --pods 60 --shards 12 --tenants 20000 --json",
            "capacity --host sunrise.api.example.org --pods 20",
        ])

    func run(_ invocation: Invocation, _ environment: AdminEnvironment) async throws -> Report {
        if let host = invocation.option("host") { return try pods(of: host, invocation) }
        var sizes = CapacityModel.graded.map { (users: $0.users, pods: $0.pods) }
        let users = try invocation.integer("users", in: 1...1_000_000_000)
        let pods = try invocation.integer("pods", in: 1...100_000)
        if users != nil || pods != nil {
            let count = pods ?? max(1, ((users ?? 1) + 4999) / 5000)
            sizes = [(users ?? count * 5000, count)]
        }
        let models = try sizes.map { try model(invocation, users: $0.users, pods: $0.pods) }
        return Report(
            json: ["fleets": .array(models.map(Capacity.json))],
            text: Capacity.table(models).render() + "\n\n" + Capacity.assumptions(models[0]))
    }

    private func model(
        _ invocation: Invocation, users: Int, pods: Int
    ) throws(UsageError) -> CapacityModel {
        var model = CapacityModel(users: users, pods: pods)
        func set(
            _ path: WritableKeyPath<CapacityModel, Int>, _ name: String, _ range: ClosedRange<Int>
        ) throws(UsageError) {
            if let value = try invocation.integer(name, in: range) { model[keyPath: path] = value }
        }
        func set(
            _ path: WritableKeyPath<CapacityModel, Double>, _ name: String,
            _ range: ClosedRange<Double>
        ) throws(UsageError) {
            if let value = try invocation.number(name, in: range) { model[keyPath: path] = value }
        }
        try set(\.workersPerPod, "workers", 1...1024)
        try set(\.shards, "shards", 1...100_000)
        try set(\.tenants, "tenants", 1...100_000_000)
        model.shuffleWidth = try invocation.integer("width", in: 1...pods)
        try set(\.requestsPerUser, "requests-per-user", 0.000_001...1000)
        try set(\.requestMicroseconds, "request-us", 0.01...10_000_000)
        try set(\.transactionMilliseconds, "transaction-ms", 0.001...600_000)
        try set(\.connectionsPerProcess, "connections", 1...1000)
        try set(\.shardConnectionsMax, "max-connections", 20...100_000)
        try set(\.leaseRequests, "lease-requests", 1...1_000_000)
        try set(\.exactPercent, "exact-percent", 0...100)
        try set(\.readsPerEntry, "reads-per-entry", 0.001...1_000_000_000)
        try set(\.tenantBytes, "tenant-bytes", 1...1_000_000)
        return model
    }

    /// - Throws: `UsageError` for what is no host: any text has pods, and a typing error or a port would have others.
    func pods(of host: String, _ invocation: Invocation) throws(UsageError) -> Report {
        let host = host.lowercased()
        let isHost = host.split(separator: ".", omittingEmptySubsequences: false).allSatisfy {
            let isPlain = $0.utf8.allSatisfy { byte in
                (UInt8(ascii: "a")...UInt8(ascii: "z")).contains(byte)
                    || (UInt8(ascii: "0")...UInt8(ascii: "9")).contains(byte)
                    || byte == UInt8(ascii: "-")
            }
            return isPlain && !$0.isEmpty
        }
        guard isHost else {
            throw UsageError(
                "'--host' takes the name of a host, without a port, not '\(host)'",
                Capacity.specification)
        }
        var names = invocation.values("pod")
        if names.isEmpty {
            let count = try invocation.integer("pods", in: 1...100_000) ?? 5
            names = (1...count).map { "pod-\($0)" }
        }
        guard Set(names).count == names.count else {
            throw UsageError("a pod is named twice", Capacity.specification)
        }
        let width =
            try invocation.integer("width", in: 1...names.count)
            ?? ShuffleSharding.defaultWidth(pods: names.count)
        let chosen = ShuffleSharding(pods: names, width: width).pods(of: host)
        return Report(
            json: [
                "host": .string(host), "pods": .array(chosen.map { .string($0) }),
            ], text: chosen.joined(separator: "\n"))
    }

    // MARK: Output

    private static func rows(_ model: CapacityModel) -> [(String, String, String, JSONValue)] {
        func whole(_ label: String, _ key: String, _ value: Int) -> (
            String, String, String, JSONValue
        ) {
            (label, key, grouped(value), .integer(Int64(value)))
        }
        func figure(
            _ label: String, _ key: String, _ value: Double, _ unit: String = ""
        ) -> (String, String, String, JSONValue) {
            (label, key, "\(short(value))\(unit)", .double(value))
        }
        return [
            whole("pods", "pods", model.pods),
            whole("worker processes", "processes", model.processes),
            figure("requests/s", "requestsPerSecond", model.requestsPerSecond),
            figure("requests/s of a pod", "requestsPerPod", model.requestsPerPod),
            figure("use of a worker's core", "workerPercent", model.workerPercent, " %"),
            whole("connections of a shard, own", "connectionsPerShard", model.connectionsPerShard),
            whole("  that it has for them", "shardAvailable", model.shardAvailable),
            (
                "  verdict", "connectionsDirect",
                model.fitsDirectly
                    ? "fits"
                    : model.connectionsPerProcessThatFit > 0
                        ? "at most \(model.connectionsPerProcessThatFit) a process"
                        : "needs a pooler",
                .bool(model.fitsDirectly)
            ),
            figure("connections of a shard, busy", "busyPerShard", model.busyPerShard),
            whole("connections of a shard, pooled", "pooledPerShard", model.pooledPerShard),
            whole("shards at least", "shardsAtLeast", model.shardsAtLeast),
            figure("limiter decisions/s", "limiterDecisions", model.limiterDecisions),
            figure("Redis commands/s", "redisPerSecond", model.redisPerSecond),
            figure(
                "directory of a process, MB", "directoryMegabytesPerProcess",
                Double(model.directoryBytesPerProcess) / 1_000_000),
            figure(
                "directory of a pod, MB", "directoryMegabytesPerPod",
                Double(model.directoryBytesPerPod) / 1_000_000),
            figure(
                "client connections of a pod, MB", "clientMegabytesPerPod",
                Double(model.clientBytesPerPod) / 1_000_000),
            whole("pods of a clinic", "width", model.width),
            figure("sets of pods", "combinations", model.combinations),
            figure("clinics fully hit with one", "fullyHitPercent", model.fullyHit * 100, " %"),
            figure(
                "  of the clinics there are", "fullyHitClinics",
                model.fullyHit * Double(model.tenants)),
            figure(
                "clinics that lose a pod with one", "partlyHitPercent", model.partlyHit * 100, " %"),
            figure("spread of load over pods", "imbalancePercent", model.imbalance * 100, " %"),
            figure(
                "cache hits, clinics everywhere", "hitRateEverywherePercent",
                model.hitRateEverywhere * 100, " %"),
            figure(
                "cache hits, clinics on their pods", "hitRateShuffledPercent",
                model.hitRateShuffled * 100, " %"),
            figure(
                "cache hits, clinics on one pod", "hitRateOnePodPercent",
                model.hitRateOnePod * 100, " %"),
        ]
    }

    static func table(_ models: [CapacityModel]) -> Table {
        let columns = models.map(rows)
        return Table(
            header: ["USERS"] + models.map { grouped($0.users) },
            rows: columns[0].indices.map { index in
                [columns[0][index].0] + columns.map { $0[index].2 }
            })
    }

    static func assumptions(_ model: CapacityModel) -> String {
        """
        Assumed: \(model.workersPerPod) workers a pod and one successor while it rolls; \(model.shards) shards of \
        \(model.shardConnectionsMax) connections, \(model.shardReserve) of them kept; \(grouped(model.tenants)) clinics of \
        equal load.
        A user makes \(short(model.requestsPerUser)) requests a second; one takes \(short(model.requestMicroseconds)) us of \
        CPU, and \(short(model.databasePercent)) % of them hold a connection for \(short(model.transactionMilliseconds)) ms; \
        a pooler is \(short(model.poolUsePercent)) % busy.
        \(short(model.exactPercent)) % of the requests ask Redis each; the others lease for \(model.leaseRequests) requests \
        and are compared with \(model.rulesPerRequest) rules.
        A cached value is read \(short(model.readsPerEntry)) times in its life. An idle client takes \
        \(grouped(model.clientBytes)) bytes, a clinic in the directory \(grouped(model.tenantBytes)).
        Nothing here was measured in this run: deploy/local/bench measures.
        """
    }

    static func json(_ model: CapacityModel) -> JSONValue {
        var object = JSONObject()
        object.set(.integer(Int64(model.users)), for: "users")
        for (_, key, _, value) in rows(model) { object.set(value, for: key) }
        object.set(
            [
                "workersPerPod": .integer(Int64(model.workersPerPod)),
                "shards": .integer(Int64(model.shards)),
                "tenants": .integer(Int64(model.tenants)),
                "requestsPerUser": .double(model.requestsPerUser),
                "requestMicroseconds": .double(model.requestMicroseconds),
                "transactionMilliseconds": .double(model.transactionMilliseconds),
                "databasePercent": .double(model.databasePercent),
                "poolUsePercent": .double(model.poolUsePercent),
                "connectionsPerProcess": .integer(Int64(model.connectionsPerProcess)),
                "shardConnectionsMax": .integer(Int64(model.shardConnectionsMax)),
                "shardReserve": .integer(Int64(model.shardReserve)),
                "exactPercent": .double(model.exactPercent),
                "leaseRequests": .integer(Int64(model.leaseRequests)),
                "rulesPerRequest": .integer(Int64(model.rulesPerRequest)),
                "readsPerEntry": .double(model.readsPerEntry),
                "clientBytes": .integer(Int64(model.clientBytes)),
                "tenantBytes": .integer(Int64(model.tenantBytes)),
            ], for: "assumptions")
        return .object(object)
    }

    private static func grouped(_ value: Int) -> String {
        var digits = String(value)
        var position = digits.count - 3
        while position > 0 {
            digits.insert(",", at: digits.index(digits.startIndex, offsetBy: position))
            position -= 3
        }
        return digits
    }

    /// Three figures that count.
    private static func short(_ value: Double) -> String {
        if value >= 1000 { return value < 1e15 ? grouped(Int(value.rounded())) : "\(value)" }
        if value == 0 { return "0" }
        var (scaled, places) = (value, 0)
        while scaled < 100, places < 12 {
            scaled *= 10
            places += 1
        }
        var factor = 1.0
        for _ in 0..<places { factor *= 10 }
        let rounded = scaled.rounded()
        if rounded.truncatingRemainder(dividingBy: factor) == 0 {
            return "\(Int(rounded / factor))"
        }
        let whole = Int(rounded / factor)
        var fraction = String(Int(rounded) - whole * Int(factor))
        while fraction.count < places { fraction = "0" + fraction }
        while fraction.hasSuffix("0") { fraction.removeLast() }
        return "\(whole).\(fraction)"
    }
}
