package import HCCore

/// What the feed counts. No label names a clinic or a topic.
package final class EventMetrics: Sendable {
    let published: Counter
    let repeated: Counter
    let publishFailures: Counter
    let publishLag: Histogram
    let swept: Counter
    let backlog: Gauge
    let backlogAge: Gauge
    let delivered: Counter
    let resyncs: [Cause: Counter]
    let followed: Gauge
    let subscriptions: Gauge

    /// Why subscribers were told to read everything anew.
    package enum Cause: String, CaseIterable, Sendable {
        /// What they resume by is not in the window, or too far back in it.
        case window
        /// Redis lost entries, or may have.
        case gap
        /// The clinic went to another shard.
        case moved
        /// This process could not keep up.
        case overflow
    }

    package init(_ registry: MetricsRegistry) {
        published = registry.counter(
            "hc_events_published_total", "Events that were added to a clinic's stream.")
        repeated = registry.counter(
            "hc_events_repeated_total", "Events that were in their stream already.")
        publishFailures = registry.counter(
            "hc_events_left_to_sweeper_total",
            "Events that were not published by whoever committed them.")
        publishLag = registry.histogram(
            "hc_events_publish_lag_seconds", "Time from an event's transaction to its stream.")
        swept = registry.counter(
            "hc_events_swept_total", "Messages that the sweeper found left behind.")
        backlog = registry.gauge(
            "hc_events_backlog", "Late messages that the last sweep of this process found.")
        backlogAge = registry.gauge(
            "hc_events_backlog_age_seconds",
            "Age of the oldest message that the last sweep of this process found.")
        delivered = registry.counter(
            "hc_events_delivered_total", "Events given to a subscriber.")
        resyncs = Dictionary(
            uniqueKeysWithValues: Cause.allCases.map { cause in
                (
                    cause,
                    registry.counter(
                        "hc_events_resyncs_total",
                        "Subscriptions told to read everything anew, by cause.",
                        labels: [("cause", cause.rawValue)])
                )
            })
        followed = registry.gauge(
            "hc_events_streams_followed", "Clinics whose stream this process reads.")
        subscriptions = registry.gauge(
            "hc_events_subscriptions", "Topics that sockets of this process follow.")
    }

    func resync(_ cause: Cause, count: Int = 1) {
        resyncs[cause]?.increment(by: count)
    }
}
