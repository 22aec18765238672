import CCurl
package import HCCore
package import HCIO
import Synchronization

/// A small outbound client on libcurl: for smoke requests and tests, not for hot paths. Each request is one easy
/// handle in the blocking pool, with a connection of its own.
///
/// Only http and https; redirects are answers like any other; no proxy from the environment.
package struct HTTPClient: Sendable {
    package struct Request: Sendable {
        package var method: HTTPMethod
        package var url: String
        package var headers: HTTPHeaders
        package var body: [UInt8]?
        /// Content above it fails the request.
        package var responseBytesMax: Int

        package init(
            _ method: HTTPMethod = .get, _ url: String, headers: HTTPHeaders = HTTPHeaders(),
            body: [UInt8]? = nil, responseBytesMax: Int = 8 << 20
        ) {
            self.method = method
            self.url = url
            self.headers = headers
            self.body = body
            self.responseBytesMax = responseBytesMax
        }
    }

    package struct Response: Sendable {
        package let status: HTTPStatus
        package let headers: HTTPHeaders
        package let body: [UInt8]

        package var text: String { String(decoding: body, as: UTF8.self) }
    }

    /// All header lines of an answer; above it the request fails.
    static let headerBytesMax = 64 << 10

    private let pool: BlockingPool
    private let connectTo: String?
    private let clocks: Clocks

    /// - Parameter connectTo: "host:port" to connect to whatever host a URL names (CURLOPT_CONNECT_TO): so that
    ///   `http://sunrise.localhost:8080` reaches 127.0.0.1 without a resolver's help.
    package init(pool: BlockingPool, connectTo: String? = nil, clocks: Clocks = .system) {
        self.pool = pool
        self.connectTo = connectTo
        self.clocks = clocks
    }

    /// - Throws: `HTTPClientError`; `BlockingPoolError` and `DeadlineExceeded` of the pool.
    @LoopActor
    package func send(_ request: Request, deadline: Deadline) async throws -> Response {
        let connectTo = connectTo
        let clocks = clocks
        return try await pool.run(deadline: deadline) {
            try HTTPClient.perform(request, connectTo, deadline.remaining(at: clocks.monotonic()))
        }
    }

    /// The same without a loop: for programs that have none yet and for threads of their own. Blocks.
    package func sendBlocking(_ request: Request, timeout: Duration) throws(HTTPClientError)
        -> Response
    {
        try HTTPClient.perform(request, connectTo, timeout)
    }

    private static func perform(_ request: Request, _ connectTo: String?, _ timeout: Duration)
        throws(HTTPClientError) -> Response
    {
        let handle = try CurlHandle()
        let transfer = CurlTransfer(bodyBytesMax: request.responseBytesMax)
        try handle.set(CURLOPT_URL, request.url)
        try handle.set(CURLOPT_PROTOCOLS, Int(CURLPROTO_HTTP | CURLPROTO_HTTPS))
        try handle.set(CURLOPT_PROXY, "")
        try handle.set(CURLOPT_NOSIGNAL, 1)
        try handle.set(CURLOPT_FOLLOWLOCATION, 0)
        try handle.set(CURLOPT_TIMEOUT_MS, Int(max(1, timeout.inMilliseconds)))
        var lists: [CurlList] = []
        if let connectTo {
            let list = try CurlList(["::\(connectTo)"])
            handle.set(CURLOPT_CONNECT_TO, list)
            lists.append(list)
        }
        // A value that is empty would remove the field: "name;" sends it empty.
        var lines = request.headers.pairs.map { name, value in
            value.isEmpty ? "\(name);" : "\(name): \(value)"
        }
        if request.body != nil, !request.headers.contains(.expect) { lines.append("Expect:") }
        if !lines.isEmpty {
            let list = try CurlList(lines)
            handle.set(CURLOPT_HTTPHEADER, list)
            lists.append(list)
        }
        try handle.set(request.method, body: request.body)
        handle.receive(into: transfer)
        let code = handle.perform()
        withExtendedLifetime(lists) {}
        if let refusal = transfer.refusal { throw refusal }
        guard code == CURLE_OK else { throw HTTPClientError(code) }
        let status = handle.status
        guard (100...599).contains(status) else { throw HTTPClientError.malformedAnswer }
        return Response(
            status: HTTPStatus(status), headers: transfer.headers, body: transfer.body)
    }
}

package enum HTTPClientError: Error, Sendable, Equatable {
    case invalidURL
    case unresolvedHost
    case connectFailed
    case timedOut
    case responseTooLarge
    case malformedAnswer
    case tlsFailed(String)
    /// Anything else, in curl's words.
    case failed(String)

    fileprivate init(_ code: CURLcode) {
        switch code {
        case CURLE_URL_MALFORMAT, CURLE_UNSUPPORTED_PROTOCOL: self = .invalidURL
        case CURLE_COULDNT_RESOLVE_HOST: self = .unresolvedHost
        case CURLE_COULDNT_CONNECT: self = .connectFailed
        case CURLE_OPERATION_TIMEDOUT: self = .timedOut
        case CURLE_PEER_FAILED_VERIFICATION, CURLE_SSL_CONNECT_ERROR:
            self = .tlsFailed(String(cString: curl_easy_strerror(code)))
        default: self = .failed(String(cString: curl_easy_strerror(code)))
        }
    }
}

/// Owns an easy handle: curl_easy_init to curl_easy_cleanup. Used by one thread.
private struct CurlHandle: ~Copyable {
    /// curl_global_init is called once, before any handle, as libcurl wants it.
    private static let isReady = curl_global_init(Int(CURL_GLOBAL_DEFAULT)) == CURLE_OK
    private let handle: UnsafeMutableRawPointer

    init() throws(HTTPClientError) {
        guard CurlHandle.isReady, let handle = curl_easy_init() else {
            throw .failed("curl cannot be initialised")
        }
        self.handle = handle
    }

    deinit { curl_easy_cleanup(handle) }

    func set(_ option: CURLoption, _ value: Int) throws(HTTPClientError) {
        let code = hc_curl_set_long(handle, option, value)
        guard code == CURLE_OK else { throw HTTPClientError(code) }
    }

    /// curl copies the string.
    func set(_ option: CURLoption, _ value: String) throws(HTTPClientError) {
        let code = hc_curl_set_string(handle, option, value)
        guard code == CURLE_OK else { throw HTTPClientError(code) }
    }

    /// curl does not copy the list: the caller keeps it until the transfer is over.
    func set(_ option: CURLoption, _ list: CurlList) {
        _ = hc_curl_set_pointer(handle, option, list.pointer)
    }

    func set(_ method: HTTPMethod, body: [UInt8]?) throws(HTTPClientError) {
        if let body {
            try set(CURLOPT_POSTFIELDSIZE, body.count)
            let code = body.withUnsafeBytes { bytes in
                // CURLOPT_COPYPOSTFIELDS copies as many bytes as POSTFIELDSIZE says; it wants a pointer also for none.
                var none: UInt8 = 0
                return withUnsafeMutableBytes(of: &none) { spare in
                    hc_curl_set_pointer(
                        handle, CURLOPT_COPYPOSTFIELDS,
                        UnsafeMutableRawPointer(mutating: bytes.baseAddress) ?? spare.baseAddress)
                }
            }
            guard code == CURLE_OK else { throw HTTPClientError(code) }
        }
        switch method {
        case .get where body == nil: break
        case .head: try set(CURLOPT_NOBODY, 1)
        case .post where body == nil:
            try set(CURLOPT_POST, 1)
            try set(CURLOPT_POSTFIELDSIZE, 0)
        default: try set(CURLOPT_CUSTOMREQUEST, method.name)
        }
    }

    /// The callbacks get `transfer` unretained: the caller keeps it until `perform` has returned.
    func receive(into transfer: CurlTransfer) {
        let context = Unmanaged.passUnretained(transfer).toOpaque()
        _ = hc_curl_set_pointer(handle, CURLOPT_WRITEDATA, context)
        _ = hc_curl_set_pointer(handle, CURLOPT_HEADERDATA, context)
        _ = hc_curl_set_callback(handle, CURLOPT_WRITEFUNCTION) { data, size, count, context in
            guard let data, let context else { return 0 }
            let transfer = Unmanaged<CurlTransfer>.fromOpaque(context).takeUnretainedValue()
            let bytes = UnsafeRawBufferPointer(start: data, count: size * count)
            return transfer.receive(content: bytes) ? bytes.count : 0
        }
        _ = hc_curl_set_callback(handle, CURLOPT_HEADERFUNCTION) { data, size, count, context in
            guard let data, let context else { return 0 }
            let transfer = Unmanaged<CurlTransfer>.fromOpaque(context).takeUnretainedValue()
            let bytes = UnsafeRawBufferPointer(start: data, count: size * count)
            return transfer.receive(line: bytes) ? bytes.count : 0
        }
    }

    func perform() -> CURLcode { curl_easy_perform(handle) }

    var status: Int {
        var status = 0
        _ = hc_curl_get_long(handle, CURLINFO_RESPONSE_CODE, &status)
        return status
    }
}

/// Owns a curl_slist.
private final class CurlList {
    private(set) var pointer: UnsafeMutablePointer<curl_slist>?

    init(_ lines: [String]) throws(HTTPClientError) {
        for line in lines {
            guard let next = curl_slist_append(pointer, line) else {
                throw .failed("out of memory")
            }
            pointer = next
        }
    }

    deinit { curl_slist_free_all(pointer) }
}

/// What one transfer has received.
private final class CurlTransfer {
    private(set) var headers = HTTPHeaders()
    private(set) var body: [UInt8] = []
    private(set) var refusal: HTTPClientError?
    private let bodyBytesMax: Int
    private var headerByteCount = 0

    init(bodyBytesMax: Int) {
        self.bodyBytesMax = bodyBytesMax
    }

    func receive(content: UnsafeRawBufferPointer) -> Bool {
        guard body.count + content.count <= bodyBytesMax else {
            refusal = .responseTooLarge
            return false
        }
        body.append(contentsOf: content)
        return true
    }

    /// One header line, the status line and the empty line among them.
    func receive(line: UnsafeRawBufferPointer) -> Bool {
        headerByteCount += line.count
        guard headerByteCount <= HTTPClient.headerBytesMax else {
            refusal = .responseTooLarge
            return false
        }
        let text = String(decoding: line, as: UTF8.self)
        guard let colon = text.firstIndex(of: ":") else {
            // A new status line: what came before belonged to 100 (Continue).
            if text.hasPrefix("HTTP/") { headers = HTTPHeaders() }
            return true
        }
        guard let name = HTTPFieldName(String(text[..<colon])) else {
            refusal = .malformedAnswer
            return false
        }
        let value = text[text.index(after: colon)...].drop { $0 == " " || $0 == "\t" }
        let end = value.lastIndex { !$0.isWhitespace }
        headers.append(name, String(end.map { value[...$0] } ?? ""))
        return true
    }
}
