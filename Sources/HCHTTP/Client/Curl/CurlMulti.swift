import CCurl
import CLinux
import HCCore
import HCIO
import Synchronization

/// libcurl's multi interface on our loop: curl says which sockets and which timeout it waits for, the loop waits,
/// and tells it (curl_multi_socket_action). No thread: names are resolved before curl hears of them.
///
/// Everything happens on the loop: curl calls back only from within calls that are made here.
@LoopActor
final class CurlMulti {
    private let handle: CurlMultiHandle
    let connections: CurlConnections
    private var sockets: [Int32: CurlSocket] = [:]
    private var transfers: [UnsafeMutableRawPointer: CurlTransfer] = [:]
    private var timer: Timer?

    /// - Parameter metrics: hear of connections.
    init(_ configuration: HTTPClientConfiguration, _ metrics: HTTPClientMetrics?) {
        connections = CurlConnections(metrics)
        handle = CurlMultiHandle(connections)
        let multi = handle.pointer
        // Never more connections than transfers may run, so that curl has no queue of its own.
        let limits = configuration.transfers
        hc_curl_multi_set_long(multi, CURLMOPT_MAX_TOTAL_CONNECTIONS, limits.transfersMax)
        hc_curl_multi_set_long(
            multi, CURLMOPT_MAX_HOST_CONNECTIONS, limits.transfersPerOriginMax)
        hc_curl_multi_set_long(multi, CURLMOPT_MAXCONNECTS, configuration.idleConnectionsMax)
        hc_curl_multi_set_long(multi, CURLMOPT_PIPELINING, Int(CURLPIPE_MULTIPLEX))
        listen()
    }

    /// The callbacks get `self` unretained: the handle is cleaned up with it, and calls back no more before that.
    private func listen() {
        let multi = handle.pointer
        let context = Unmanaged.passUnretained(self).toOpaque()
        hc_curl_multi_set_pointer(multi, CURLMOPT_SOCKETDATA, context)
        hc_curl_multi_set_pointer(multi, CURLMOPT_TIMERDATA, context)
        hc_curl_multi_set_socket(multi) { _, fd, what, context, _ in
            guard let context else { return 0 }
            let multi = Unmanaged<CurlMulti>.fromOpaque(context).takeUnretainedValue()
            LoopActor.assumeIsolated { multi.watch(fd, what) }
            return 0
        }
        hc_curl_multi_set_timer(multi) { _, milliseconds, context in
            guard let context else { return 0 }
            let multi = Unmanaged<CurlMulti>.fromOpaque(context).takeUnretainedValue()
            LoopActor.assumeIsolated { multi.wait(milliseconds) }
            return 0
        }
    }

    // MARK: Transfers

    /// The multi handle keeps the transfer until `remove`.
    func add(_ transfer: CurlTransfer, _ easy: UnsafeMutableRawPointer) {
        transfers[easy] = transfer
        let code = curl_multi_add_handle(handle.pointer, easy)
        precondition(code == CURLM_OK, "curl_multi_add_handle: \(code.rawValue)")
    }

    func remove(_ easy: UnsafeMutableRawPointer) {
        guard transfers.removeValue(forKey: easy) != nil else { return }
        let code = curl_multi_remove_handle(handle.pointer, easy)
        precondition(code == CURLM_OK, "curl_multi_remove_handle: \(code.rawValue)")
    }

    private func reportEnds() {
        var left: Int32 = 0
        while let message = curl_multi_info_read(handle.pointer, &left) {
            guard message.pointee.msg == CURLMSG_DONE, let easy = message.pointee.easy_handle
            else { continue }
            // The message is gone once its handle is removed.
            let result = hc_curl_message_result(message)
            transfers[easy]?.curlEnded(result)
        }
    }

    // MARK: Sockets and time

    fileprivate func act(_ fd: Int32, _ events: Int32) {
        var running: Int32 = 0
        let code = curl_multi_socket_action(handle.pointer, fd, events, &running)
        precondition(code == CURLM_OK, "curl_multi_socket_action: \(code.rawValue)")
        reportEnds()
    }

    private func watch(_ fd: Int32, _ what: Int32) {
        guard what != CURL_POLL_REMOVE else {
            sockets.removeValue(forKey: fd)?.end()
            return
        }
        if let socket = sockets[fd] {
            socket.watch(what)
            return
        }
        let socket = CurlSocket(fd, self)
        do {
            try socket.begin(what)
            sockets[fd] = socket
        } catch {
            // The kernel has no room to watch another descriptor: the transfer ends by its connect timeout or its
            // deadline, as it would if the network gave nothing.
            return
        }
    }

    private func wait(_ milliseconds: Int) {
        timer?.cancel()
        timer = nil
        guard milliseconds >= 0 else { return }
        timer = Loop.shared.schedule(after: .milliseconds(milliseconds)) { [weak self] in
            guard let self else { return }
            timer = nil
            act(-1, 0)
        }
    }
}

/// One socket of curl's that the loop watches. curl owns the descriptor.
@LoopActor
private final class CurlSocket: EventSource {
    private let fd: Int32
    private let multi: CurlMulti
    private var registration: Registration?

    init(_ fd: Int32, _ multi: CurlMulti) {
        self.fd = fd
        self.multi = multi
    }

    func begin(_ what: Int32) throws(SystemError) {
        registration = try Loop.shared.register(fd, events: CurlSocket.events(what), source: self)
        if what == CURL_POLL_NONE { registration?.mute() }
    }

    func watch(_ what: Int32) {
        if what == CURL_POLL_NONE {
            registration?.mute()
        } else {
            registration?.setEvents(CurlSocket.events(what))
        }
    }

    func end() {
        registration?.deregisterForeign()
        registration = nil
    }

    func handle(_ events: IOEvents) {
        var mask: Int32 = 0
        if !events.isDisjoint(with: [.readable, .hangup]) { mask |= CURL_CSELECT_IN }
        if events.contains(.writable) { mask |= CURL_CSELECT_OUT }
        if events.contains(.error) { mask |= CURL_CSELECT_ERR }
        multi.act(fd, mask)
    }

    private static func events(_ what: Int32) -> IOEvents {
        switch what {
        case CURL_POLL_IN: .readable
        case CURL_POLL_OUT: .writable
        case CURL_POLL_INOUT: [.readable, .writable]
        default: []
        }
    }
}

/// Owns a multi handle and the connections in its cache: curl_multi_init to curl_multi_cleanup.
private struct CurlMultiHandle: ~Copyable {
    let pointer: UnsafeMutableRawPointer
    /// Closing the last connections still counts them.
    private let connections: CurlConnections

    init(_ connections: CurlConnections) {
        guard CurlEasy.isReady, let pointer = curl_multi_init() else {
            preconditionFailure("libcurl cannot be initialised")
        }
        self.pointer = pointer
        self.connections = connections
    }

    /// No transfer is left: each of them holds the owner of this handle.
    deinit {
        hc_curl_multi_set_socket(pointer, nil)
        hc_curl_multi_set_timer(pointer, nil)
        curl_multi_cleanup(pointer)
    }
}

/// Opens and closes the sockets of a client, and knows which are open.
final class CurlConnections: Sendable {
    /// A number is used again by the next socket; a ticket is not.
    struct Opened: Sendable {
        let fd: Int32
        let ticket: Int
    }

    private let metrics: HTTPClientMetrics?
    private let openedCount = Atomic<Int>(0)
    /// Tickets by descriptor. Behind a lock because the last ones may be closed by whoever drops the client.
    private let sockets = Mutex<[Int32: Int]>([:])

    init(_ metrics: HTTPClientMetrics?) {
        self.metrics = metrics
    }

    var opened: Int { openedCount.load(ordering: .relaxed) }
    var open: Int { sockets.withLock(\.count) }

    /// A socket of our own making, close-on-exec from its first moment; nil on failure.
    func open(family: Int32, kind: Int32, wire: Int32) -> Opened? {
        let flags = Int32(SOCK_CLOEXEC.rawValue | SOCK_NONBLOCK.rawValue)
        let fd = socket(family, kind | flags, wire)
        guard fd >= 0 else { return nil }
        let ticket = openedCount.add(1, ordering: .relaxed).newValue
        metrics?.connectionsOpened.increment()
        if sockets.withLock({ $0.updateValue(ticket, forKey: fd) }) == nil {
            metrics?.openConnections.add(1)
        }
        return Opened(fd: fd, ticket: ticket)
    }

    func close(_ fd: Int32) -> Int32 {
        if sockets.withLock({ $0.removeValue(forKey: fd) }) != nil {
            metrics?.openConnections.add(-1)
        }
        return CLinux.close(fd)
    }

    /// curl closes a socket that was still connecting by itself.
    func forget(_ opened: Opened) {
        let isKnown = sockets.withLock { sockets in
            guard sockets[opened.fd] == opened.ticket else { return false }
            sockets[opened.fd] = nil
            return true
        }
        if isKnown { metrics?.openConnections.add(-1) }
    }
}
