import HCIO

/// libpq's socket on the loop. The descriptor is libpq's: it is never closed here.
@LoopActor
final class SocketWatch: EventSource {
    private var registration: Registration?
    private var events: IOEvents
    private let onReady: @LoopActor (IOEvents) -> Void

    init(
        _ socket: Int32, _ events: IOEvents, _ onReady: @escaping @LoopActor (IOEvents) -> Void
    ) throws(SystemError) {
        self.events = events
        self.onReady = onReady
        registration = try Loop.shared.register(socket, events: events, source: self)
    }

    func handle(_ events: IOEvents) { onReady(events) }

    func setWrites(_ wanted: Bool) { set(.writable, wanted) }
    func setReads(_ wanted: Bool) { set(.readable, wanted) }

    private func set(_ event: IOEvents, _ wanted: Bool) {
        var next = events
        if wanted { next.insert(event) } else { next.remove(event) }
        guard next != events else { return }
        events = next
        // Without any interest a hangup would be told again and again: it is read later, when somebody reads.
        if next.isEmpty { registration?.mute() } else { registration?.setEvents(next) }
    }

    /// To be called before libpq closes the socket, or as soon as it may have.
    func close() {
        registration?.deregisterForeign()
        registration = nil
    }
}
