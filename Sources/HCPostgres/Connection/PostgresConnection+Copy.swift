package import HCCore

extension PostgresConnection {
    /// `COPY … FROM STDIN`: asks `next` for bytes until it gives nil. `next` is asked only when what it gave before
    /// has left for the server, so a slow server slows the source.
    ///
    /// When `next` throws, the COPY is refused and the error thrown on: nothing is copied.
    ///
    /// - Returns: the rows copied.
    @discardableResult
    package func copyIn(
        _ query: Query, deadline: Deadline, _ next: () async throws -> [UInt8]?
    ) async throws -> Int {
        guard !transactionIsOpen else {
            throw PostgresError(.misuse("a transaction is open on this connection"))
        }
        return try await runCopyIn(query, deadline: deadline, next)
    }

    /// `COPY … TO STDOUT`: gives `consume` whole rows, some 64 KiB of them at a time. While `consume` works the
    /// socket is not read, so a slow consumer slows the server.
    ///
    /// When `consume` throws, the COPY is cancelled and the error thrown on.
    ///
    /// - Returns: the rows copied.
    @discardableResult
    package func copyOut(
        _ query: Query, deadline: Deadline, _ consume: ([UInt8]) async throws -> Void
    ) async throws -> Int {
        guard !transactionIsOpen else {
            throw PostgresError(.misuse("a transaction is open on this connection"))
        }
        return try await runCopyOut(query, deadline: deadline, consume)
    }

    /// Rows are gathered up to this before the consumer is called.
    private static let chunkBytes = 64 * 1024

    func runCopyIn(
        _ query: Query, deadline: Deadline, _ next: () async throws -> [UInt8]?
    ) async throws -> Int {
        var sourceError: (any Error)?
        let commits = handle.transactionStatus == .idle
        let text = try copyText(query)
        do throws(PostgresError) {
            return try await drive(deadline: deadline, commits: commits) {
                () throws(PostgresError) in
                try await startCopy(text, .copyIn)
                while !isInterrupted {
                    let chunk: [UInt8]?
                    do {
                        chunk = try await next()
                    } catch {
                        sourceError = error
                        break
                    }
                    guard !isClosed else { throw .connectionLost }
                    guard !isInterrupted else { break }
                    guard let chunk else { return try await endCopyIn(refusal: nil) }
                    try await put { handle in chunk.withUnsafeBytes { handle.putCopy($0) } }
                    try await flushAll()
                }
                return try await endCopyIn(refusal: "the sender gave up")
            }
        } catch {
            throw sourceError ?? error
        }
    }

    private func endCopyIn(refusal: StaticString?) async throws(PostgresError) -> Int {
        try await put { handle in handle.putCopyEnd(refusal: refusal) }
        // As long as libpq holds the end of the data, the server cannot have committed.
        try await flushAll()
        if refusal == nil { noteCommandSent() }
        return try await awaitEnd()
    }

    func runCopyOut(
        _ query: Query, deadline: Deadline, _ consume: ([UInt8]) async throws -> Void
    ) async throws -> Int {
        var consumerError: (any Error)?
        let text = try copyText(query)
        do throws(PostgresError) {
            return try await drive(deadline: deadline, commits: false) {
                () throws(PostgresError) in
                try await startCopy(text, .copyOut)
                var chunk: [UInt8] = []
                receiving: while true {
                    guard !isClosed else { throw .connectionLost }
                    switch handle.getCopy(into: &chunk) {
                    case .row:
                        if chunk.count < Self.chunkBytes { continue }
                    case .wouldBlock:
                        if chunk.isEmpty {
                            try await awaitSocket()
                            continue
                        }
                    case .end: break receiving
                    case .failed:
                        closeSession()
                        throw .connectionLost
                    }
                    await deliver(&chunk, to: consume, &consumerError)
                }
                await deliver(&chunk, to: consume, &consumerError)
                return try await awaitEnd()
            }
        } catch {
            throw consumerError ?? error
        }
    }

    /// After the first error the rest is read and dropped, up to the server's answer to the cancel request.
    private func deliver(
        _ chunk: inout [UInt8], to consume: ([UInt8]) async throws -> Void,
        _ failure: inout (any Error)?
    ) async {
        guard !chunk.isEmpty else { return }
        if failure == nil, !isInterrupted {
            setReads(false)
            do {
                try await consume(chunk)
            } catch {
                failure = error
                abandonOperation()
            }
            setReads(true)
        }
        chunk.removeAll(keepingCapacity: true)
    }

    private func copyText(_ query: Query) throws(PostgresError) -> String {
        guard query.binds.isEmpty else {
            throw PostgresError(.misuse("COPY takes no parameters"))
        }
        switch query.text {
        case .fixed(let text): return text.description
        case .unsafe(let text):
            guard !text.utf8.contains(0) else { throw PostgresError(.encode(.nulInSQL)) }
            return text
        }
    }

    func startCopy(
        _ sql: String, _ direction: PGResultHandle.Kind
    ) async throws(PostgresError) {
        guard handle.sendSimple(sql) else {
            closeSession()
            throw .connectionLost
        }
        try await flushAll()
        guard let result = try await awaitResult() else {
            throw PostgresError(.misuse("an empty COPY"))
        }
        switch result.kind {
        case direction: return
        case .failed:
            let error = try serverError(of: result)
            _ = try await awaitEnd()
            throw PostgresError(.server(error))
        case .copyIn, .copyOut, .copyBoth, .sync, .aborted, .other:
            closeSession()
            throw PostgresError(.misuse("a COPY in the other direction"))
        case .completed:
            _ = try await awaitEnd()
            throw PostgresError(.misuse("not a COPY"))
        }
    }

    /// Repeats what libpq has no room for when there is some.
    func put(
        _ attempt: (borrowing PGConnectionHandle) -> PGConnectionHandle.CopyPut
    ) async throws(PostgresError) {
        while true {
            guard !isClosed else { throw .connectionLost }
            switch attempt(handle) {
            case .taken: return
            case .full:
                setWrites(true)
                try await awaitSocket()
            case .failed:
                closeSession()
                throw .connectionLost
            }
        }
    }
}
