import HCCore
import HCIO
import HCPostgres

/// The connections of one process to one server, and who gets them: a pool that opens and keeps them, behind a
/// `FairQueue` that lends them out.
///
/// A request waits in the queue at most for its tier's `queueTimeout` and its own deadline, whichever is earlier, and
/// leaves it when its task is cancelled.
@LoopActor
final class ShardPool {
    typealias Queue = FairQueue<TenantID>

    let name: String
    private let pool: PostgresPool
    private var queue: Queue
    /// By the index of the ticket.
    private var waiters: [Waiter<Void>?] = []
    private let metrics: ShardQueueMetrics?
    /// For the rebalancer.
    private(set) var loads = LoadLedger(tenantsMax: ShardPool.countedMax)

    /// Clinics whose use is counted between two reports.
    private nonisolated static let countedMax = 16_384

    /// What a client is told to wait at least and at most.
    private nonisolated static let retryAfter: ClosedRange<Duration> = .seconds(1)...(.seconds(60))

    init(
        _ pool: PostgresPool, limits: Queue.Limits, metrics: ShardQueueMetrics? = nil
    ) {
        name = pool.name
        self.pool = pool
        queue = Queue(limits)
        self.metrics = metrics
    }

    var waitingCount: Int { queue.waitingCount }
    var activeCount: Int { queue.activeCount }

    /// Opens what is to be kept warm.
    func start() { pool.start() }

    /// Runs `body` on a connection when it is the clinic's turn. The clinic is charged the time until `body` ends.
    ///
    /// - Parameters:
    ///   - isUrgent: completes what has had its turn: it goes before the clinic's other work.
    ///   - deadline: bounds the wait, not `body`.
    /// - Throws: `TenancyError.overloaded` when too many wait, or this one for too long; `.deadlineExceeded`;
    ///   `PoolError`; `CancellationError`; what `body` throws.
    func withConnection<Value>(
        for tenant: TenantID, _ tier: TierDefinition, isUrgent: Bool = false, deadline: Deadline,
        _ body: @LoopActor (PostgresConnection) async throws -> Value
    ) async throws -> Value {
        let ticket: Queue.Ticket
        switch queue.ask(
            tenant, Queue.Terms(tier), isUrgent: isUrgent, now: Loop.now)
        {
        case .grant(let granted):
            ticket = granted
            serve()
        case .wait(let waiting):
            // In the same stretch: an `await` may let others run, and the queue may name the ticket by then.
            let waiter = enlist(waiting)
            try await wait(waiting, waiter, tenant, tier.pool.queueTimeout, deadline)
            ticket = waiting
        case .refuse(let wait):
            serve()
            metrics?.rejected(.full)
            throw TenancyError.overloaded(retryAfter: ShardPool.bounded(wait))
        }
        defer { finish(ticket) }
        return try await pool.withConnection(deadline: deadline) { connection in
            let (start, before) = (Loop.now, connection.work)
            defer {
                loads.add(
                    tenant, pool: Loop.now - start, connection.work - before)
            }
            return try await body(connection)
        }
    }

    /// What clinics have used since the last time, and how often one was not counted.
    func takeLoads() -> (entries: [TenantID: LoadLedger.Entry], missed: Int) {
        let missed = loads.missed
        return (loads.take(), missed)
    }

    private func enlist(_ ticket: Queue.Ticket) -> Waiter<Void> {
        let waiter = Waiter<Void>()
        while waiters.count <= ticket.index { waiters.append(nil) }
        waiters[ticket.index] = waiter
        serve()
        return waiter
    }

    private func wait(
        _ ticket: Queue.Ticket, _ waiter: Waiter<Void>, _ tenant: TenantID, _ timeout: Duration,
        _ deadline: Deadline
    ) async throws {
        let since = Loop.now
        let patience = Deadline.after(timeout, from: since)
        do {
            try await waiter.wait(until: patience.earlier(of: deadline))
            metrics?.waited(Loop.now - since, waiting: queue.waitingCount)
        } catch is DeadlineExceeded {
            let retryAfter = ShardPool.bounded(queue.expectedWait(of: tenant))
            leave(ticket, waiter, isRejected: true)
            metrics?.rejected(.late)
            guard patience < deadline else { throw TenancyError.deadlineExceeded }
            throw TenancyError.overloaded(retryAfter: retryAfter)
        } catch {
            leave(ticket, waiter, isRejected: false)
            throw error
        }
    }

    private func leave(_ ticket: Queue.Ticket, _ waiter: Waiter<Void>, isRejected: Bool) {
        // Its place may be somebody else's by now.
        if waiters[ticket.index] === waiter { waiters[ticket.index] = nil }
        _ = queue.leave(ticket, isRejected: isRejected, now: Loop.now)
        metrics?.show(waiting: queue.waitingCount)
        serve()
    }

    private func finish(_ ticket: Queue.Ticket) {
        queue.finish(ticket, now: Loop.now)
        serve()
    }

    /// Gives out what is free.
    private func serve() {
        while let ticket = queue.next(now: Loop.now) {
            let waiter = waiters[ticket.index]
            waiters[ticket.index] = nil
            // He may have been cancelled in this tick; then the next one gets it.
            if waiter?.succeed(()) != true { queue.finish(ticket, now: Loop.now) }
        }
    }

    /// The clinic is served elsewhere: connections of its own are everybody's again.
    func forget(_ tenant: TenantID) {
        queue.forget(tenant)
        serve()
    }

    /// Refuses new work and waits for what is under way, until the deadline. Who waits is sent to try again.
    func shutDown(deadline: Deadline) async {
        let error = PoolError(pool: name, code: .shutDown, retryAfter: nil, cause: nil)
        for waiter in waiters { waiter?.fail(error) }
        await pool.shutDown(deadline: deadline)
    }

    /// Every clinic that is remembered, and the sum of those that are not.
    func forEachTenant(_ body: (Queue.FlowView) -> Void) -> Queue.Use {
        queue.forEach(at: Loop.now, body)
        return queue.forgottenUse
    }

    private nonisolated static func bounded(_ wait: Duration) -> Duration {
        min(max(wait, retryAfter.lowerBound), retryAfter.upperBound)
    }
}

extension FairQueue.Terms {
    init(_ tier: TierDefinition) {
        self.init(
            weight: tier.weight, inFlightMax: tier.pool.inFlightMax,
            waitingMax: tier.pool.waitingMax, dedicated: tier.pool.dedicatedConnections)
    }
}

/// What a queue shows: one set per shard.
struct ShardQueueMetrics {
    enum Reason: String, CaseIterable {
        /// Too many of the clinic wait, or of all together.
        case full
        /// It waited for as long as its tier lets it, or its deadline.
        case late
    }

    private let waiting: Gauge
    private let waitTime: Histogram
    private let full: Counter
    private let late: Counter

    init(_ registry: MetricsRegistry, shard: String) {
        waiting = registry.gauge(
            "hc_shard_queue_waiting", "Transactions that wait for a connection to a shard",
            labels: [("shard", shard)])
        waitTime = registry.histogram(
            "hc_shard_queue_wait_seconds",
            "Time that transactions waited for a connection to a shard, of those that waited",
            labels: [("shard", shard)])
        func counter(_ reason: Reason) -> Counter {
            registry.counter(
                "hc_shard_queue_rejected_total",
                "Transactions refused a connection to a shard, for too many waited or they too long",
                labels: [("shard", shard), ("reason", reason.rawValue)])
        }
        full = counter(.full)
        late = counter(.late)
    }

    func show(waiting count: Int) { waiting.set(count) }

    func waited(_ time: Duration, waiting count: Int) {
        waitTime.observe(time)
        waiting.set(count)
    }

    func rejected(_ reason: Reason) {
        switch reason {
        case .full: full.increment()
        case .late: late.increment()
        }
    }
}
