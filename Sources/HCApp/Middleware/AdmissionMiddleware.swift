import HCCore
import HCHTTP
import HCIO

/// Refuses before any work is done what the worker could not answer in time: 503, with a time to come again that
/// differs from client to client. `AdmissionControl` decides.
@LoopActor
final class AdmissionMiddleware: Middleware {
    /// How long a request may have waited before it was looked at.
    typealias DelayOf = @LoopActor (HTTPRequest) -> Duration

    private var control: AdmissionControl
    private var random: any RandomNumberGenerator & Sendable
    private let delayOf: DelayOf
    private let clock: @LoopActor () -> MonotonicTime
    private var shownInterval = 0
    private let refused: [[Counter]]
    private let inFlight: [Gauge]
    private let limit: Gauge
    private let queueing: Gauge

    init(
        limits: AdmissionControl.Limits, registry: MetricsRegistry, now: MonotonicTime,
        random: any RandomNumberGenerator & Sendable = SystemRandomNumberGenerator(),
        delayOf: @escaping DelayOf = AdmissionMiddleware.loopDelay,
        clock: @escaping @LoopActor () -> MonotonicTime = { Loop.now }
    ) {
        control = AdmissionControl(limits: limits, now: now)
        self.random = random
        self.delayOf = delayOf
        self.clock = clock
        refused = RequestLane.allCases.map { lane in
            AdmissionControl.Refusal.allCases.map { reason in
                registry.counter(
                    "hc_http_requests_shed_total",
                    "Requests refused with 503 before any work was done for them.",
                    labels: [("lane", lane.rawValue), ("reason", reason.rawValue)])
            }
        }
        inFlight = RequestLane.allCases.map { lane in
            registry.gauge(
                "hc_http_requests_in_flight", "Requests that are being answered.",
                labels: [("lane", lane.rawValue)])
        }
        limit = registry.gauge(
            "hc_http_requests_limit", "Requests that are let in at once, as queueing allows.")
        queueing = registry.gauge(
            "hc_http_queueing_seconds",
            "Least time for which requests of the last interval stood in a queue.")
        limit.set(control.limit)
    }

    /// The time that the loop was busy with the tick before, and with others in this one.
    static func loopDelay(_ request: HTTPRequest) -> Duration {
        Loop.eventDelay + max(.zero, request.receivedAt - Loop.now)
    }

    func enter(_ request: HTTPRequest, _ context: RequestContext) throws -> StageEntry {
        // What is no route costs less than its refusal.
        guard let lane = context.match.route?.lane else { return .next }
        let decision = control.admit(
            lane, of: request.host, delay: delayOf(request), now: request.receivedAt, using: &random
        )
        if control.intervalCount != shownInterval { show() }
        if case .refused(let reason, let retryAfter) = decision {
            refused[lane.index][reason == .full ? 0 : 1].increment()
            throw ErrorResponses.unavailable("overloaded", retryAfter: retryAfter)
        }
        if case .admitted(let place) = decision { context.admission = place }
        inFlight[lane.index].add(1)
        return .next
    }

    func leave(
        _ request: HTTPRequest, _ context: RequestContext, _ response: inout HTTPResponse
    ) -> StageExit {
        guard let place = context.admission, let lane = context.match.route?.lane,
            let route = context.match.place
        else { return .done }
        // A refusal is quick however long others wait.
        if response.status.code < 400 {
            control.answered(route, receivedAt: request.receivedAt, now: clock())
        }
        // Content that is made while it is sent is work until its end.
        guard case .stream(let content) = response.body else {
            finish(place, lane)
            return .done
        }
        let slot = AdmissionSlot { self.finish(place, lane) }
        response.body = .stream(
            ResponseStream(count: content.count, trailers: content.trailers) { writer in
                let trailers = try await content.write(writer)
                slot.end()
                return trailers
            })
        return .done
    }

    /// What changes with the intervals only.
    private func show() {
        shownInterval = control.intervalCount
        limit.set(control.limit)
        queueing.set(control.queueing.inSeconds)
    }

    private func finish(_ place: AdmissionControl.Place, _ lane: RequestLane) {
        control.finish(place)
        inFlight[lane.index].add(-1)
    }
}

/// The place of a request whose answer is a stream: given back at its end, or when the stream is dropped, for that of a
/// client that went away may never be begun.
@LoopActor
private final class AdmissionSlot {
    private var onEnd: (@LoopActor () -> Void)?

    init(_ onEnd: @escaping @LoopActor () -> Void) {
        self.onEnd = onEnd
    }

    isolated deinit { end() }

    func end() {
        let action = onEnd
        onEnd = nil
        action?()
    }
}
