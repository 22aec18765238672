import HCCore
import Testing

@testable import HCHTTP

/// What an honest client does now and then, done without end.
@Suite("HTTP/2 budgets")
struct HTTP2BudgetTests {
    /// Sends `step` until the session has had enough.
    /// - Returns: how often that was, and what the session says.
    private func flood(
        _ limits: HTTP2Limits = HTTP2Limits(), max: Int = 20_000,
        opening: FrameBuilder = .opening, pause: Duration = .zero,
        _ step: (inout FrameBuilder, Int) -> Void
    ) -> (count: Int, transcript: HTTP2Transcript) {
        let driver = HTTP2Driver(limits: limits)
        driver.answers = true
        driver.send(opening)
        for count in 1...max {
            var builder = FrameBuilder()
            step(&builder, count)
            driver.send(builder)
            driver.now += pause
            if driver.session.hasFailed { return (count, driver.transcript) }
        }
        return (max, driver.transcript)
    }

    private func expectCalm(
        _ outcome: (count: Int, transcript: HTTP2Transcript), _ fault: HTTP2Fault, after count: Int
    ) {
        #expect(outcome.transcript.goaway == .enhanceYourCalm)
        #expect(outcome.transcript.faults.last == fault)
        #expect(outcome.count == count)
    }

    @Test("requests that are reset as soon as they are made (CVE-2023-44487)")
    func rapidReset() {
        let outcome = flood { builder, count in
            builder.headers(UInt32(2 * count - 1), FrameBuilder.post, ends: false)
            builder.reset(UInt32(2 * count - 1))
        }
        expectCalm(outcome, .resetFlood, after: 201)
    }

    @Test("requests that make us reset them count like those that the client resets")
    func malformedFlood() {
        let outcome = flood { builder, count in
            builder.headers(UInt32(2 * count - 1), FrameBuilder.post + [("X", "1")], ends: false)
        }
        expectCalm(outcome, .resetFlood, after: 201)
        let windows = flood { builder, count in
            builder.headers(UInt32(2 * count - 1), FrameBuilder.post, ends: false)
            builder.windowUpdate(UInt32(2 * count - 1), (1 << 31) - 1)
        }
        expectCalm(windows, .resetFlood, after: 201)
        let closed = flood { builder, count in
            if count == 1 { builder.headers(1) }
            builder.data(1, "x")
        }
        #expect(closed.transcript.hasFailed)
    }

    @Test("streams beyond the number that may be open are refused, and so many of them end it")
    func refusedStreams() {
        var limits = HTTP2Limits()
        limits.concurrentStreamsMax = 1
        let outcome = flood(limits) { builder, count in
            if count == 1 { builder.headers(1, FrameBuilder.post, ends: false) }
            builder.headers(UInt32(2 * count + 1))
        }
        expectCalm(outcome, .resetFlood, after: 201)
    }

    @Test("a client that resets now and then is served for ever")
    func politeResets() {
        let outcome = flood(max: 2000, pause: .milliseconds(60)) { builder, count in
            builder.headers(UInt32(2 * count - 1), FrameBuilder.post, ends: false)
            builder.reset(UInt32(2 * count - 1))
        }
        #expect(outcome.count == 2000)
        #expect(outcome.transcript.goaway == nil)
    }

    @Test("SETTINGS, PING, PRIORITY and frames of unknown types without end")
    func controlFrames() {
        expectCalm(flood { builder, _ in builder.settings() }, .settingsFlood, after: 33)
        expectCalm(flood { builder, _ in builder.ping() }, .pingFlood, after: 201)
        expectCalm(
            flood { builder, _ in builder.priority(1, on: 3) }, .priorityFlood, after: 501)
        expectCalm(
            flood { builder, _ in builder.frame(16, FrameBuilder.number(1)) }, .priorityFlood,
            after: 501)
        expectCalm(flood { builder, _ in builder.frame(99) }, .unknownFrameFlood, after: 101)
        expectCalm(
            flood { builder, _ in builder.goaway() }, .unknownFrameFlood, after: 101)
    }

    @Test("acknowledgements that nobody asked for count as PING")
    func pingAcknowledgements() {
        expectCalm(flood { builder, _ in builder.ping(flags: 1) }, .pingFlood, after: 201)
    }

    @Test("WINDOW_UPDATE is earned by DATA")
    func windowUpdates() {
        expectCalm(
            flood { builder, _ in builder.windowUpdate(0, 1) }, .windowUpdateFlood, after: 2001)
        let driver = HTTP2Driver()
        var builder = FrameBuilder.opening
        builder.headers(1)
        driver.send(builder)
        driver.answer(0, HTTPResponse(.ok, body: .bytes([UInt8](repeating: 1, count: 20_000_000))))
        // A client that gives back the windows in small pieces, as it takes the content.
        for _ in 0..<1200 {
            builder = FrameBuilder()
            for _ in 0..<2 {
                builder.windowUpdate(0, 8192)
                builder.windowUpdate(1, 8192)
            }
            driver.send(builder)
        }
        #expect(!driver.session.hasFailed)
    }

    @Test("frames that carry nothing and end nothing")
    func emptyFrames() {
        expectCalm(
            flood { builder, count in
                if count == 1 { builder.headers(1, FrameBuilder.post, ends: false) }
                builder.data(1, "")
            }, .emptyFrameFlood, after: 33)
        var limits = HTTP2Limits()
        limits.continuationsMax = 1000
        expectCalm(
            flood(limits) { builder, count in
                if count == 1 { builder.headers(1, ends: false, isOpen: true) }
                builder.continuation(1, [], isLast: false)
            }, .emptyFrameFlood, after: 33)
    }

    @Test("a field block in endless pieces (CVE-2024-27316)")
    func continuations() {
        expectCalm(
            flood { builder, count in
                if count == 1 { builder.headers(1, ends: false, isOpen: true) }
                builder.continuation(1, FrameBuilder.block([("x-a", "1")]), isLast: false)
            }, .continuationFlood, after: 17)
        expectCalm(
            flood { builder, count in
                if count == 1 { builder.headers(1, ends: false, isOpen: true) }
                builder.continuation(
                    1,
                    [0] + FrameBuilder.string("x")
                        + FrameBuilder.string(
                            String(repeating: "y", count: 16_000)), isLast: false)
            }, .headerBlockTooLarge, after: 5)
    }

    @Test("a field block above its bound in one frame")
    func largeBlock() {
        var limits = HTTP2Limits()
        limits.headerBlockBytesMax = 300
        expectCalm(
            flood(limits) { builder, count in
                let value = String(repeating: "y", count: count == 1 ? 100 : 300)
                builder.headers(UInt32(2 * count - 1), FrameBuilder.get + [("x-a", value)])
            }, .headerBlockTooLarge, after: 2)
    }

    @Test("field blocks that begin with an empty frame")
    func emptyHeaders() {
        expectCalm(
            flood { builder, count in
                builder.frame(1, flags: 1, stream: UInt32(2 * count - 1))
                builder.continuation(
                    UInt32(2 * count - 1), FrameBuilder.block(FrameBuilder.get), isLast: true)
            }, .emptyFrameFlood, after: 33)
    }

    @Test("a field block in two pieces is at its end, and what follows is counted")
    func endedBlock() {
        let driver = HTTP2Driver()
        var builder = FrameBuilder.opening
        builder.headers(1, ends: true, isOpen: true)
        driver.send(builder)
        #expect(driver.session.isInBlock)
        builder = FrameBuilder()
        builder.continuation(1, [], isLast: true)
        driver.send(builder)
        #expect(!driver.session.isInBlock)
        for _ in 0..<201 {
            builder = FrameBuilder()
            builder.ping()
            driver.send(builder)
        }
        #expect(driver.transcript.faults == [.pingFlood])
    }

    @Test("content for requests that are over makes us reset them, and that is counted")
    func closedStreams() {
        expectCalm(
            flood { builder, count in
                // The one before has been answered by now.
                if count > 1 { builder.data(UInt32(2 * count - 3), "x") }
                builder.headers(UInt32(2 * count - 1))
            }, .resetFlood, after: 202)
    }

    @Test("of streams that are over only the last are remembered")
    func remembered() {
        let driver = HTTP2Driver()
        driver.answers = true
        driver.send(.opening)
        for count in 0..<1000 {
            var builder = FrameBuilder()
            // Every other number is left out.
            builder.headers(UInt32(4 * count + 1))
            driver.send(builder)
        }
        #expect(driver.transcript.heads.count == 1000)
        #expect(driver.session.rememberedCount <= 64 + 16)
    }

    @Test("few bytes that decode to many (HPACK bomb)")
    func headerBomb() {
        var block = FrameBuilder.block(FrameBuilder.get)
        // One field into the table, and then it and nothing else.
        block +=
            [0x40] + FrameBuilder.string("x")
            + FrameBuilder.string(String(repeating: "y", count: 3000))
        block += [UInt8](repeating: 0xBE, count: 12_000)
        var builder = FrameBuilder.opening
        builder.frame(1, flags: 5, stream: 1, block)
        let transcript = HTTP2Transcript(builder)
        #expect(transcript.goaway == .enhanceYourCalm)
        #expect(transcript.faults == [.headerBomb])
        #expect(transcript.heads.isEmpty && transcript.refusals.isEmpty)
    }

    @Test("fields above the limit are 431, and the connection goes on")
    func largeFields() {
        var builder = FrameBuilder.opening
        let long = String(repeating: "y", count: 8000)
        builder.frame(
            1, flags: 1, stream: 1,
            FrameBuilder.block(FrameBuilder.get + [("x-a", long)]))
        for index in 0..<4 {
            builder.continuation(
                1, FrameBuilder.block([("x-b", long)]), isLast: index == 3)
        }
        builder.headers(3, FrameBuilder.get + (0..<101).map { ("x-\($0)", "1") })
        builder.headers(5, FrameBuilder.get + [(String(repeating: "n", count: 300), "1")])
        builder.headers(7)
        let transcript = HTTP2Transcript(builder, answers: true)
        #expect(transcript.refusals == [.headersTooLarge, .tooManyHeaders, .headersTooLarge])
        #expect(transcript.heads.count == 1)
        #expect(transcript.goaway == nil)
    }

    @Test("a stream too many is refused and may be made again; so while handlers of reset ones run")
    func concurrency() {
        var limits = HTTP2Limits()
        limits.concurrentStreamsMax = 2
        let session = HTTP2Session(
            limits: limits, common: HTTP1Limits(), now: MonotonicTime(nanoseconds: 1))
        func send(_ write: (inout FrameBuilder) -> Void) -> [Frame] {
            var builder = FrameBuilder()
            write(&builder)
            builder.bytes.withUnsafeBytes {
                session.receive($0, at: MonotonicTime(nanoseconds: 1))
            }
            session.pull(upTo: .max)
            let frames = Frame.parse(Array(session.output[session.sentCount...]))
            session.sent(session.pendingCount)
            return frames
        }
        _ = send { $0 = .opening }
        #expect(
            send {
                $0.headers(1)
                $0.headers(3)
            }.filter { $0.type == 3 }.isEmpty)
        #expect(send { $0.headers(5) }.first?.resetCode == HTTP2ErrorCode.refusedStream.rawValue)
        // Reset, and not released by its owner.
        #expect(
            send {
                $0.reset(1)
                $0.headers(7)
            }.contains { $0.type == 3 && $0.stream == 7 })
        session.release(0)
        #expect(send { $0.headers(9) }.allSatisfy { $0.type != 3 })
        #expect(session.streamCount == 2)
    }

    @Test("an answer that nobody reads is not pulled out of its handler's hands")
    func boundedOutput() {
        let driver = HTTP2Driver()
        var builder = FrameBuilder.opening
        builder.settings([(4, (1 << 31) - 1)])
        builder.windowUpdate(0, 1 << 30)
        builder.headers(1)
        builder.bytes.withUnsafeBytes { driver.session.receive($0, at: driver.now) }
        driver.session.events = []
        let fields = HTTP2FieldList()
        driver.session.answer(
            0, HTTPResponse(.ok), status: 200,
            content: .whole(.bytes([UInt8](repeating: 1, count: 10_000_000))), length: 10_000_000,
            id: nil, date: DateLine(.epoch), common: HTTPHeaders(), fields)
        driver.session.pull(upTo: 65_536)
        #expect(driver.session.pendingCount < 65_536 + 16_384 + 1024)
        driver.session.pull(upTo: 65_536)
        #expect(driver.session.pendingCount < 65_536 + 16_384 + 1024)
        #expect(driver.session.waitingCount(0) > 9_000_000)
    }

    @Test("content that is not taken closes the windows, and taking it opens them")
    func inputWindows() throws {
        var limits = HTTP2Limits()
        limits.streamWindowBytes = 65_535
        limits.connectionWindowBytes = 65_535
        let driver = HTTP2Driver(limits: limits)
        driver.consumes = false
        var builder = FrameBuilder.opening
        builder.settingsAcknowledged()
        builder.headers(1, FrameBuilder.post, ends: false)
        for _ in 0..<3 { builder.frame(0, stream: 1, [UInt8](repeating: 1, count: 16_384)) }
        driver.send(builder)
        #expect(!driver.transcript.frames.contains { $0.type == 8 })
        driver.session.consume(0)
        driver.settle([])
        #expect(driver.transcript.frames.filter { $0.type == 8 }.map(\.stream).sorted() == [0, 1])

        // More than the window: an error of the stream, or of the connection if it is that one's.
        builder = FrameBuilder()
        for _ in 0..<5 { builder.frame(0, stream: 1, [UInt8](repeating: 1, count: 16_384)) }
        driver.send(builder)
        #expect(driver.transcript.goaway == .flowControlError)
    }

    @Test("content beyond a stream's window is an error of that stream")
    func streamWindow() {
        var limits = HTTP2Limits()
        limits.streamWindowBytes = 1000
        var builder = FrameBuilder.opening
        builder.settingsAcknowledged()
        builder.headers(1, FrameBuilder.post, ends: false)
        builder.frame(0, stream: 1, [UInt8](repeating: 1, count: 1001))
        builder.headers(3)
        let transcript = HTTP2Transcript(builder, limits: limits)
        #expect(transcript.reset(1) == .flowControlError)
        #expect(transcript.faults == [.streamFlowControl])
        #expect(transcript.heads.count == 2)
    }
}
