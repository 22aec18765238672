import HCCore

/// What servers have answered since they began, by their own metrics: `hc_http_responses_total` and
/// `hc_http_request_seconds`.
package struct ServerHealth: Sendable, Equatable {
    package private(set) var responses: UInt64 = 0
    /// Of them, with a status of 500 and above.
    package private(set) var failures: UInt64 = 0
    /// How many took no longer than a bound, in seconds, by the bound.
    private var within: [Double: UInt64] = [:]

    package init() {}

    /// - Parameter text: Prometheus text exposition format 0.0.4.
    /// - Returns: nil if there is nothing of a server in it.
    package init?(metrics text: String) {
        var isServer = false
        for line in text.split(separator: "\n") where line.hasPrefix("hc_http_re") {
            guard let blank = line.lastIndex(of: " "),
                let value = Double(line[line.index(after: blank)...]), value >= 0
            else { continue }
            let count = UInt64(value)
            if line.hasPrefix("hc_http_responses_total{") {
                isServer = true
                responses += count
                if ServerHealth.label("status", of: line)?.first == "5" { failures += count }
            } else if line.hasPrefix("hc_http_request_seconds_bucket{"),
                let bound = ServerHealth.label("le", of: line).flatMap({
                    $0 == "+Inf" ? .infinity : Double($0)
                })
            {
                within[bound, default: 0] += count
            }
        }
        guard isServer else { return nil }
    }

    private static func label(_ name: String, of line: Substring) -> Substring? {
        guard let start = line.firstRange(of: "\(name)=\"") else { return nil }
        let rest = line[start.upperBound...]
        return rest.firstIndex(of: "\"").map { rest[..<$0] }
    }

    /// Several servers as one.
    package static func + (left: ServerHealth, right: ServerHealth) -> ServerHealth {
        var sum = left
        sum.responses += right.responses
        sum.failures += right.failures
        for (bound, count) in right.within { sum.within[bound, default: 0] += count }
        return sum
    }

    /// What came between. A server that was started anew counts from 0: then it is what it has counted since.
    package func since(_ before: ServerHealth) -> ServerHealth {
        guard responses >= before.responses, failures >= before.failures else { return self }
        var between = ServerHealth()
        between.responses = responses - before.responses
        between.failures = failures - before.failures
        for (bound, count) in within {
            let earlier = before.within[bound, default: 0]
            between.within[bound] = count >= earlier ? count - earlier : count
        }
        return between
    }

    /// The time that 95 of 100 requests did not exceed, as near as the buckets tell, an hour for what is above the last of
    /// them; nil: there was no request.
    package var p95: Duration? {
        let total = within[.infinity, default: 0]
        guard total > 0 else { return nil }
        let bound = within.keys.sorted().first { Double(within[$0] ?? 0) >= Double(total) * 0.95 }
        guard let bound else { return nil }
        return bound.isFinite ? .milliseconds(Int64(bound * 1000)) : .seconds(3600)
    }
}

/// What a run of migrations demands of the servers between two waves.
package struct HealthBounds: Sendable {
    /// Of a hundred answers, so many may have a status of 500 and above.
    package var failurePercentMax = 1
    package var p95Max = Duration.milliseconds(500)
    /// For how long the servers are watched after a wave.
    package var watch = Duration.seconds(5)
    /// With fewer answers nothing can be told of a percentage.
    package var responsesMin: UInt64 = 20

    package init() {}

    /// - Parameter health: of the time from the beginning of a wave on.
    /// - Returns: what is wrong, for people; nil if nothing is.
    package func problem(of health: ServerHealth) -> String? {
        guard health.responses >= responsesMin else { return nil }
        if health.failures * 100 > health.responses * UInt64(failurePercentMax) {
            return
                "\(health.failures) of \(health.responses) answers failed (status 5xx), more than"
                + " \(failurePercentMax) %"
        }
        if let p95 = health.p95, p95 > p95Max {
            return "95 of 100 requests took up to \(p95.inMilliseconds) ms, and not"
                + " \(p95Max.inMilliseconds) ms"
        }
        return nil
    }
}
