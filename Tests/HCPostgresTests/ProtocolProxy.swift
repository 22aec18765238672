import CLinux
import Glibc
import HCTesting
import Synchronization

/// Stands between libpq and a server, sees whole protocol messages, and loses what a test wants lost.
///
/// Two blocking threads per connection; libpq reaches it by `host=<directory> port=5432`.
final class ProtocolProxy: Sendable {
    enum Verdict {
        case pass
        /// Swallow this message and all that follow, then hang up on both sides.
        case hangUp
        /// Swallow this message and say nothing more, but stay connected.
        case goSilent
    }

    /// Called with each message of the server after the start-up, on the proxy's thread.
    typealias Filter = @Sendable (_ type: UInt8, _ body: [UInt8]) -> Verdict

    let directory: String
    private let listener: Int32
    private let server: String
    private let filter: Mutex<Filter?>
    private let holdsRequests = Atomic<Bool>(false)

    init(to conninfo: Conninfo) throws {
        var template = Array("/tmp/hc-proxy-XXXXXX".utf8CString)
        guard mkdtemp(&template) != nil else { throw FixtureError("mkdtemp failed") }
        directory = String(
            decoding: template.dropLast().map { UInt8(bitPattern: $0) }, as: UTF8.self)
        guard let host = conninfo["host"], host.hasPrefix("/") else {
            throw FixtureError("the proxy needs a server on a unix socket")
        }
        server = "\(host)/.s.PGSQL.\(conninfo["port"] ?? "5432")"
        filter = Mutex(nil)
        let socket = socket(AF_UNIX, Int32(SOCK_STREAM.rawValue), 0)
        listener = socket
        guard Self.withAddress(of: directory + "/.s.PGSQL.5432", { bind(socket, $0, $1) }) == 0,
            listen(socket, 8) == 0
        else { throw FixtureError("the proxy cannot listen") }
        startThread { [weak self] in
            while true {
                let client = accept(socket, nil, nil)
                guard client >= 0 else { return }
                self?.serve(client)
            }
        }
    }

    deinit {
        shutdown(listener, Int32(SHUT_RDWR))
        close(listener)
        unlink(directory + "/.s.PGSQL.5432")
        rmdir(directory)
    }

    func conninfo(like other: Conninfo) -> Conninfo {
        var conninfo = other
        conninfo["host"] = directory
        conninfo["port"] = "5432"
        return conninfo
    }

    /// From now on, for the connections that are there and those that come.
    func setFilter(_ filter: @escaping Filter) { self.filter.withLock { $0 = filter } }

    /// Stops reading what the client sends, so that its socket fills up.
    func holdRequests() { holdsRequests.store(true, ordering: .sequentiallyConsistent) }

    private func serve(_ client: Int32) {
        let upstream = socket(AF_UNIX, Int32(SOCK_STREAM.rawValue), 0)
        guard Self.withAddress(of: server, { connect(upstream, $0, $1) }) == 0 else {
            close(client)
            close(upstream)
            return
        }
        let pair = Pair(client: client, upstream: upstream)
        startThread { [self] in pumpRequests(pair) }
        startThread { [self] in pumpAnswers(pair) }
    }

    /// Both descriptors, closed with the last thread that uses them.
    private final class Pair: Sendable {
        let client: Int32
        let upstream: Int32
        init(client: Int32, upstream: Int32) {
            self.client = client
            self.upstream = upstream
        }
        func hangUp() {
            shutdown(client, Int32(SHUT_RDWR))
            shutdown(upstream, Int32(SHUT_RDWR))
        }
        deinit {
            close(client)
            close(upstream)
        }
    }

    private func pumpRequests(_ pair: Pair) {
        var buffer = [UInt8](repeating: 0, count: 65536)
        while true {
            var event = pollfd(fd: pair.client, events: Int16(POLLIN), revents: 0)
            guard poll(&event, 1, 20) >= 0 else { return pair.hangUp() }
            if holdsRequests.load(ordering: .sequentiallyConsistent) {
                // Full by now is full for good: what libpq still holds will never be read.
                startHoldTimeout(pair)
                return
            }
            guard event.revents != 0 else { continue }
            let count = recv(pair.client, &buffer, buffer.count, 0)
            guard count > 0, Self.sendAll(pair.upstream, buffer[..<count]) else {
                return pair.hangUp()
            }
        }
    }

    /// Waits until the client's side no longer grows, then hangs up.
    private func startHoldTimeout(_ pair: Pair) {
        var last: Int32 = -1
        while true {
            var waiting: Int32 = 0
            guard ioctl(pair.client, UInt(FIONREAD), &waiting) == 0 else { break }
            if waiting == last, waiting > 0 { break }
            last = waiting
            poll(nil, 0, 50)
        }
        pair.hangUp()
    }

    private func pumpAnswers(_ pair: Pair) {
        var pending: [UInt8] = []
        var buffer = [UInt8](repeating: 0, count: 65536)
        while true {
            let count = recv(pair.upstream, &buffer, buffer.count, 0)
            guard count > 0 else { return pair.hangUp() }
            pending.append(contentsOf: buffer[..<count])
            var passed = 0
            while pending.count - passed >= 5 {
                let length = pending[(passed + 1)..<(passed + 5)].reduce(0) { $0 << 8 | Int($1) }
                guard pending.count - passed >= length + 1 else { break }
                let body = Array(pending[(passed + 5)..<(passed + 1 + length)])
                let verdict = filter.withLock { $0?(pending[passed], body) } ?? .pass
                switch verdict {
                case .pass: break
                case .hangUp, .goSilent:
                    _ = Self.sendAll(pair.client, pending[..<passed])
                    if case .hangUp = verdict { return pair.hangUp() }
                    while recv(pair.upstream, &buffer, buffer.count, 0) > 0 {}
                    return
                }
                passed += length + 1
            }
            guard Self.sendAll(pair.client, pending[..<passed]) else { return pair.hangUp() }
            pending.removeFirst(passed)
        }
    }

    private static func sendAll(_ fd: Int32, _ bytes: ArraySlice<UInt8>) -> Bool {
        bytes.withUnsafeBytes { raw in
            var sent = 0
            while sent < raw.count {
                let count = send(
                    fd, raw.baseAddress?.advanced(by: sent), raw.count - sent, Int32(MSG_NOSIGNAL))
                guard count > 0 else { return false }
                sent += count
            }
            return true
        }
    }

    private static func withAddress(
        of path: String, _ body: (UnsafePointer<sockaddr>, socklen_t) -> Int32
    ) -> Int32 {
        var address = sockaddr_un()
        address.sun_family = sa_family_t(AF_UNIX)
        withUnsafeMutableBytes(of: &address.sun_path) { $0.copyBytes(from: path.utf8) }
        return withUnsafePointer(to: &address) {
            $0.withMemoryRebound(to: sockaddr.self, capacity: 1) {
                body($0, socklen_t(MemoryLayout<sockaddr_un>.size))
            }
        }
    }
}

/// A server that answers every connection attempt with one error.
final class RefusingServer: Sendable {
    let directory: String
    private let listener: Int32

    init(sqlstate: String) throws {
        var template = Array("/tmp/hc-proxy-XXXXXX".utf8CString)
        guard mkdtemp(&template) != nil else { throw FixtureError("mkdtemp failed") }
        directory = String(
            decoding: template.dropLast().map { UInt8(bitPattern: $0) }, as: UTF8.self)
        listener = socket(AF_UNIX, Int32(SOCK_STREAM.rawValue), 0)
        var address = sockaddr_un()
        address.sun_family = sa_family_t(AF_UNIX)
        let path = directory + "/.s.PGSQL.5432"
        withUnsafeMutableBytes(of: &address.sun_path) { $0.copyBytes(from: path.utf8) }
        let listener = listener
        let bound = withUnsafePointer(to: &address) {
            $0.withMemoryRebound(to: sockaddr.self, capacity: 1) {
                bind(listener, $0, socklen_t(MemoryLayout<sockaddr_un>.size))
            }
        }
        guard bound == 0, listen(listener, 8) == 0 else {
            throw FixtureError("the server cannot listen")
        }
        let fields = "SFATAL\0VFATAL\0C\(sqlstate)\0Mgo away\0\0"
        let length = UInt32(fields.utf8.count + 4)
        var message: [UInt8] = [UInt8(ascii: "E")]
        for shift in [24, 16, 8, 0] as [UInt32] {
            message.append(UInt8(truncatingIfNeeded: length >> shift))
        }
        message += fields.utf8
        let answer = message
        startThread {
            while true {
                let client = accept(listener, nil, nil)
                guard client >= 0 else { return }
                var buffer = [UInt8](repeating: 0, count: 4096)
                _ = recv(client, &buffer, buffer.count, 0)
                _ = answer.withUnsafeBytes {
                    send(client, $0.baseAddress, $0.count, Int32(MSG_NOSIGNAL))
                }
                close(client)
            }
        }
    }

    deinit {
        shutdown(listener, Int32(SHUT_RDWR))
        close(listener)
        unlink(directory + "/.s.PGSQL.5432")
        rmdir(directory)
    }
}

private final class ThreadBody {
    let run: @Sendable () -> Void
    init(_ run: @escaping @Sendable () -> Void) { self.run = run }
}

private func startThread(_ body: @escaping @Sendable () -> Void) {
    var thread = pthread_t()
    pthread_create(
        &thread, nil,
        { argument in
            guard let argument else { return nil }
            Unmanaged<ThreadBody>.fromOpaque(argument).takeRetainedValue().run()
            return nil
        }, Unmanaged.passRetained(ThreadBody(body)).toOpaque())
    pthread_detach(thread)
}
