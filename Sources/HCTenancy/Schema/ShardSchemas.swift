package import HCCore
package import HCIO

/// Sees to it that this process serves a shard only while it knows its schema: see `SchemaMachine`.
///
/// Each new connection asks the ledger, and so does `run` now and then, and whenever the map tells of another version. A
/// refusal holds for one shard; the clinics of the others notice nothing.
@LoopActor
package final class ShardSchemas: Service {
    private var machine: SchemaMachine
    private let logger: Logger
    private let refusedCount: Gauge
    private let pollInterval: Duration
    private var looking: Set<ShardID> = []
    /// Ends the pause between two looks.
    private var pause: Waiter<Void>?
    private var waiters: [Waiter<Void>] = []

    /// Asks the ledger of a shard, whether it is refused or not.
    var look: @LoopActor (ShardID, Deadline) async throws -> SchemaState = { _, _ in
        preconditionFailure("made by ShardPools")
    }
    /// Shards to which there are connections.
    var open: @LoopActor () -> Set<ShardID> = { [] }
    /// Whether the control database cannot be read.
    var isCutOff: @LoopActor () -> Bool = { false }

    private static let lookTimeout = Duration.seconds(5)
    private static let lookingMax = 16
    /// What a client is told to wait: as long as it takes until somebody looks again.
    private nonisolated static let retryAfter = Duration.seconds(5)

    init(
        range: SchemaRange, limits: SchemaMachine.Limits = SchemaMachine.Limits(),
        pollInterval: Duration = .seconds(1), logger: Logger, registry: MetricsRegistry
    ) {
        machine = SchemaMachine(range: range, limits: limits)
        self.pollInterval = pollInterval
        self.logger = logger
        refusedCount = registry.gauge(
            "hc_shards_refused", "Shards that are not served because of their schema")
    }

    package var serviceName: String { "schemas" }
    package var range: SchemaRange { machine.range }

    /// Shards that are not served, and why.
    package var refused: [(shard: ShardID, refusal: SchemaRefusal)] {
        machine.refused.compactMap { change in change.refusal.map { (change.shard, $0) } }
    }

    /// False if there are shards and not one can be served.
    package var isServing: Bool { machine.isServing }

    /// - Throws: `TenancyError.schemaUnsupported`.
    func requireServed(_ shard: ShardID) throws(TenancyError) {
        guard machine.refusal(of: shard) == nil else {
            throw .schemaUnsupported(retryAfter: ShardSchemas.retryAfter)
        }
    }

    func follow(_ records: some Collection<ShardRecord>) {
        let before = machine.refused
        let changes = machine.follow(records)
        tell(changes, wasRefused: Set(before.map(\.shard)))
        pause?.succeed(())
    }

    func saw(_ state: SchemaState, of shard: ShardID) {
        let wasRefused = machine.refusal(of: shard) != nil
        guard let change = machine.saw(state, of: shard, now: Loop.now) else { return }
        tell([change], wasRefused: wasRefused ? [shard] : [])
    }

    private func tell(_ changes: [SchemaMachine.Change], wasRefused: Set<ShardID>) {
        for change in changes {
            if let refusal = change.refusal {
                logger.error(
                    "a shard is not served",
                    [("shard", .string(change.shard.text)), ("reason", .string("\(refusal)"))])
            } else if wasRefused.contains(change.shard) {
                logger.notice("a shard is served again", [("shard", .string(change.shard.text))])
            }
        }
        refusedCount.set(machine.refused.count)
        guard machine.isServing else { return }
        for waiter in waiters { waiter.succeed(()) }
        waiters = []
    }

    /// Waits until at least one shard can be served; returns at once where there is none.
    package func untilServing() async throws {
        guard !machine.isServing else { return }
        let waiter = Waiter<Void>()
        waiters.append(waiter)
        try await waiter.wait(until: .never)
    }

    /// Looks at shards until the task is cancelled.
    package func run() async throws {
        while !Task.isCancelled {
            let now = Loop.now
            for shard in machine.due(open: open(), isCutOff: isCutOff(), now: now) {
                guard looking.count < ShardSchemas.lookingMax else { break }
                guard looking.insert(shard).inserted else { continue }
                machine.looked(at: shard, now: now)
                Loop.shared.spawn { await self.look(at: shard) }
            }
            let pause = Waiter<Void>()
            self.pause = pause
            defer { self.pause = nil }
            do {
                try await pause.wait(until: .after(pollInterval, from: Loop.now))
            } catch is DeadlineExceeded {
                continue
            }
        }
    }

    private func look(at shard: ShardID) async {
        let deadline = Deadline.after(ShardSchemas.lookTimeout, from: Loop.now)
        do {
            saw(try await look(shard, deadline), of: shard)
        } catch {
            // It does not answer: its clinics are told so, and it is looked at again.
        }
        looking.remove(shard)
    }
}
