import HCCore
import HCIO
import HCRedis

extension Coherence {
    /// Keeps the lease, and takes in what others void.
    ///
    /// Both go over one connection, one after the other: when Redis extends the lease, nothing can be on its way
    /// that was in the inbox before.
    package func run() async throws {
        guard let reader else {
            try await Loop.shared.sleep(until: .never)
            return
        }
        var backoff = Backoff(initial: .milliseconds(20), maximum: .seconds(1))
        while !Task.isCancelled, !hasLeft {
            do throws(RedisError) {
                try await reader.waitUntilReady(deadline: .never)
                try await follow(reader) { backoff.reset() }
            } catch {
                metrics.losses.increment()
                beginAnew()
                if Task.isCancelled { throw CancellationError() }
                try await Loop.shared.sleep(for: backoff.next(using: &random))
            }
        }
        try await Loop.shared.sleep(until: .never)
    }

    /// Never returns.
    private func follow(_ reader: RedisClient, hasBegun: () -> Void) async throws(RedisError) {
        guard let connection = reader.connectedSince else { throw .unavailable }
        var renewed = Loop.now
        try await renew(reader, isFirst: true)
        hasBegun()
        begun.open()
        metrics.isTrusted.set(1)
        while true {
            let left = max(.milliseconds(10), limits.renewAfter - (Loop.now - renewed))
            let reply = try await reader.send(
                [
                    "BLMPOP", .text("\(Double(left.inMilliseconds) / 1000)"), "1",
                    .text(CoherenceScripts.inbox(of: process)), "LEFT", "COUNT",
                    .integer(limits.readMax),
                ], deadline: .after(left + limits.trust, from: Loop.now))
            guard reader.connectedSince == connection, !hasLeft else { throw .connectionLost }
            if let pair = reply.asArray, pair.count == 2 { take(pair[1].asArray ?? []) }
            guard Loop.now - renewed >= limits.renewAfter else { continue }
            renewed = Loop.now
            try await renew(reader, isFirst: false)
            guard reader.connectedSince == connection else { throw .connectionLost }
        }
    }

    private func renew(_ reader: RedisClient, isFirst: Bool) async throws(RedisError) {
        let askedAt = Loop.now
        let reply = try await reader.evaluate(
            CoherenceScripts.renew,
            keys: [
                .text(CoherenceScripts.lease(of: process)),
                .text(CoherenceScripts.inbox(of: process)),
            ],
            arguments: [
                .integer(limits.leaseLife.inMilliseconds), isFirst ? "1" : "0",
                .integer(limits.holdersMax),
            ], deadline: .after(limits.trust, from: askedAt))
        // The lease is gone: whoever changed something has not waited for this process.
        guard let messages = reply.asArray else { throw .unexpectedReply }
        take(messages)
        ledger.extended(askedAt: askedAt)
    }

    /// Takes in messages, and answers those who wait.
    private func take(_ messages: [RESPValue]) {
        var answers: [(CoherenceMessage, String)] = []
        for message in messages {
            switch message.asString.flatMap({ CoherenceMessage($0) }) {
            case .void(let tenant, let id, let names, let life, let other):
                let hold = CopyLedger.Hold(id: id, names: VoidedNames(names), left: life)
                if ledger.voided(tenant, hold, at: Loop.now) { drop(tenant, hold.names) }
                answers.append((.acknowledgement(id, process: process), other))
            case .release(let tenant, let id): ledger.released(tenant, id)
            case .acknowledgement(let id, let other): acknowledged(id, by: other)
            case nil: logger.error("a message about copies is malformed")
            }
        }
        guard !answers.isEmpty else { return }
        Loop.shared.spawn { [self] in
            for (answer, other) in answers {
                do throws(RedisError) {
                    try await post(answer, to: [other])
                } catch {
                    // Then the other waits for our lease to run out.
                    logger.debug("a void is not answered", [("error", .string("\(error)"))])
                }
            }
        }
    }
}

extension CopyLedger.Hold {
    /// What `CoherenceScripts.register` answers; nil for anything else.
    static func list(_ reply: RESPValue) -> [CopyLedger.Hold]? {
        guard let parts = reply.asArray, parts.count % 3 == 0 else { return nil }
        var holds: [CopyLedger.Hold] = []
        for index in stride(from: 0, to: parts.count, by: 3) {
            guard let id = parts[index].asString, let left = parts[index + 1].asInteger,
                let names = parts[index + 2].asString
            else { return nil }
            let list = names.split(separator: "\n").map(String.init)
            holds.append(
                CopyLedger.Hold(
                    id: VoidID(text: id), names: VoidedNames(list), left: .microseconds(left)))
        }
        return holds
    }
}
