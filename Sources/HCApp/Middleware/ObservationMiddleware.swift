import HCCore
import HCHTTP
import HCIO
import HCTenancy

/// The outermost stage: the limit's headers, one access log line and the metrics of a request.
///
/// The line names the route, never the path or the query: those hold names and ids.
@LoopActor
final class ObservationMiddleware: Middleware {
    private let logger: Logger
    private let clocks: Clocks
    private let registry: MetricsRegistry
    /// By the places of the routes, as far as they have been asked for.
    private var latencies: [Histogram?] = []
    private let unrouted: Histogram

    init(logger: Logger, clocks: Clocks, registry: MetricsRegistry) {
        self.logger = logger
        self.clocks = clocks
        self.registry = registry
        unrouted = ObservationMiddleware.histogram("none", lane: "none", registry)
    }

    func leave(
        _ request: HTTPRequest, _ context: RequestContext, _ response: inout HTTPResponse
    ) -> StageExit {
        if let limit = context.limit.take() { tell(limit, in: &response.headers) }
        let elapsed = clocks.monotonic() - request.receivedAt
        latency(of: context.match).observe(elapsed)
        log(request, context, response, elapsed)
        return .done
    }

    private func tell(_ limit: RateDecision, in headers: inout HTTPHeaders) {
        limit.withPolicyField { headers.append(.rateLimitPolicy, $0) }
        limit.withLimitField { headers.append(.rateLimit, $0) }
    }

    private func log(
        _ request: HTTPRequest, _ context: RequestContext, _ response: HTTPResponse,
        _ elapsed: Duration
    ) {
        logger.log(.info, "request") { line in
            line.add("requestId", request.id)
            line.add("client", hostOf: request.remoteAddress)
            line.add("method", request.method.name)
            line.add("route", context.match.route?.name ?? "none")
            line.add("status", response.status.code)
            line.add("microseconds", Int(elapsed.inMicroseconds))
            if let tenant = context.withTenant({ $0.tenant.id }) { line.add("tenant", tenant) }
            if let code = response.problemCode { line.add("code", code) }
        }
    }

    private func latency(of match: RouteMatch) -> Histogram {
        guard let place = match.place, let route = match.route else { return unrouted }
        if place < latencies.count, let known = latencies[place] { return known }
        let made = ObservationMiddleware.histogram(
            route.name, lane: route.lane.rawValue, registry)
        while latencies.count <= place { latencies.append(nil) }
        latencies[place] = made
        return made
    }

    private static func histogram(
        _ route: String, lane: String, _ registry: MetricsRegistry
    ) -> Histogram {
        registry.histogram(
            "hc_http_request_seconds", "Time from the end of a request's head to its answer.",
            layout: .latency, labels: [("lane", lane), ("route", route)])
    }
}
