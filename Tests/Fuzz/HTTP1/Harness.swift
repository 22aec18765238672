import HCHTTP

/// What must hold for any bytes whatsoever.
enum HTTP1FuzzHarness {
    private struct Outcome: Equatable {
        /// Events in words; content is gathered so that it does not depend on the cuts.
        var transcript: [UInt8] = []
        var keptMax = 0

        static func == (left: Outcome, right: Outcome) -> Bool {
            left.transcript == right.transcript
        }
    }

    /// Small limits, so that a small input reaches them.
    private static let limits: HTTP1Limits = {
        var limits = HTTP1Limits()
        limits.requestLineBytesMax = 128
        limits.pathSegmentBytesMax = 32
        limits.headerBytesMax = 512
        limits.headerCountMax = 12
        limits.bodyBytesMax = 4096
        limits.chunkLineBytesMax = 64
        limits.chunkOverheadBytesMax = 128
        limits.trailerBytesMax = 128
        limits.trailerCountMax = 4
        return limits
    }()

    /// - Precondition: what is said about the parser and the machine is true; else the process ends here.
    static func check(_ bytes: [UInt8], seed: UInt64) {
        var random = Cuts(state: seed)
        let whole = run(bytes, pieces: { bytes.count })
        let bytewise = run(bytes, pieces: { 1 })
        let cut = run(
            bytes, pieces: { Int.random(in: 1...max(1, bytes.count / 3), using: &random) })
        precondition(whole == bytewise, "fed byte by byte, the result is another")
        precondition(whole == cut, "fed in pieces, the result is another")
        precondition(bytewise.keptMax <= limits.pendingBytesMax + 1, "kept more than the limits")
    }

    private static func run(_ bytes: [UInt8], pieces: () -> Int) -> Outcome {
        var machine = HTTP1ConnectionMachine(limits: limits, discardBytesMax: 256)
        var outcome = Outcome()
        var kept: [UInt8] = []
        var content: [UInt8] = []
        var position = 0
        while position < bytes.count {
            let end = min(bytes.count, position + pieces())
            kept.append(contentsOf: bytes[position..<end])
            position = end
            var consumed = 0
            let goesOn = kept.withUnsafeBytes { input in
                step(&machine, input, &consumed, &content, &outcome)
            }
            precondition(consumed <= kept.count, "consumed more than there is")
            kept.removeFirst(consumed)
            outcome.keptMax = max(outcome.keptMax, kept.count)
            guard goesOn else { return outcome }
        }
        outcome.transcript.append(contentsOf: content)
        return outcome
    }

    /// Answers each request as soon as it is complete, as a quick handler would.
    private static func step(
        _ machine: inout HTTP1ConnectionMachine, _ input: UnsafeRawBufferPointer,
        _ consumed: inout Int, _ content: inout [UInt8], _ outcome: inout Outcome
    ) -> Bool {
        while true {
            switch machine.next(input, consumed: &consumed) {
            case .needMore: return true
            case .pause: preconditionFailure("a request that is complete was answered")
            case .request(let head):
                outcome.transcript.append(contentsOf: "\(head.method) \(head.host) ".utf8)
                for segment in head.target.segments {
                    precondition(segment != "." && segment != "..", "a dot segment")
                    precondition(!segment.utf8.contains(0), "a NUL in a path")
                    outcome.transcript.append(contentsOf: segment.utf8)
                    outcome.transcript.append(0x2F)
                }
                outcome.transcript.append(contentsOf: "\(head.target.query)".utf8)
                for (name, value) in head.headers.pairs {
                    precondition(HTTPFieldName(name) != nil, "a field without a proper name")
                    outcome.transcript.append(contentsOf: "\(name):\(value)\n".utf8)
                }
                precondition(head.headers.count(of: .host) <= 1, "two hosts")
                outcome.transcript.append(head.keepAlive ? 1 : 0)
            case .content(let range):
                precondition(range.upperBound <= input.count, "content beyond the input")
                content.append(contentsOf: input[range])
                precondition(content.count <= limits.bodyBytesMax, "content above the limit")
            case .contentEnd:
                outcome.transcript.append(contentsOf: content)
                content = []
                outcome.transcript.append(contentsOf: "answered".utf8)
                _ = machine.answer(.ok, count: 2)
                if machine.answerEnded() == .linger { return false }
            case .refuse(let error), .failContent(let error):
                outcome.transcript.append(contentsOf: content)
                outcome.transcript.append(contentsOf: error.rawValue.utf8)
                let plan = machine.answer(error.status, count: 2)
                precondition(plan.connectionField == .close, "a refusal that keeps the connection")
                precondition(machine.answerEnded() == .linger, "a refusal that goes on")
                return false
            case .discarded, .drop, .close:
                preconditionFailure("nothing was left unread, and the input has not ended")
            }
        }
    }
}

/// SplitMix64: the same cuts for the same input.
private struct Cuts: RandomNumberGenerator {
    var state: UInt64

    mutating func next() -> UInt64 {
        state &+= 0x9E37_79B9_7F4A_7C15
        var mixed = state
        mixed = (mixed ^ (mixed >> 30)) &* 0xBF58_476D_1CE4_E5B9
        mixed = (mixed ^ (mixed >> 27)) &* 0x94D0_49BB_1331_11EB
        return mixed ^ (mixed >> 31)
    }
}
