import HCCore

extension PostgresConnection {
    /// Follows a logical slot of `pgoutput` from where it stands (`START_REPLICATION`, PostgreSQL 15 manual, 55.4), and
    /// tells the server that everything was received, so that it keeps no log for it.
    ///
    /// The configuration must say `isReplication`. `consume` is called on the loop, as fast as the server sends.
    ///
    /// - Throws: ``PostgresError``, always: it ends with the session, or because the server refuses.
    package func follow(
        slot: String, publication: String, _ consume: (LogicalMessage) -> Void
    ) async throws(PostgresError) -> Never {
        guard configuration.isReplication, let name = Query.quotedIdentifier(slot),
            let published = Query.quotedIdentifier(publication)
        else {
            throw PostgresError(.misuse("a slot is followed by name, over a replication session"))
        }
        // The publication is named in a string that holds a list of identifiers.
        let text =
            "START_REPLICATION SLOT \(name) LOGICAL 0/0 (proto_version '1', publication_names '\(published)')"
        try await drive(deadline: .never, commits: false) { () throws(PostgresError) in
            try await startCopy(text, .copyBoth)
            var received: UInt64 = 0
            var message: [UInt8] = []
            while true {
                guard !isClosed else { throw .connectionLost }
                message.removeAll(keepingCapacity: true)
                switch handle.getCopy(into: &message) {
                case .row:
                    if try take(message, &received, consume) { try await confirm(received) }
                case .wouldBlock:
                    try await awaitSocket()
                case .end, .failed:
                    closeSession()
                    throw .connectionLost
                }
            }
        }
        throw .connectionLost
    }

    /// - Returns: whether the server wants to hear how far we are.
    private func take(
        _ bytes: [UInt8], _ received: inout UInt64, _ consume: (LogicalMessage) -> Void
    ) throws(PostgresError) -> Bool {
        let taken = bytes.withUnsafeBytes { bytes -> Result<(LogicalMessage?, UInt64), any Error> in
            Result {
                var reader = BinaryReader(bytes)
                switch Character(UnicodeScalar(try reader.integer(UInt8.self))) {
                case "w":
                    // XLogData: where it begins, where the log ends, when it was sent.
                    let begin = try reader.integer(UInt64.self)
                    _ = try reader.slice(16)
                    return (try LogicalMessage(&reader), begin)
                case "k":
                    // Keepalive: where the log ends.
                    return (nil, try reader.integer(UInt64.self))
                default: throw BinaryReader.Failure.malformed
                }
            }
        }
        guard case .success(let (message, position)) = taken else {
            closeSession()
            throw PostgresError(.misuse("the replication stream has a message that is none"))
        }
        received = max(received, position)
        guard let message else { return true }
        consume(message)
        return false
    }

    /// Standby status update: written, flushed and applied are one place, the time is the server's own concern.
    private func confirm(_ position: UInt64) async throws(PostgresError) {
        var update: [UInt8] = [UInt8(ascii: "r")]
        for value in [position, position, position, 0] {
            withUnsafeBytes(of: value.bigEndian) { update.append(contentsOf: $0) }
        }
        update.append(0)
        let bytes = update
        try await put { handle in bytes.withUnsafeBytes { handle.putCopy($0) } }
        try await flushAll()
    }
}
