import HCCore
import HCCrypto

/// A request as it goes to one URL: the first, or one that a redirect named.
struct OutboundHop {
    private(set) var url: OutboundURL
    private(set) var method: HTTPMethod
    private(set) var headers: HTTPHeaders
    private(set) var content: OutboundRequest.Content
    private(set) var signature: SignatureV4?

    init(_ request: OutboundRequest) throws(HTTPClientError) {
        for name in OutboundRequest.reserved where request.headers.contains(name) {
            throw .invalidHeader(name.text)
        }
        do throws(OutboundURL.Refusal) {
            url = try OutboundURL(request.url)
        } catch {
            throw .invalidURL(error)
        }
        method = request.method
        headers = request.headers
        content = request.content
        signature = request.signature
    }

    var isRepeatable: Bool { method.isIdempotent || headers.contains(.idempotencyKey) }

    func payload() throws(CryptoError) -> SignatureV4.Payload {
        switch content {
        case .none: .empty
        case .bytes(let bytes): .digest(try SHA256.hash(bytes))
        case .stream: .unsigned
        }
    }

    // MARK: Redirects

    /// Where an answer sends its client, nil if it does not.
    static func location(of head: OutboundHead) -> String? {
        switch head.status.code {
        case 301, 302, 303, 307, 308: head.headers[.location]
        default: nil
        }
    }

    /// What goes to another origin: nothing that could be a credential.
    private static let harmless: [HTTPFieldName] = [
        .accept, .acceptEncoding, .acceptLanguage, .contentType, .idempotencyKey, .range,
    ]

    /// The next hop (RFC 9110 15.4): 303 asks for GET, 301 and 302 in practice too after POST.
    func following(
        _ location: String, _ status: HTTPStatus
    ) throws(HTTPClientError) -> OutboundHop {
        var next = self
        do throws(OutboundURL.Refusal) {
            next.url = try url.resolving(location: location)
        } catch {
            throw .redirect(.location(error))
        }
        guard url.scheme == .http || next.url.scheme == .https else { throw .redirect(.downgrade) }
        let becomesGet =
            status.code == 303 ? method != .head : status.code <= 302 && method == .post
        if becomesGet {
            next.method = .get
            next.content = .none
            for name in [HTTPFieldName.contentType, .contentEncoding, .contentLanguage] {
                next.headers.remove(name)
            }
        }
        if next.url.origin != url.origin {
            next.signature = nil
            var kept = HTTPHeaders()
            for name in Self.harmless {
                for value in next.headers.values(name) { kept.append(name, value) }
            }
            next.headers = kept
        }
        return next
    }
}
