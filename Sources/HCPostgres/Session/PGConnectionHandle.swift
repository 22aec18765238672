import CLibPQ
import Glibc
import HCCore

/// Owns one `PGconn`: `PQfinish` runs in ``finish()`` or at the latest in deinit. Never waits: the caller watches
/// ``socket``. libpq takes a nil connection everywhere and answers as for a broken one, so nothing here traps
/// after ``finish()``.
struct PGConnectionHandle: ~Copyable {
    private var pointer: OpaquePointer?
    /// Retained for libpq's notice callback, which cannot run after PQfinish.
    private let notices: NoticeSink

    enum Polling {
        case wantsRead
        case wantsWrite
        case done
        case failed
    }

    enum FlushState {
        case done
        case wantsWrite
        case failed
    }

    /// `PQconnectStartParams`. Resolves no name when each host has its `hostaddr`; opens the first socket.
    init(parameters: [String: String], onNotice: @escaping (SQLState?) -> Void) {
        var keywords: [UnsafeMutablePointer<CChar>?] = []
        var values: [UnsafeMutablePointer<CChar>?] = []
        for (keyword, value) in parameters {
            keywords.append(strdup(keyword))
            values.append(strdup(value))
        }
        keywords.append(nil)
        values.append(nil)
        defer {
            for pointer in keywords { free(pointer) }
            for pointer in values {
                // The password is among them.
                if let pointer { explicit_bzero(pointer, strlen(pointer)) }
                free(pointer)
            }
        }
        notices = NoticeSink(onNotice)
        pointer = keywords.withUnsafeBufferPointer { keywords in
            values.withUnsafeBufferPointer { values in
                keywords.withMemoryRebound(to: UnsafePointer<CChar>?.self) { keywords in
                    values.withMemoryRebound(to: UnsafePointer<CChar>?.self) { values in
                        PQconnectStartParams(keywords.baseAddress, values.baseAddress, 0)
                    }
                }
            }
        }
        // Messages of libpq are then codes only, and never quote a value.
        _ = PQsetErrorVerbosity(pointer, PQERRORS_SQLSTATE)
        PQsetNoticeReceiver(
            pointer,
            { sink, result in
                guard let sink else { return }
                Unmanaged<NoticeSink>.fromOpaque(sink).takeUnretainedValue().receive(result)
            }, Unmanaged.passUnretained(notices).toOpaque())
    }

    deinit { PQfinish(pointer) }

    mutating func finish() {
        PQfinish(pointer)
        pointer = nil
    }

    // MARK: Connecting

    var socket: Int32 { PQsocket(pointer) }
    var isBad: Bool { PQstatus(pointer) == CONNECTION_BAD }

    func pollConnect() -> Polling {
        switch PQconnectPoll(pointer) {
        case PGRES_POLLING_READING: .wantsRead
        case PGRES_POLLING_WRITING: .wantsWrite
        case PGRES_POLLING_OK: .done
        default: .failed
        }
    }

    /// After a failed connect: the code that the server gave, at the end of libpq's message
    /// (`… FATAL:  28P01`). With several hosts, the last one's.
    var connectErrorState: SQLState? {
        guard let text = PQerrorMessage(pointer) else { return nil }
        var found: SQLState?
        for line in String(cString: text).split(separator: "\n") {
            guard let separator = line.lastIndex(of: " ") else { continue }
            let code = line[line.index(after: separator)...]
            guard line[..<separator].hasSuffix(": ") else { continue }
            found = SQLState(code) ?? found
        }
        return found
    }

    /// Non-blocking and in pipeline mode: how a session rests.
    func enterWorkingMode() -> Bool {
        PQsetnonblocking(pointer, 1) == 0 && PQenterPipelineMode(pointer) == 1
    }

    func enterPipeline() -> Bool { PQenterPipelineMode(pointer) == 1 }
    func exitPipeline() -> Bool { PQexitPipelineMode(pointer) == 1 }

    var processID: Int32 { PQbackendPID(pointer) }
    var serverVersion: Int { Int(PQserverVersion(pointer)) }
    func parameterStatus(_ name: String) -> String? {
        PQparameterStatus(pointer, name).map { String(cString: $0) }
    }

    enum TransactionStatus {
        case idle
        case open
        case failed
        case other
    }

    var transactionStatus: TransactionStatus {
        switch PQtransactionStatus(pointer) {
        case PQTRANS_IDLE: .idle
        case PQTRANS_INTRANS: .open
        case PQTRANS_INERROR: .failed
        default: .other
        }
    }

    // MARK: Sending (all return false when the connection is broken; libpq copies what it is given)

    func sendSimple(_ sql: String) -> Bool { PQsendQuery(pointer, sql) == 1 }

    func sendUnnamed(_ sql: UnsafePointer<CChar>) -> Bool {
        PQsendQueryParams(pointer, sql, 0, nil, nil, nil, nil, 1) == 1
    }

    func sendUnnamed(_ sql: String, _ parameters: ParameterEncoder.Parameters) -> Bool {
        PQsendQueryParams(
            pointer, sql, parameters.count, parameters.types, parameters.values,
            parameters.lengths, parameters.formats, 1) == 1
    }

    func sendUnnamed(
        _ sql: UnsafePointer<CChar>, _ parameters: ParameterEncoder.Parameters
    ) -> Bool {
        PQsendQueryParams(
            pointer, sql, parameters.count, parameters.types, parameters.values,
            parameters.lengths, parameters.formats, 1) == 1
    }

    func sendPrepare(_ id: UInt32, _ sql: UnsafePointer<CChar>, types: [UInt32]) -> Bool {
        withStatementName(id) { name in
            PQsendPrepare(pointer, name, sql, Int32(types.count), types) == 1
        }
    }

    func sendDeallocate(_ id: UInt32) -> Bool {
        withStatementName(id, prefix: "DEALLOCATE h") { sendUnnamed($0) }
    }

    func sendPrepared(_ id: UInt32, _ parameters: ParameterEncoder.Parameters) -> Bool {
        withStatementName(id) { name in
            PQsendQueryPrepared(
                pointer, name, parameters.count, parameters.values, parameters.lengths,
                parameters.formats, 1) == 1
        }
    }

    func sendSync() -> Bool { PQpipelineSync(pointer) == 1 }

    func flush() -> FlushState {
        switch PQflush(pointer) {
        case 0: .done
        case 1: .wantsWrite
        default: .failed
        }
    }

    /// `h17` as a C string on the stack.
    private func withStatementName<Result>(
        _ id: UInt32, prefix: StaticString = "h", _ body: (UnsafePointer<CChar>) -> Result
    ) -> Result {
        withUnsafeTemporaryAllocation(of: CChar.self, capacity: prefix.utf8CodeUnitCount + 11) {
            buffer in
            var position = 0
            prefix.withUTF8Buffer { bytes in
                for byte in bytes {
                    buffer[position] = CChar(bitPattern: byte)
                    position += 1
                }
            }
            var divisor: UInt32 = 1
            while id / divisor >= 10 { divisor *= 10 }
            while divisor > 0 {
                buffer[position] = CChar(48 + id / divisor % 10)
                position += 1
                divisor /= 10
            }
            buffer[position] = 0
            return buffer.withMemoryRebound(to: CChar.self) { bytes in
                guard let base = bytes.baseAddress else {
                    preconditionFailure("an allocation of more than 0 bytes has an address")
                }
                return body(base)
            }
        }
    }

    // MARK: Receiving

    /// Reads what the socket has. False: the connection is gone (results read before may still be there).
    func consumeInput() -> Bool { PQconsumeInput(pointer) == 1 }
    /// Whether ``nextResult()`` would have to wait.
    var isBusy: Bool { PQisBusy(pointer) == 1 }

    func nextResult() -> PGResultHandle? {
        guard let result = PQgetResult(pointer) else { return nil }
        return PGResultHandle(owning: result)
    }

    /// A NOTIFY that has arrived.
    func nextNotification() -> PostgresNotification? {
        guard let notify = PQnotifies(pointer) else { return nil }
        defer { PQfreemem(notify) }
        return PostgresNotification(
            channel: String(cString: notify.pointee.relname),
            payload: String(cString: notify.pointee.extra),
            processID: notify.pointee.be_pid)
    }

    // MARK: COPY

    enum CopyPut {
        case taken
        case full
        case failed
    }

    func putCopy(_ bytes: UnsafeRawBufferPointer) -> CopyPut {
        Self.put(
            PQputCopyData(
                pointer, bytes.baseAddress?.assumingMemoryBound(to: CChar.self),
                Int32(truncatingIfNeeded: bytes.count)))
    }

    /// Ends the data; with a reason, makes the server refuse it.
    func putCopyEnd(refusal: StaticString?) -> CopyPut {
        guard let refusal else { return Self.put(PQputCopyEnd(pointer, nil)) }
        return Self.put(
            refusal.withUTF8Buffer { bytes in
                bytes.withMemoryRebound(to: CChar.self) { PQputCopyEnd(pointer, $0.baseAddress) }
            })
    }

    private static func put(_ result: Int32) -> CopyPut {
        switch result {
        case 1: .taken
        case 0: .full
        default: .failed
        }
    }

    enum CopyGet {
        case row
        case wouldBlock
        case end
        case failed
    }

    /// Appends the next row, as the server formatted it, to `chunk`.
    func getCopy(into chunk: inout [UInt8]) -> CopyGet {
        var row: UnsafeMutablePointer<CChar>?
        let length = PQgetCopyData(pointer, &row, 1)
        switch length {
        case 0: return .wouldBlock
        case -1: return .end
        case let length where length > 0:
            guard let row else { return .failed }
            chunk.append(contentsOf: UnsafeRawBufferPointer(start: row, count: Int(length)))
            PQfreemem(row)
            return .row
        default: return .failed
        }
    }

    // MARK: Cancelling

    func makeCancelRequest() -> CancelRequest? { PQgetCancel(pointer).map { CancelRequest($0) } }
}

/// A NOTIFY of the server.
package struct PostgresNotification: Hashable, Sendable {
    package var channel: String
    package var payload: String
    /// The server process that sent it.
    package var processID: Int32
}

/// Owns a `PGcancel`, which is a copy of what is needed to reach the server: it outlives the connection.
final class CancelRequest: @unchecked Sendable {
    // Unchecked: the pointer is a `let`; PQcancel only reads what it points to and is safe on any thread (34.7).
    private let pointer: OpaquePointer

    fileprivate init(_ pointer: OpaquePointer) { self.pointer = pointer }
    deinit { PQfreeCancel(pointer) }

    /// Connects, asks, and waits for the server to hang up: it blocks, so it is called on the blocking pool.
    /// - Returns: whether the request was delivered; not whether it found something to cancel.
    func send() -> Bool {
        withUnsafeTemporaryAllocation(of: CChar.self, capacity: 256) { message in
            PQcancel(pointer, message.baseAddress, Int32(message.count)) == 1
        }
    }
}

/// What libpq's notice receiver calls: on the loop, from within PQconsumeInput and its kin.
private final class NoticeSink {
    private let onNotice: (SQLState?) -> Void

    init(_ onNotice: @escaping (SQLState?) -> Void) { self.onNotice = onNotice }

    /// The notice's text may quote values and goes nowhere. libpq frees the result.
    func receive(_ result: OpaquePointer?) {
        let code = PQresultErrorField(result, Int32(UInt8(ascii: "C")))
        onNotice(code.flatMap { SQLState(String(cString: $0)) })
    }
}

/// A connection string taken apart (`PQconninfoParse`, which reads no file and asks nobody).
enum ConnectionString {
    /// - Returns: the options that the string gives, or nil when it is not one.
    static func parse(_ text: String) -> [String: String]? {
        guard let options = PQconninfoParse(text, nil) else { return nil }
        defer { PQconninfoFree(options) }
        var parsed: [String: String] = [:]
        var option = options
        while let keyword = option.pointee.keyword {
            if let value = option.pointee.val {
                parsed[String(cString: keyword)] = String(cString: value)
            }
            option += 1
        }
        return parsed
    }
}
