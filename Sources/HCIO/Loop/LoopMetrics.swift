package import HCCore

/// What the loop shows of itself. Ticks are observed as they end; the rest when `update()` is called, which
/// a program does before it takes a snapshot.
package final class LoopMetrics: Sendable {
    let tickLength: Histogram
    private let ticks: Counter
    private let jobs: Counter
    private let foreignJobs: Counter
    private let posts: Counter
    private let staleEvents: Counter
    private let busySeconds: Gauge
    private let registrations: Gauge
    private let timers: Gauge
    private let longestTick: Gauge
    private let timerLateness: Gauge

    package init(_ registry: MetricsRegistry) {
        tickLength = registry.histogram(
            "hc_loop_tick_seconds", "Time in one tick, while everything else waited")
        ticks = registry.counter("hc_loop_ticks_total", "Ticks of the event loop")
        jobs = registry.counter("hc_loop_jobs_total", "Jobs of tasks that ran on the loop")
        foreignJobs = registry.counter(
            "hc_loop_foreign_jobs_total", "Jobs that came from another thread; 0 in a sound worker")
        posts = registry.counter(
            "hc_loop_posts_total", "Results that came from the blocking pool")
        staleEvents = registry.counter(
            "hc_loop_stale_events_total", "Events dropped because their descriptor was another's")
        busySeconds = registry.gauge("hc_loop_busy_seconds", "Time spent in ticks since the start")
        registrations = registry.gauge("hc_loop_registrations", "Descriptors being watched")
        timers = registry.gauge("hc_loop_timers", "Timers to run")
        longestTick = registry.gauge(
            "hc_loop_longest_tick_seconds", "Longest tick since the last update")
        timerLateness = registry.gauge(
            "hc_loop_timer_lateness_seconds", "Greatest lateness of a timer since the last update")
    }

    /// Shows the loop's counts.
    ///
    /// - Parameter lag: what `Loop.takeLag()` gave to the heartbeat: a period has one taker.
    @LoopActor package func update(lag: (longestTick: Duration, timerLateness: Duration)) {
        let now = Loop.shared.statistics
        LoopMetrics.raise(ticks, to: now.ticks)
        LoopMetrics.raise(jobs, to: now.jobs)
        LoopMetrics.raise(foreignJobs, to: now.foreignJobs)
        LoopMetrics.raise(posts, to: now.posts)
        LoopMetrics.raise(staleEvents, to: now.staleEvents)
        busySeconds.set(now.busy.inSeconds)
        registrations.set(now.registrations)
        timers.set(now.timers)
        longestTick.set(lag.longestTick.inSeconds)
        timerLateness.set(lag.timerLateness.inSeconds)
    }

    private static func raise(_ counter: Counter, to total: Int) {
        counter.increment(by: max(0, total - Int(counter.value)))
    }
}
