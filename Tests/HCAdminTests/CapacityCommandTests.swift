import HCCore
import HCIO
import HCTesting
import Testing

@testable import HCAdmin

@Suite(.onLoop) @LoopActor struct CapacityCommandTests {
    private func pods(_ host: String, _ words: [String] = []) throws -> JSONValue? {
        let invocation = try Invocation(
            Capacity.specification, words: ["--host", host] + words)
        return try Capacity().pods(of: host, invocation).json["pods"]
    }

    @Test("the pods of a host do not depend on how it is written")
    func host() throws {
        let chosen = try pods("sunrise.api.example.org", ["--pod", "a,b,c"])
        #expect(try pods("Sunrise.API.example.org", ["--pod", "c,a,b"]) == chosen)
    }

    @Test(
        "what is no host has no pods",
        arguments: ["", " ", "a b", "sunrise.localhost:8080", "https://a", "a..b", ".a", "a."])
    func noHost(_ host: String) {
        #expect(throws: UsageError.self) { try pods(host) }
    }

    @Test("a pod is named once")
    func names() {
        #expect(throws: UsageError.self) { try pods("a.b", ["--pod", "a,b,a"]) }
    }
}
