import HCCore
import HCHTTP
import HCIO

/// Refuses before any work is done when the worker has too many requests at once: waiting longer would only
/// make all of them late.
@LoopActor
final class AdmissionMiddleware: Middleware {
    private let requestsMax: Int
    private var inFlight = 0
    private let refused: Counter
    private let gauge: Gauge

    init(requestsMax: Int, registry: MetricsRegistry) {
        self.requestsMax = requestsMax
        refused = registry.counter(
            "hc_http_requests_shed_total",
            "Requests refused because the worker had too many at once.")
        gauge = registry.gauge("hc_http_requests_in_flight", "Requests that are being answered.")
    }

    func handle(
        _ request: HTTPRequest, _ context: RequestContext, next: NextHandler<RequestContext>
    ) async throws -> HTTPResponse {
        guard inFlight < requestsMax else {
            refused.increment()
            throw ErrorResponses.unavailable("overloaded", retryAfter: .seconds(1))
        }
        inFlight += 1
        gauge.set(inFlight)
        defer {
            inFlight -= 1
            gauge.set(inFlight)
        }
        return await next(request, context)
    }
}
