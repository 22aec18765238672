/// What a server does about permessage-deflate (RFC 7692).
package struct WebSocketDeflateConfiguration: Sendable {
    /// 1 to 9.
    package var level = 6
    /// Whether each side may refer back to earlier messages. It compresses small messages better, and then an idle
    /// socket holds the state of both directions (see `bytesPerSocket`). Without it nothing is held between
    /// messages: all sockets of a worker share one compressor.
    package var keepsContext = false
    /// The largest window of our compressor, 9 to 15, as a power of two.
    package var windowBits = 15
    /// zlib's memLevel, 1 to 9.
    package var memoryLevel = 8
    /// Smaller messages are sent as they are: they would hardly shrink.
    package var messageBytesMin = 128
    /// Larger messages are sent as they are, for the loop serves nobody else while it compresses.
    package var messageBytesMax = 1 << 20

    package init() {}

    /// What an idle socket holds for compression (zconf.h): both directions where context is kept, else nothing.
    package var bytesPerSocket: Int {
        guard keepsContext else { return 0 }
        let deflate = 1 << (windowBits + 2) + 1 << (memoryLevel + 9)
        return deflate + 1 << WebSocketInflater.windowBits + 7 << 10
    }

    func problems() -> [String] {
        var found: [String] = []
        func check(_ holds: Bool, _ text: String) { if !holds { found.append(text) } }
        check((1...9).contains(level), "deflate.level: must be 1 to 9")
        check((9...15).contains(windowBits), "deflate.windowBits: must be 9 to 15")
        check((1...9).contains(memoryLevel), "deflate.memoryLevel: must be 1 to 9")
        check(messageBytesMin >= 0, "deflate.messageBytesMin: must not be negative")
        check(
            messageBytesMax >= messageBytesMin,
            "deflate.messageBytesMax: must not be below messageBytesMin")
        return found
    }
}

/// What client and server agreed on.
package struct WebSocketDeflateAgreement: Sendable, Equatable {
    /// Whether we forget after each message.
    package var serverForgets: Bool
    /// Whether the client does.
    package var clientForgets: Bool
    package var serverWindowBits: Int
    package var clientWindowBits: Int
    /// Whether the client said that it knows `client_max_window_bits`: only then may it be told a number.
    var clientTakesBits: Bool
    /// Whether it asked for `server_max_window_bits`, which is accepted by an answer with a number, also if that is
    /// the largest there is (RFC 7692 7.1.2.1).
    var clientAsksForBits = false

    static let extensionName = "permessage-deflate"

    /// Chooses the first offer that can be kept (RFC 7692 5.1, 7.1). An offer with a parameter that is unknown,
    /// repeated or has an impossible value is declined, and so is one for a window of 256 bytes, which zlib does
    /// not make.
    package static func choose(
        _ offers: [WebSocketExtensionOffer], _ configuration: WebSocketDeflateConfiguration
    ) -> WebSocketDeflateAgreement? {
        for offer in offers where offer.name.lowercased() == extensionName {
            if let agreement = agree(offer, configuration) { return agreement }
        }
        return nil
    }

    private static func agree(
        _ offer: WebSocketExtensionOffer, _ configuration: WebSocketDeflateConfiguration
    ) -> WebSocketDeflateAgreement? {
        var agreement = WebSocketDeflateAgreement(
            serverForgets: !configuration.keepsContext, clientForgets: !configuration.keepsContext,
            serverWindowBits: configuration.windowBits, clientWindowBits: 15,
            clientTakesBits: false)
        var seen: Set<String> = []
        for parameter in offer.parameters {
            guard seen.insert(parameter.name).inserted else { return nil }
            switch (parameter.name, parameter.value) {
            case ("server_no_context_takeover", nil): agreement.serverForgets = true
            case ("client_no_context_takeover", nil): agreement.clientForgets = true
            case ("server_max_window_bits", let value?):
                guard let bits = windowBits(value), bits > 8 else { return nil }
                agreement.clientAsksForBits = true
                agreement.serverWindowBits = min(bits, configuration.windowBits)
            case ("client_max_window_bits", nil):
                agreement.clientTakesBits = true
            case ("client_max_window_bits", let value?):
                guard let bits = windowBits(value) else { return nil }
                agreement.clientTakesBits = true
                agreement.clientWindowBits = bits
            default: return nil
            }
        }
        return agreement
    }

    /// 8 to 15 in decimal, without leading zeros (RFC 7692 7.1.2).
    private static func windowBits(_ text: String) -> Int? {
        guard text.utf8.allSatisfy(ByteClass.isDigit), text.utf8.first != 0x30,
            let bits = Int(text), (8...15).contains(bits)
        else { return nil }
        return bits
    }

    /// The field that accepts it.
    package var fieldValue: String {
        var text = WebSocketDeflateAgreement.extensionName
        if serverForgets { text += "; server_no_context_takeover" }
        if clientForgets { text += "; client_no_context_takeover" }
        if serverWindowBits < 15 || clientAsksForBits {
            text += "; server_max_window_bits=\(serverWindowBits)"
        }
        if clientTakesBits, clientWindowBits < 15 {
            text += "; client_max_window_bits=\(clientWindowBits)"
        }
        return text
    }
}
