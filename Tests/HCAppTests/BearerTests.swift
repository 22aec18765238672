import HCHTTP
import Testing

@testable import HCApp

@Suite struct BearerTests {
    private func bearer(_ headers: HTTPHeaders) -> String? {
        AccessMiddleware.withBearer(headers) { String(decoding: $0, as: UTF8.self) }
    }

    @Test(
        "the token is what follows the scheme, in whatever case that is written",
        arguments: ["Bearer a.b-c", "bearer a.b-c", "BEARER   a.b-c"])
    func token(_ field: String) {
        #expect(bearer(HTTPHeaders([(.authorization, field)])) == "a.b-c")
    }

    @Test(
        "what is no token is none",
        arguments: [
            "", "Bearer", "Bearer ", "Basic a", "Bearera", "Beare a", "Bearers a", "Bearer a b",
            "Bearer\ta", " Bearer", "\u{2}earer a",
        ])
    func none(_ field: String) {
        #expect(bearer(HTTPHeaders([(.authorization, field)])) == nil)
    }

    @Test("two fields are none: which of them would count is anybody's guess")
    func two() {
        let fields = HTTPHeaders([(.authorization, "Bearer a"), (.authorization, "Bearer a")])
        #expect(bearer(fields) == nil)
    }
}
