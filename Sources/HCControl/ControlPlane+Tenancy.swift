import HCCore
import HCCrypto
import HCIO
import HCRedis
package import HCTenancy

/// The data plane as the control plane uses it: the same door to a clinic's data that a worker has, so that what
/// is made by a command is made by the code that serves requests.
@LoopActor
final class ControlDoor {
    let master: MasterKey
    let directory: DirectoryFollower
    let door: TenantDoor
    private let shards: ShardPools
    /// Workers may have copies of what a command changes: they are told.
    private let redis: RedisClient
    /// It was waited for in vain: a command that looks at many clinics does not wait for it with each.
    private var isWithoutRedis = false

    init(configuration: PlatformConfiguration, clocks: Clocks) throws {
        do {
            master = try MasterKey.load(path: configuration.masterKeyFile)
        } catch {
            throw ControlError(.failed, code: "bad-master-key", "\(error)")
        }
        let metrics = TenancyMetrics(.unread)
        directory = DirectoryFollower(
            DirectoryConfiguration(
                applicationName: "hc-admin", file: nil,
                conninfo: { try configuration.conninfo("control.router") }),
            clocks: clocks, logger: .silent, metrics: metrics, blocking: BlockingPool())
        shards = ShardPools(
            ShardPoolConfiguration(
                applicationName: "hc-admin", pools: configuration.pools,
                conninfo: { try configuration.conninfo("shards/\($0).app") }),
            logger: .silent, metrics: metrics)
        redis = try RedisClient(
            configuration.redis, name: "hc-admin", blocking: BlockingPool(), logger: .silent)
        door = TenantDoor(
            directory: directory, shards: shards, redis: redis, master: master, processes: 1,
            clocks: clocks, logger: .silent, metrics: metrics,
            copies: CoherenceSetup(metrics: CoherenceMetrics(.unread), reader: nil))
        redis.start()
    }

    /// Waits for Redis, but not long, and once: without it a change waits until nobody can have copies.
    func prepare(deadline: Deadline) async {
        guard !isWithoutRedis else { return }
        do throws(RedisError) {
            try await redis.waitUntilReady(deadline: deadline)
        } catch {
            isWithoutRedis = true
        }
    }

    /// Lets what was changed be told to the end.
    func close() async {
        await redis.shutDown(deadline: .after(.seconds(1), from: Loop.now))
    }
}

extension ControlPlane {
    /// The clinic as the control plane reaches it, also before it is open: with the newest map.
    package func context(tenant: TenantID) async throws -> TenantContext {
        let door = try controlDoor()
        do {
            try await door.directory.refresh(deadline: deadline)
            await door.prepare(
                deadline: deadline.earlier(of: .after(.seconds(1), from: clocks.monotonic())))
            return try door.door.context(tenant: tenant, for: .control)
        } catch {
            throw ControlError(
                .failed, code: "tenant-unreachable", "the clinic cannot be reached", cause: error)
        }
    }

    /// A new clinic's keys, wrapped.
    func makeKeys(for tenant: TenantID) throws -> [WrappedKey] {
        try WrappedKey.makeSet(for: tenant, master: controlDoor().master)
    }

    /// Opens the clinic's keys with the master key.
    func proveKeys(of tenant: TenantID) async throws {
        _ = try await context(tenant: tenant).keys
    }

    /// What Redis does when it is full (`maxmemory-policy`).
    ///
    /// - Returns: nil if Redis answers and does not say: services that run Redis for others often refuse `CONFIG`, and
    ///   those that know their clients' rights well `INFO`.
    /// - Throws: `RedisError` if it does not answer.
    func redisPolicy() async throws -> String? {
        let client = try RedisClient(
            configuration.redis, name: "hc-admin", blocking: BlockingPool(), logger: .silent)
        client.start()
        defer { client.close() }
        let deadline = Deadline.after(.seconds(3), from: clocks.monotonic())
        try await client.waitUntilReady(deadline: deadline)
        do throws(RedisError) {
            let pair = try await client.send(
                ["CONFIG", "GET", "maxmemory-policy"], deadline: deadline
            ).asArray
            if let pair, pair.count == 2, let policy = pair[1].asString { return policy }
        } catch {
            guard case .server = error else { throw error }
        }
        do throws(RedisError) {
            let name = "maxmemory_policy:"
            return try await client.send(["INFO", "memory"], deadline: deadline).asString?
                .split(whereSeparator: \.isNewline).first { $0.hasPrefix(name) }
                .map { String($0.dropFirst(name.count)) }
        } catch {
            guard case .server = error else { throw error }
            return nil
        }
    }
}
