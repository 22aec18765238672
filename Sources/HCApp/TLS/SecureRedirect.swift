import HCHTTP
import HCIO
import HCTenancy

/// In the production profile nothing is served without TLS: a request for one of our hosts is told to come again by
/// https (308 keeps method and content, RFC 9110 15.4.9), any other gets what an unknown host gets.
@LoopActor
final class SecureRedirect: HTTPResponder {
    private let inner: any HTTPResponder
    private let baseDomain: String
    private let port: Int
    /// Whether a clinic answers at this host.
    private let isKnown: @LoopActor (String) -> Bool

    init(
        _ inner: any HTTPResponder, baseDomain: String, port: Int,
        isKnown: @escaping @LoopActor (String) -> Bool
    ) {
        self.inner = inner
        self.baseDomain = baseDomain
        self.port = port
        self.isKnown = isKnown
    }

    func answer(_ request: HTTPRequest) -> HTTPAnswer {
        request.isSecure ? inner.answer(request) : .ready(redirect(request))
    }

    private func redirect(_ request: HTTPRequest) -> HTTPResponse {
        guard request.host == baseDomain || isLabel(request.host) || isKnown(request.host) else {
            return Problem.notFound.response(for: request.id)
        }
        var response = HTTPResponse(HTTPStatus.permanentRedirect)
        response.headers.append(.location, location(of: request))
        return response
    }

    /// One label before the base domain: the shape of a clinic's host, whether there is such a clinic or not.
    private func isLabel(_ host: String) -> Bool {
        guard host.hasSuffix("." + baseDomain) else { return false }
        return !host.dropLast(baseDomain.count + 1).contains(".")
    }

    private func location(of request: HTTPRequest) -> String {
        let authority = port == 443 ? request.host : "\(request.host):\(port)"
        let path = request.target.isAsterisk ? "/" : request.path
        let query = request.target.rawQuery.map { "?" + $0 } ?? ""
        return "https://\(authority)\(path)\(query)"
    }
}
