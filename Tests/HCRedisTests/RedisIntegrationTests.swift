import HCCore
import HCIO
import HCTesting
import Testing

@testable import HCRedis

/// The fixture blocks, so these tests run off the loop and go there for each call.
@Suite("the client and a real Redis")
struct RedisIntegrationTests {
    init() {
        Loop.shared.startThread()
    }

    @LoopActor private func makeClient(
        _ server: RedisServer, password: String? = nil,
        _ change: (inout RedisConfiguration) -> Void = { _ in }
    ) async throws -> RedisClient {
        var configuration = RedisConfiguration(
            password: Sensitive(password ?? server.password))
        configuration.backoffInitial = .milliseconds(5)
        configuration.backoffMax = .milliseconds(20)
        change(&configuration)
        let client = RedisClient(
            configuration: configuration,
            connector: RedisConnectors.plain(.unix(path: server.socket)))
        client.start()
        return client
    }

    @Test("strings, numbers, lists, errors and binary values go there and back")
    func values() async throws {
        let server = try RedisServer()
        let client = try await makeClient(server)
        try await client.waitUntilReady(deadline: .soon)
        let bytes = (0..<70_000).map { UInt8(truncatingIfNeeded: $0) }
        #expect(try await client.send(["SET", "binary", .bytes(bytes)], deadline: .soon).isOK)
        #expect(try await client.send(["GET", "binary"], deadline: .soon) == .bytes(bytes))
        #expect(try await client.send(["GET", "absent"], deadline: .soon).isNull)
        #expect(try await client.send(["INCRBY", "n", 41], deadline: .soon) == .integer(41))
        let replies = try await client.pipeline(
            [
                ["RPUSH", "list", "a", "b"], ["LRANGE", "list", 0, .integer(-1)], ["INCR", "list"],
                ["INCR", "n"], ["CLIENT", "GETNAME"],
            ], deadline: .soon)
        #expect(replies[0] == .integer(2))
        #expect(replies[1] == .array([.bytes([97]), .bytes([98])]))
        #expect(replies[2].asError?.code == "WRONGTYPE")
        #expect(replies[3] == .integer(42))
        #expect(replies[4].asString == "hc")
        await #expect(throws: RedisError.self) {
            try await client.send(["NO-SUCH-COMMAND", "secret"], deadline: .soon)
        }
        await client.close()
    }

    @Test("thousands of commands at once all get their own reply")
    func manyCommands() async throws {
        let server = try RedisServer()
        let client = try await makeClient(server)
        try await client.waitUntilReady(deadline: .soon)
        let sum = try await withThrowingTaskGroup(of: Int64.self) { group in
            for number in 0..<3000 {
                group.addTask {
                    let reply = try await client.send(
                        ["ECHO", .integer(number)], deadline: .soon)
                    #expect(reply.asString == "\(number)")
                    return Int64(number)
                }
            }
            return try await group.reduce(0, +)
        }
        #expect(sum == 2999 * 3000 / 2)
        await client.close()
    }

    @Test("a script runs by its digest and is loaded where it is not known")
    func scripts() async throws {
        let server = try RedisServer()
        let client = try await makeClient(server)
        try await client.waitUntilReady(deadline: .soon)
        let script = RedisScript(
            "return {redis.call('INCRBY', KEYS[1], ARGV[1]), ARGV[2], redis.sha1hex('')}")
        for round in 1...3 {
            let reply = try await client.evaluate(
                script, keys: ["counter"], arguments: [5, "text"], deadline: .soon)
            #expect(reply.asArray?[0] == .integer(Int64(5 * round)))
            #expect(reply.asArray?[1].asString == "text")
            #expect(reply.asArray?[2].asString == SHA1.hexDigest(of: []))
        }
        let known = try await client.send(
            ["SCRIPT", "EXISTS", .text(script.digest)], deadline: .soon)
        #expect(known == .array([.integer(1)]))
        _ = try await client.send(["SCRIPT", "FLUSH"], deadline: .soon)
        let again = try await client.evaluate(
            script, keys: ["counter"], arguments: [0, ""], deadline: .soon)
        #expect(again.asArray?[0] == .integer(15))
        let failing = RedisScript("return redis.call('INCR', KEYS[1], 'too', 'many')")
        await #expect(throws: RedisError.self) {
            try await client.evaluate(failing, keys: ["k"], arguments: [], deadline: .soon)
        }
        await client.close()
    }

    @Test("a wrong password keeps the client away and says so")
    func wrongPassword() async throws {
        let server = try RedisServer()
        let client = try await makeClient(server, password: "wrong")
        try await client.wait(for: .waiting, deadline: .soon)
        #expect(await client.lastFailure == "refused: WRONGPASS")
        await #expect(throws: RedisError.unavailable) {
            try await client.send(["PING"], deadline: .soon)
        }
        await client.close()
    }

    @Test("kill -9 with commands under way: they are unknown, then refused, and then all is well")
    func killAndRestart() async throws {
        let server = try RedisServer()
        let client = try await makeClient(server)
        try await client.waitUntilReady(deadline: .soon)
        let since = try #require(await client.connectedSince)
        let script = RedisScript("return redis.call('INCR', KEYS[1])")
        _ = try await client.evaluate(script, keys: ["n"], arguments: [], deadline: .soon)

        // BLPOP holds up what follows it on the connection, so all of these are without reply.
        let underWay = try await UnderWay(
            client, [["BLPOP", "never", 0]] + Array(repeating: ["INCR", "n"], count: 50)
        ).written()
        try server.kill()
        let outcomes = try await underWay.outcomes()
        #expect(outcomes.count == 51)
        #expect(outcomes.allSatisfy { $0 == .connectionLost })
        #expect(await client.connectedSince == nil)
        await #expect(throws: RedisError.unavailable) {
            try await client.send(["PING"], deadline: .soon)
        }

        try server.start()
        try await client.waitUntilReady(deadline: .soon)
        #expect(try #require(await client.connectedSince) > since)
        let reply = try await client.evaluate(
            script, keys: ["n"], arguments: [], deadline: .soon)
        #expect(reply == .integer(1))
        await client.close()
    }

    @Test("a Redis that hangs is given up after a few unanswered commands, and taken up again")
    func suspended() async throws {
        let server = try RedisServer()
        let client = try await makeClient(server) {
            $0.timeoutsMax = 3
            $0.silenceMin = .milliseconds(20)
            $0.connectTimeout = .milliseconds(200)
        }
        try await client.waitUntilReady(deadline: .soon)
        try server.suspend()
        var timeouts = 0
        while await client.state == .ready {
            do throws(RedisError) {
                _ = try await client.send(["PING"], deadline: .in(.milliseconds(10)))
            } catch .deadlineExceeded {
                timeouts += 1
            } catch {
                #expect(error == .unavailable)
            }
        }
        #expect(timeouts >= 3)
        try server.resume()
        try await client.waitUntilReady(deadline: .soon)
        #expect(try await client.send(["PING"], deadline: .soon) == .simple("PONG"))
        await client.close()
    }

    @Test("a connection that Redis closes is made again")
    func closedByServer() async throws {
        let server = try RedisServer()
        let victim = try await makeClient(server) { $0.clientName = "victim" }
        let operatorClient = try await makeClient(server)
        try await victim.waitUntilReady(deadline: .soon)
        try await operatorClient.waitUntilReady(deadline: .soon)
        let id = try #require(
            await victim.send(["CLIENT", "ID"], deadline: .soon).asInteger)
        let underWay = try await UnderWay(victim, [["BLPOP", "never", 0]]).written()
        let killed = try await operatorClient.send(
            ["CLIENT", "KILL", "ID", .integer(id)], deadline: .soon)
        #expect(killed == .integer(1))
        #expect(try await underWay.outcomes() == [.connectionLost])
        try await victim.waitUntilReady(deadline: .soon)
        #expect(try await victim.send(["PING"], deadline: .soon) == .simple("PONG"))
        await victim.close()
        await operatorClient.close()
    }
}

/// Commands that are submitted before `init` returns and written by the end of that tick.
/// `written()` waits for it.
@LoopActor private final class UnderWay {
    private var ends: [Waiter<RedisError?>] = []
    private let flushed = Waiter<Void>()

    init(_ client: RedisClient, _ commands: [[RedisArgument]]) {
        for command in commands {
            let end = Waiter<RedisError?>()
            ends.append(end)
            Loop.shared.spawn {
                do throws(RedisError) {
                    _ = try await client.send(command, deadline: .soon)
                    end.succeed(nil)
                } catch {
                    end.succeed(error)
                }
            }
        }
        Loop.shared.atEndOfTick { [flushed] in flushed.succeed(()) }
    }

    /// The client's own flush was put in the same queue before this.
    func written() async throws -> Self {
        try await flushed.wait(until: .soon)
        return self
    }

    func outcomes() async throws -> [RedisError?] {
        var outcomes: [RedisError?] = []
        for end in ends { outcomes.append(try await end.wait(until: .soon)) }
        return outcomes
    }
}

extension Deadline {
    /// Far enough that only a test that hangs meets it. From any thread, by the system's clock.
    fileprivate static var soon: Deadline { .in(.seconds(20)) }

    fileprivate static func `in`(_ duration: Duration) -> Deadline {
        .after(duration, from: Clocks.system.monotonic())
    }
}
