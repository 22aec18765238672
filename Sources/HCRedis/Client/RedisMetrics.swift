package import HCCore

/// What a client counts.
package struct RedisMetrics: Sendable {
    package let commands: Counter
    package let unavailable: Counter
    package let overloaded: Counter
    package let timeouts: Counter
    package let lost: Counter
    package let connects: Counter
    package let connectFailures: Counter
    package let scriptLoads: Counter
    package let inFlight: Gauge
    package let connected: Gauge
    /// Of one wait: from the call to its last reply.
    package let latency: Histogram

    package init(registry: MetricsRegistry) {
        func failure(_ reason: String) -> Counter {
            registry.counter(
                "hc_redis_failures_total", "Redis commands without a reply, by reason.",
                labels: [("reason", reason)])
        }
        commands = registry.counter("hc_redis_commands_total", "Commands sent to Redis.")
        unavailable = failure("unavailable")
        overloaded = failure("overloaded")
        timeouts = failure("deadline")
        lost = failure("connection-lost")
        connects = registry.counter("hc_redis_connects_total", "Connections made to Redis.")
        connectFailures = registry.counter(
            "hc_redis_connect_failures_total", "Attempts to connect to Redis that failed.")
        scriptLoads = registry.counter(
            "hc_redis_script_loads_total", "Scripts sent again because Redis did not have them.")
        inFlight = registry.gauge("hc_redis_in_flight", "Commands without a reply yet.")
        connected = registry.gauge("hc_redis_connected", "1 while Redis is connected.")
        latency = registry.histogram(
            "hc_redis_latency_seconds", "Time from a command to its reply.")
    }
}
