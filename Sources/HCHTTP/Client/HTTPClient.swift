package import HCCore
import HCCrypto
package import HCIO

/// Requests to others: object storage, gateways, webhooks. libcurl's multi interface on the loop, with what a service
/// needs around it: a bound on transfers and connections, one deadline, retries within a budget, a breaker for each
/// origin, and a guard where tenants say where to go.
///
/// http and https only; no proxy, netrc, cookies or credentials from anywhere but the request; certificates are always
/// checked. Content comes as it was sent: `Accept-Encoding` is the caller's business, so that nothing grows on the
/// way in.
///
/// One client for one purpose: connections, bounds and the destination policy are its own.
@LoopActor
package final class HTTPClient {
    package let configuration: HTTPClientConfiguration
    private let multi: CurlMulti
    private let resolver: OutboundResolver
    private let metrics: HTTPClientMetrics?
    private let clocks: Clocks

    private var admission: TransferAdmission
    private var waiting: [TransferAdmission.WaiterID: Waiter<Void>] = [:]
    private var breakers: LRUCache<String, OriginBreaker>
    private var targets: [OutboundTarget: TargetState] = [:]
    private var random: any RandomNumberGenerator & Sendable

    private struct TargetState {
        var budget: RetryBudget
        let metrics: HTTPClientMetrics.Target?
    }

    /// - Parameter random: jitter and span ids.
    /// - Precondition: `configuration.problems()` is empty.
    package init(
        _ configuration: HTTPClientConfiguration, lookup: NameLookup = .system,
        metrics: HTTPClientMetrics? = nil, clocks: Clocks = .system,
        random: any RandomNumberGenerator & Sendable = SystemRandom()
    ) {
        let problems = configuration.problems()
        precondition(problems.isEmpty, "\(problems)")
        self.configuration = configuration
        self.metrics = metrics
        self.clocks = clocks
        self.random = random
        multi = CurlMulti(configuration, metrics)
        resolver = OutboundResolver(lookup, configuration)
        admission = TransferAdmission(configuration.transfers)
        breakers = LRUCache(capacityMax: configuration.breakerOriginsMax)
    }

    /// Sockets opened since the start, and those open now.
    package var connectionsOpened: Int { multi.connections.opened }
    package var connectionsOpen: Int { multi.connections.open }
    package var transfersInFlight: Int { admission.active }

    // MARK: Requests

    /// Makes a request and takes its whole answer, at most `request.responseBytesMax`. Any status is an answer.
    ///
    /// The deadline is for everything: waiting for a turn, names, attempts, waits between them.
    package func send(
        _ request: OutboundRequest, deadline: Deadline
    ) async throws(HTTPClientError) -> OutboundResponse {
        let begun = Loop.now
        do {
            let exchange = try await exchange(request, isStreamed: false, deadline)
            exchange.end()
            state(of: request.target).metrics?.ended(
                exchange.head.status, after: Loop.now - begun)
            return OutboundResponse(
                status: exchange.head.status, headers: exchange.head.headers,
                body: exchange.content, url: exchange.url)
        } catch {
            state(of: request.target).metrics?.failed(error, after: Loop.now - begun)
            throw error
        }
    }

    /// Makes a request and gives its answer to `body` as it comes. The connection is not read while `body` does not
    /// ask, and is given back when it returns; what it has not read is thrown away with it.
    ///
    /// Only until the answer's head is there is the request tried again: what `body` has seen stays true.
    package func withResponse<Value>(
        to request: OutboundRequest, deadline: Deadline,
        _ body: (OutboundResponseStream) async throws -> Value
    ) async throws -> Value {
        let begun = Loop.now
        let exchange: OutboundExchange
        do {
            exchange = try await self.exchange(request, isStreamed: true, deadline)
        } catch {
            state(of: request.target).metrics?.failed(error, after: Loop.now - begun)
            throw error
        }
        defer {
            let duration = Loop.now - begun
            let metrics = state(of: request.target).metrics
            if let error = exchange.transfer.failure {
                metrics?.failed(error, after: duration)
            } else {
                metrics?.ended(exchange.head.status, after: duration)
            }
            exchange.end()
        }
        return try await body(
            OutboundResponseStream(exchange.transfer, exchange.head, exchange.url, deadline))
    }

    // MARK: Redirects

    private func exchange(
        _ request: OutboundRequest, isStreamed: Bool, _ deadline: Deadline
    ) async throws(HTTPClientError) -> OutboundExchange {
        var hop = try OutboundHop(request)
        var followed = 0
        while true {
            let exchange = try await attempts(hop, request, isStreamed: isStreamed, deadline)
            guard case .follow(let max) = request.redirects,
                let location = OutboundHop.location(of: exchange.head)
            else { return exchange }
            exchange.end()
            followed += 1
            guard followed <= max else { throw .redirect(.tooMany) }
            hop = try hop.following(location, exchange.head.status)
        }
    }

    // MARK: Attempts

    private func attempts(
        _ hop: OutboundHop, _ request: OutboundRequest, isStreamed: Bool, _ deadline: Deadline
    ) async throws(HTTPClientError) -> OutboundExchange {
        var policy = RetryPolicy(
            request.retry ?? configuration.retry, isRepeatable: hop.isRepeatable)
        var target = state(of: request.target)
        target.budget.noteRequest()
        targets[request.target] = target
        while true {
            let answer: Result<OutboundExchange, AttemptFailure>
            do throws(AttemptFailure) {
                answer = .success(
                    try await attempt(hop, request, isStreamed: isStreamed, deadline))
            } catch {
                answer = .failure(error)
            }
            let outcome: RetryPolicy.Outcome
            switch answer {
            case .success(let exchange):
                let status = exchange.head.status
                guard RetryPolicy.isTransient(status) else { return exchange }
                let wait = exchange.head.headers[.retryAfter].flatMap {
                    RetryAfter.parse($0, now: clocks.now())
                }
                outcome = .status(status, retryAfter: wait)
            case .failure(let failure): outcome = failure.outcome
            }
            switch decide(&policy, outcome, request.target, deadline) {
            case .giveUp: return try answer.mapError(\.error).get()
            case .retry(let time):
                if case .success(let exchange) = answer { exchange.end() }
                do throws(CancellationError) {
                    try await Loop.shared.sleep(until: time)
                } catch {
                    throw .cancelled
                }
            }
        }
    }

    private func decide(
        _ policy: inout RetryPolicy, _ outcome: RetryPolicy.Outcome, _ name: OutboundTarget,
        _ deadline: Deadline
    ) -> RetryPolicy.Decision {
        var target = state(of: name)
        let decision = policy.decide(
            after: outcome, at: Loop.now, deadline: deadline, budget: &target.budget,
            using: &random)
        targets[name] = target
        if case .giveUp(let reason) = decision {
            target.metrics?.retriesGivenUp[reason]?.increment()
        }
        return decision
    }

    /// One try: a turn, addresses, a transfer.
    private func attempt(
        _ hop: OutboundHop, _ request: OutboundRequest, isStreamed: Bool, _ deadline: Deadline
    ) async throws(AttemptFailure) -> OutboundExchange {
        let rules = try check(hop.url)
        let origin = hop.url.origin
        try askBreaker(origin)
        do throws(AttemptFailure) {
            try await waitForTurn(origin, deadline)
            state(of: request.target).metrics?.attempts.increment()
            let exchange: OutboundExchange
            do throws(AttemptFailure) {
                exchange = try await transfer(
                    hop, request, rules, isStreamed: isStreamed, deadline)
            } catch {
                endTurn(origin)
                throw error
            }
            tellBreaker(origin, nil)
            return exchange
        } catch {
            tellBreaker(origin, error.error)
            throw error
        }
    }

    private func transfer(
        _ hop: OutboundHop, _ request: OutboundRequest, _ rules: GuardRules?, isStreamed: Bool,
        _ deadline: Deadline
    ) async throws(AttemptFailure) -> OutboundExchange {
        let addresses: [SocketAddress]
        do throws(HTTPClientError) {
            addresses = try await self.addresses(of: hop.url, rules, deadline)
        } catch {
            throw AttemptFailure(error, wasSent: false)
        }
        let plan = TransferPlan(
            url: hop.url, method: hop.method, headers: try headers(of: hop, request),
            content: hop.content, addresses: addresses, isStreamed: isStreamed,
            isRepeatable: hop.isRepeatable, responseBytesMax: request.responseBytesMax,
            rules: rules)
        let transfer = CurlTransfer(plan, configuration, on: multi)
        do throws(HTTPClientError) {
            guard !deadline.isExpired(at: Loop.now) else { throw .timeout(.connecting) }
            transfer.start()
            let origin = hop.url.origin
            if isStreamed {
                let head = try await transfer.awaitHead(until: deadline)
                return OutboundExchange(transfer, head, [], hop.url) { self.endTurn(origin) }
            }
            let content = try await transfer.awaitContent(until: deadline)
            guard let head = transfer.head else { throw .malformed("no answer") }
            return OutboundExchange(transfer, head, content, hop.url) { self.endTurn(origin) }
        } catch {
            if !transfer.wasSent, case .name(let name) = hop.url.host { resolver.forget(name) }
            throw AttemptFailure(error, wasSent: transfer.wasSent)
        }
    }

    // MARK: Where to

    private func check(_ url: OutboundURL) throws(AttemptFailure) -> GuardRules? {
        guard case .guarded(let rules) = configuration.destinations else { return nil }
        do throws(GuardRules.Refusal) {
            try rules.check(url)
            return rules
        } catch {
            throw AttemptFailure(.refusedAddress(error), wasSent: false)
        }
    }

    private func addresses(
        of url: OutboundURL, _ rules: GuardRules?, _ deadline: Deadline
    ) async throws(HTTPClientError) -> [SocketAddress] {
        guard case .name(let name) = url.host else { return [] }
        let addresses = try await resolver.addresses(of: name, until: deadline)
        do throws(GuardRules.Refusal) {
            try rules?.check(addresses)
            return addresses
        } catch {
            resolver.forget(name)
            throw .refusedAddress(error)
        }
    }

    /// The request's fields with those of this attempt: a span of its own, and the signature.
    private func headers(
        of hop: OutboundHop, _ request: OutboundRequest
    ) throws(AttemptFailure) -> HTTPHeaders {
        var headers = hop.headers
        do {
            if let signature = hop.signature {
                headers = try signature.sign(
                    hop.method, hop.url, headers: headers, payload: try hop.payload(),
                    at: clocks.now())
            }
        } catch {
            throw AttemptFailure(.contentFailed, wasSent: false)
        }
        if let trace = request.trace {
            headers.append(.traceparent, trace.traceparent(using: &random))
            if let state = trace.state { headers.append(.tracestate, state) }
        }
        return headers
    }

    // MARK: Turns

    private func waitForTurn(
        _ origin: String, _ deadline: Deadline
    ) async throws(AttemptFailure) {
        switch admission.ask(origin) {
        case .begin: break
        case .refuse: throw AttemptFailure(.overloaded, wasSent: false)
        case .wait(let id):
            let turn = Waiter<Void>()
            waiting[id] = turn
            metrics?.queued.set(admission.queued)
            defer {
                waiting[id] = nil
                metrics?.queued.set(admission.queued)
            }
            do {
                try await turn.wait(until: deadline)
            } catch {
                // Told to begin and gone in the same moment: the turn goes to the next.
                if !admission.leave(id) { endTurn(origin) }
                let isLate = error is DeadlineExceeded
                throw AttemptFailure(isLate ? .timeout(.queue) : .cancelled, wasSent: false)
            }
        }
        metrics?.inFlight.set(admission.active)
    }

    private func endTurn(_ origin: String) {
        // A waiter whose deadline passed in this moment has the turn all the same, until its task gives it back.
        if let id = admission.end(origin) { waiting[id]?.succeed(()) }
        metrics?.inFlight.set(admission.active)
    }

    // MARK: Breakers

    private func askBreaker(_ origin: String) throws(AttemptFailure) {
        guard var breaker = breakers.find(origin) else { return }
        let answer = breaker.ask(at: Loop.now)
        breakers.insert(breaker, for: origin)
        if case .refused(let wait) = answer {
            throw AttemptFailure(.circuitOpen(retryAfter: wait), wasSent: false)
        }
    }

    /// An origin is remembered from its first failure to its next success.
    private func tellBreaker(_ origin: String, _ error: HTTPClientError?) {
        guard let limits = configuration.breaker else { return }
        guard let error else {
            breakers.remove(origin)
            return
        }
        switch error {
        case .resolve, .connect, .tls, .disconnected, .malformed, .timeout(.resolving),
            .timeout(.connecting), .timeout(.answer), .timeout(.content):
            var breaker = breakers.peek(origin) ?? OriginBreaker(limits)
            breaker.failed(at: Loop.now, using: &random)
            breakers.insert(breaker, for: origin)
        case .tooLarge: breakers.remove(origin)
        case .timeout, .invalidURL, .invalidHeader, .refusedAddress, .cancelled, .overloaded,
            .circuitOpen, .redirect, .contentFailed:
            guard var breaker = breakers.peek(origin) else { return }
            breaker.abandoned(at: Loop.now)
            breakers.insert(breaker, for: origin)
        }
    }

    private func state(of target: OutboundTarget) -> TargetState {
        if let state = targets[target] { return state }
        let state = TargetState(
            budget: RetryBudget(
                percent: configuration.retryPercent, burst: configuration.retryBurst),
            metrics: metrics?.target(target))
        targets[target] = state
        return state
    }
}

/// Why an attempt gave no answer, and whether the server may know of it.
private struct AttemptFailure: Error {
    let error: HTTPClientError
    let wasSent: Bool

    init(_ error: HTTPClientError, wasSent: Bool) {
        self.error = error
        self.wasSent = wasSent
    }

    var outcome: RetryPolicy.Outcome {
        switch error {
        case .resolve, .connect, .tls: wasSent ? .broken : .notSent
        case .disconnected: .broken
        case .invalidURL, .invalidHeader, .refusedAddress, .timeout, .tooLarge, .cancelled,
            .malformed, .overloaded, .circuitOpen, .redirect, .contentFailed:
            .final
        }
    }
}

/// An answer, and the turn that it holds until it is ended.
@LoopActor
private final class OutboundExchange {
    let transfer: CurlTransfer
    let head: OutboundHead
    let content: [UInt8]
    let url: OutboundURL
    private var onEnd: (@LoopActor () -> Void)?

    init(
        _ transfer: CurlTransfer, _ head: OutboundHead, _ content: [UInt8], _ url: OutboundURL,
        _ onEnd: @escaping @LoopActor () -> Void
    ) {
        self.transfer = transfer
        self.head = head
        self.content = content
        self.url = url
        self.onEnd = onEnd
    }

    func end() {
        transfer.end(.cancelled)
        onEnd?()
        onEnd = nil
    }
}
