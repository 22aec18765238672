import HCCore
import Testing

@testable import HCControl

@Suite struct TenantOriginsTests {
    private func origins(_ texts: [String]) throws -> [WebOrigin] {
        try texts.map { try WebOrigin(written: $0) }
    }

    @Test("a list is changed as a set: what is there is passed over, its order is its own")
    func change() throws {
        let present = ["https://b.example", "https://c.example"]
        let change = try TenantOrigins.change(
            present, allow: origins(["https://c.example", "HTTPS://A.example:443"]),
            remove: origins(["https://b.example", "https://z.example"]))
        #expect(change.after == ["https://a.example", "https://c.example"])
        #expect(change.added == ["https://a.example"])
        #expect(change.removed == ["https://b.example"])
        let nothing = try TenantOrigins.change(present, allow: [], remove: [])
        #expect(nothing.after == present)
        #expect(nothing.added.isEmpty && nothing.removed.isEmpty)
    }

    @Test("an origin cannot be allowed and removed at once, nor can there be too many")
    func refusals() throws {
        let both = try origins(["https://a.example"])
        let contradiction = #expect(throws: ControlError.self) {
            try TenantOrigins.change([], allow: both, remove: both)
        }
        #expect(contradiction?.kind == .invalid)
        let many = (0..<TenantOrigins.countMax).map { "https://a\($0).example" }
        #expect(try TenantOrigins.change(many, allow: [], remove: []).after.count == 32)
        let excess = #expect(throws: ControlError.self) {
            try TenantOrigins.change(many, allow: origins(["https://one.more"]), remove: [])
        }
        #expect(excess?.code == "too-many-origins")
        // One goes, one comes.
        #expect(
            try TenantOrigins.change(
                many, allow: origins(["https://one.more"]), remove: origins(["https://a0.example"])
            ).after.count == 32)
    }
}
