import HCCore
import HCIO
import HCTesting
import Testing

@testable import HCApp
@testable import HCHTTP

@Suite("admission of requests", .onLoop)
@LoopActor
struct AdmissionMiddlewareTests {
    /// An application with one route of each lane, behind admission; `hold` keeps requests in it.
    @LoopActor
    private final class Ground {
        let registry = MetricsRegistry()
        let application: Application<RequestContext>
        let holder = Holder()
        let box = DelayBox()

        init(requestsMax: Int) {
            var limits = AdmissionControl.Limits()
            limits.inFlightMax = requestsMax
            limits.inFlightMin = min(limits.inFlightMin, requestsMax)
            var router = Router<RequestContext>()
            for lane in RequestLane.allCases {
                router.add(
                    RouteDescription(
                        .get, "/\(lane.rawValue)", name: lane.rawValue, access: .open, lane: lane)
                ) { [holder] _, _ in
                    try await holder.hold()
                    return HTTPResponse(.ok)
                }
            }
            router.add(
                RouteDescription(.get, "/export", name: "export", access: .open, lane: .bulk)
            ) { _, _ in
                HTTPResponse(.ok, body: .stream(ResponseStream { try await $0.write([1]) }))
            }
            application = Application(
                router,
                middleware: [
                    AdmissionMiddleware(
                        limits: limits, registry: registry, now: .zero,
                        random: SeededRandom(seed: 1), delayOf: { [box] _ in box.delay },
                        clock: { [box] in box.now })
                ],
                makeContext: { _, match in RequestContext(match: match) },
                problem: { error, _, _ in ErrorResponses.problem(for: error) ?? .internalError })
        }

        func get(_ path: String, at now: MonotonicTime = .zero) async throws -> HTTPResponse {
            if now > box.now { box.now = now }
            return await application.respond(to: try request(path, at: now))
        }

        private func request(_ path: String, at now: MonotonicTime) throws -> HTTPRequest {
            var parser = HTTP1Parser(limits: HTTP1Limits())
            var consumed = 0
            let bytes = Array("GET \(path) HTTP/1.1\r\nHost: a\r\n\r\n".utf8)
            let event = try bytes.withUnsafeBytes { try parser.next($0, consumed: &consumed) }
            guard case .head(let head) = event else { throw FixtureError("no head") }
            return HTTPRequest(
                method: head.method, version: head.version, target: head.target,
                headers: head.headers, host: head.host, id: RequestID(.zero),
                remoteAddress: .loopback(port: 1), isSecure: false, receivedAt: now,
                deadline: .never, body: .empty)
        }

        func shed(_ lane: String, _ reason: String) -> UInt64 {
            guard
                case .counter(let count) = registry.snapshot().value(
                    "hc_http_requests_shed_total", labels: [("lane", lane), ("reason", reason)])
            else { return 0 }
            return count
        }

        func inFlight(_ lane: String) -> Double {
            guard
                case .gauge(let count) = registry.snapshot().value(
                    "hc_http_requests_in_flight", labels: [("lane", lane)])
            else { return -1 }
            return count
        }
    }

    @LoopActor
    private final class DelayBox {
        var delay: Duration = .zero
        var now = MonotonicTime.zero
    }

    @LoopActor
    private final class Holder {
        var isHolding = false
        private(set) var waiters: [Waiter<Void>] = []

        func hold() async throws {
            guard isHolding else { return }
            let waiter = Waiter<Void>()
            waiters.append(waiter)
            try await waiter.wait(until: .after(.seconds(20), from: Loop.now))
        }

        func release() {
            isHolding = false
            for waiter in waiters { waiter.succeed(()) }
        }
    }

    @Test("a full worker refuses what can wait with 503 and a time, serves care, and recovers")
    func lanes() async throws {
        let ground = Ground(requestsMax: 10)
        ground.holder.isHolding = true
        let ended = Waiter<Void>()
        var endedCount = 0
        for _ in 0..<8 {
            Loop.shared.spawn {
                do { _ = try await ground.get("/interactive") } catch { Issue.record(error) }
                endedCount += 1
                if endedCount == 8 { ended.succeed(()) }
            }
        }
        #expect(ground.inFlight("interactive") == 8)
        ground.holder.isHolding = false
        for lane in ["bulk", "entry", "interactive"] {
            let refusal = try await ground.get("/\(lane)")
            #expect(refusal.status == .serviceUnavailable)
            #expect(refusal.problemCode == "overloaded")
            let retryAfter = try #require(refusal.headers[.retryAfter].flatMap { Int($0) })
            #expect((1...10).contains(retryAfter))
            #expect(ground.shed(lane, "full") == 1)
        }
        #expect(try await ground.get("/safety").status == .ok)
        #expect(try await ground.get("/nothing").status == .notFound)
        ground.holder.release()
        try await ended.wait(until: .after(.seconds(20), from: Loop.now))
        #expect(ground.inFlight("interactive") == 0)
        #expect(try await ground.get("/bulk").status == .ok)
    }

    @Test("requests that waited for the loop lower the limit; the reason is told apart")
    func queueing() async throws {
        let ground = Ground(requestsMax: 200)
        ground.box.delay = .milliseconds(500)
        for step in 0..<40 {
            _ = try await ground.get("/safety", at: .zero + .milliseconds(Int64(step) * 100))
        }
        #expect(
            ground.registry.snapshot().value("hc_http_requests_limit") == .gauge(64))
        ground.holder.isHolding = true
        let now = MonotonicTime.zero + .seconds(4)
        for _ in 0..<32 {
            Loop.shared.spawn {
                do { _ = try await ground.get("/bulk", at: now) } catch { Issue.record(error) }
            }
        }
        #expect(try await ground.get("/bulk", at: now).status == .serviceUnavailable)
        #expect(ground.shed("bulk", "queueing") == 1)
        #expect(ground.shed("bulk", "full") == 0)
        ground.holder.release()
    }

    @Test("answers that took long lower the limit, and refusals do not raise it again")
    func slowAnswers() async throws {
        let ground = Ground(requestsMax: 200)
        // Each answer takes 290 ms, and nobody waits for the loop.
        for step in 1...20 {
            let now = MonotonicTime.zero + .milliseconds(301 * step)
            ground.holder.isHolding = true
            let ended = Waiter<Void>()
            var endedCount = 0
            for _ in 0..<100 {
                Loop.shared.spawn {
                    do { _ = try await ground.get("/interactive", at: now) } catch {
                        Issue.record(error)
                    }
                    endedCount += 1
                    if endedCount == 100 { ended.succeed(()) }
                }
            }
            ground.box.now = now + .milliseconds(290)
            ground.holder.release()
            try await ended.wait(until: .after(.seconds(20), from: Loop.now))
        }
        #expect(ground.registry.snapshot().value("hc_http_requests_limit") == .gauge(64))
        #expect(ground.shed("interactive", "queueing") > 0)
    }

    @Test("an answer that is streamed counts until its end, and not for ever if it is never begun")
    func streams() async throws {
        let ground = Ground(requestsMax: 10)
        let response = try await ground.get("/export")
        #expect(ground.inFlight("bulk") == 1)
        guard case .stream(let content) = response.body else {
            Issue.record("no stream")
            return
        }
        #expect(try await content.write(NullWriter()).isEmpty)
        #expect(ground.inFlight("bulk") == 0)

        var dropped: HTTPResponse? = try await ground.get("/export")
        #expect(ground.inFlight("bulk") == 1)
        #expect(dropped != nil)
        dropped = nil
        #expect(ground.inFlight("bulk") == 0)
    }

    private final class NullWriter: ResponseWriter {
        func write(_ bytes: [UInt8]) async throws {}
    }
}
