import HCHTTP

/// What must hold for any bytes whatsoever.
struct WebSocketFuzzHarness {
    private struct Outcome: Equatable {
        /// Events in words.
        var transcript: [UInt8] = []
        var keptMax = 0

        static func == (left: Outcome, right: Outcome) -> Bool {
            left.transcript == right.transcript
        }
    }

    /// Small limits, so that a small input reaches them.
    private static let limits: WebSocketLimits = {
        var limits = WebSocketLimits(messageBytesMax: 2048)
        limits.frameBytesMax = 1024
        limits.emptyFragmentsMax = 4
        return limits
    }()

    private let agreement: WebSocketDeflateAgreement?
    private let configuration: WebSocketDeflateConfiguration

    /// - Parameter choice: a bit for each thing that can be agreed on.
    init(agreement choice: UInt8) {
        var configuration = WebSocketDeflateConfiguration()
        configuration.keepsContext = choice & 2 != 0
        configuration.windowBits = 9 + Int(choice >> 2 & 7) % 7
        configuration.messageBytesMin = 0
        configuration.memoryLevel = 1
        self.configuration = configuration
        let bits = 9 + Int(choice >> 5 & 7) % 7
        let offers = WebSocketExtensionOffer.list([
            "permessage-deflate; client_max_window_bits=\(bits)"
        ])
        agreement =
            choice & 1 == 0
            ? nil : offers.flatMap { WebSocketDeflateAgreement.choose($0, configuration) }
    }

    /// - Precondition: what is said about the decoder and the encoder is true; else the process ends here.
    func check(_ bytes: [UInt8], seed: UInt64) {
        var random = Cuts(state: seed)
        let whole = run(bytes, pieces: { bytes.count })
        let bytewise = run(bytes, pieces: { 1 })
        let cut = run(
            bytes, pieces: { Int.random(in: 1...max(1, bytes.count / 3), using: &random) })
        precondition(whole == bytewise, "fed byte by byte, the result is another")
        precondition(whole == cut, "fed in pieces, the result is another")
        precondition(
            bytewise.keptMax <= WebSocketDecoder.pendingBytesMax, "kept more than a control frame")
        checkOffers(bytes)
        checkRoundTrip(bytes)
    }

    private func run(_ bytes: [UInt8], pieces: () -> Int) -> Outcome {
        var decoder = WebSocketDecoder(
            from: .client, limits: WebSocketFuzzHarness.limits, deflate: agreement,
            pool: WebSocketDeflatePool(configuration))
        var outcome = Outcome()
        var kept: [UInt8] = []
        var position = 0
        while position < bytes.count {
            let end = min(bytes.count, position + pieces())
            kept.append(contentsOf: bytes[position..<end])
            position = end
            var consumed = 0
            let goesOn = kept.withUnsafeBytes { input in
                WebSocketFuzzHarness.step(&decoder, input, &consumed, &outcome)
            }
            precondition(consumed <= kept.count, "consumed more than there is")
            kept.removeFirst(consumed)
            if goesOn { outcome.keptMax = max(outcome.keptMax, kept.count) }
            precondition(
                decoder.keptCount <= WebSocketFuzzHarness.limits.messageBytesMax,
                "a message above the limit")
            guard goesOn else { return outcome }
        }
        return outcome
    }

    private static func step(
        _ decoder: inout WebSocketDecoder, _ input: UnsafeRawBufferPointer, _ consumed: inout Int,
        _ outcome: inout Outcome
    ) -> Bool {
        while true {
            do throws(WebSocketError) {
                switch try decoder.next(input, consumed: &consumed) {
                case .needMore: return true
                case .message(let message):
                    precondition(message.count <= limits.messageBytesMax, "above the limit")
                    if message.kind == .text {
                        precondition(
                            String(validating: message.bytes, as: UTF8.self) != nil, "not UTF-8")
                    }
                    outcome.transcript.append(contentsOf: "message \(message.kind) ".utf8)
                    outcome.transcript.append(contentsOf: message.bytes)
                case .ping(let content), .pong(let content):
                    precondition(content.count <= 125, "a long control frame")
                    outcome.transcript.append(contentsOf: "control ".utf8)
                    outcome.transcript.append(contentsOf: content)
                case .close(let code, let reason):
                    outcome.transcript.append(contentsOf: "close \(code?.number ?? 0) ".utf8)
                    outcome.transcript.append(contentsOf: reason.utf8)
                    return false
                }
            } catch {
                outcome.transcript.append(contentsOf: "error \(error.rawValue)".utf8)
                return false
            }
        }
    }

    /// The bytes as what a client offers: whatever is agreed on is one of the possible answers.
    private func checkOffers(_ bytes: [UInt8]) {
        let text = String(decoding: bytes.prefix(256), as: UTF8.self)
        guard let offers = WebSocketExtensionOffer.list([text]),
            let agreed = WebSocketDeflateAgreement.choose(offers, configuration)
        else { return }
        precondition((9...15).contains(agreed.serverWindowBits), "a window that zlib has not")
        precondition((8...15).contains(agreed.clientWindowBits), "a window that nobody has")
        precondition(
            WebSocketExtensionOffer.list([agreed.fieldValue])?.count == 1, "an answer is one")
    }

    /// The bytes as messages: what is encoded is decoded, by one who follows the same agreement.
    private func checkRoundTrip(_ bytes: [UInt8]) {
        let pool = WebSocketDeflatePool(configuration)
        var encoder = WebSocketEncoder(deflate: agreement, pool: pool)
        var mirrored = agreement
        if let agreement {
            mirrored?.clientForgets = agreement.serverForgets
            mirrored?.clientWindowBits = agreement.serverWindowBits
        }
        var decoder = WebSocketDecoder(
            from: .server, limits: WebSocketLimits(messageBytesMax: 1 << 20), deflate: mirrored,
            pool: pool)
        for message in [bytes, Array(bytes.reversed()), [], bytes] {
            let sent = WebSocketMessage(binary: message)
            let frame = encoder.message(sent)
            var consumed = 0
            frame.withUnsafeBytes { input in
                do throws(WebSocketError) {
                    guard
                        case .message(let received) = try decoder.next(input, consumed: &consumed)
                    else { preconditionFailure("no message came of a message") }
                    precondition(received == sent, "another message")
                } catch {
                    preconditionFailure("what was encoded is refused: \(error)")
                }
            }
            precondition(consumed == frame.count, "a frame and more")
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
