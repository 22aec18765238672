import HCCore

/// What sockets and tickets count.
final class EventSocketMetrics: Sendable {
    let sockets: Gauge
    let ticketsIssued: Counter
    let ticketsRedeemed: Counter
    let ticketsRefused: Counter
    private let ends: [EventCloseReason: Counter]
    private let refusals: [EventRefusal.Code: Counter]

    init(_ registry: MetricsRegistry) {
        sockets = registry.gauge("hc_events_sockets", "Sockets that are open for events.")
        func tickets(_ outcome: String) -> Counter {
            registry.counter(
                "hc_events_tickets_total", "Tickets for sockets, by what became of them.",
                labels: [("outcome", outcome)])
        }
        ticketsIssued = tickets("issued")
        ticketsRedeemed = tickets("redeemed")
        ticketsRefused = tickets("refused")
        ends = Dictionary(
            uniqueKeysWithValues: EventCloseReason.allCases.map { reason in
                (
                    reason,
                    registry.counter(
                        "hc_events_sockets_ended_total", "Sockets ended by the feed, by reason.",
                        labels: [("reason", "\(reason.name)")])
                )
            })
        refusals = Dictionary(
            uniqueKeysWithValues: EventRefusal.Code.allCases.map { code in
                (
                    code,
                    registry.counter(
                        "hc_events_requests_refused_total",
                        "Requests over sockets that were refused, by code.",
                        labels: [("code", code.rawValue)])
                )
            })
    }

    func ended(_ reason: EventCloseReason) { ends[reason]?.increment() }
    func refused(_ code: EventRefusal.Code) { refusals[code]?.increment() }
}
