package import HCCore

/// What TLS counts. Labels come from our own enums, never from a client.
package final class TLSMetrics: Sendable {
    private let handshakes: [Counter]
    private let failures: [TLSFailure.Reason: Counter]
    private let breaks: [TLSFailure.Reason: Counter]
    package let inProgress: Gauge
    package let duration: Histogram
    /// Connections that ended without close_notify.
    package let truncations: Counter
    package let reloads: Counter
    package let refusedReloads: Counter
    /// Seconds until the first certificate expires.
    package let expiry: Gauge

    /// - Parameter listener: whose door it is.
    package init(_ registry: MetricsRegistry, listener: StaticString = "clients") {
        let listener: [(StaticString, String)] = [("listener", "\(listener)")]
        var counters: [Counter] = []
        for version in TLSVersion.allCases {
            for isResumed in [false, true] {
                counters.append(
                    registry.counter(
                        "hc_tls_handshakes_total", "TLS handshakes that were completed.",
                        labels: listener + [
                            ("version", version.rawValue), ("resumed", "\(isResumed)"),
                        ]))
            }
        }
        handshakes = counters
        failures = Dictionary(
            uniqueKeysWithValues: TLSFailure.Reason.allCases.map { reason in
                let counter = registry.counter(
                    "hc_tls_handshake_failures_total", "TLS handshakes that failed.",
                    labels: listener + [("reason", reason.rawValue)])
                return (reason, counter)
            })
        breaks = Dictionary(
            uniqueKeysWithValues: TLSFailure.Reason.allCases.map { reason in
                let counter = registry.counter(
                    "hc_tls_connection_failures_total",
                    "TLS connections that broke after their handshake.",
                    labels: listener + [("reason", reason.rawValue)])
                return (reason, counter)
            })
        inProgress = registry.gauge(
            "hc_tls_handshakes_in_progress", "TLS handshakes under way now.", labels: listener)
        duration = registry.histogram(
            "hc_tls_handshake_seconds", "From the accepted connection to the end of its handshake.",
            labels: listener)
        truncations = registry.counter(
            "hc_tls_truncations_total", "TLS connections that ended without close_notify.",
            labels: listener)
        reloads = registry.counter(
            "hc_tls_certificate_reloads_total", "Certificate files that were taken into use.",
            labels: listener)
        refusedReloads = registry.counter(
            "hc_tls_certificate_reload_refusals_total",
            "Certificate files that were refused; the ones before stay in use.", labels: listener)
        expiry = registry.gauge(
            "hc_tls_certificate_expiry_seconds", "Until the first certificate in use expires.",
            labels: listener)
    }

    func completed(_ version: TLSVersion, isResumed: Bool) {
        let index = TLSVersion.allCases.firstIndex(of: version) ?? 0
        handshakes[index * 2 + (isResumed ? 1 : 0)].increment()
    }

    package func failed(_ reason: TLSFailure.Reason) { failures[reason]?.increment() }
    func broke(_ reason: TLSFailure.Reason) { breaks[reason]?.increment() }

    package func handshakes(_ version: TLSVersion, isResumed: Bool) -> UInt64 {
        let index = TLSVersion.allCases.firstIndex(of: version) ?? 0
        return handshakes[index * 2 + (isResumed ? 1 : 0)].value
    }

    package func failures(_ reason: TLSFailure.Reason) -> UInt64 { failures[reason]?.value ?? 0 }
    package func breaks(_ reason: TLSFailure.Reason) -> UInt64 { breaks[reason]?.value ?? 0 }
}

package enum TLSVersion: String, CaseIterable, Sendable {
    case tls12 = "1.2"
    case tls13 = "1.3"
}
