import HCCore
import HCIO
import HCTesting
import Testing

@testable import HCControl

@Suite("Schemas that were changed by hand are found", .onLoop)
@LoopActor
struct SchemaDriftTests {
    @Test("what most shards do not have is named, and so is what one lacks")
    func named() async throws {
        try await withWaveGround(shards: 5) { ground in
            let clean = try await SchemaDrift(plane: ground.plane()).run()
            #expect(clean.count == 5 && clean.allSatisfy { !$0.isDifferent && $0.problem == nil })
            // The first is no better than the others.
            try await ground.psql(
                ground.shards[0].owner, "CREATE INDEX by_hand ON cache_tag (tenant_id)")
            try await ground.psql(
                ground.shards[3].superuser, "REVOKE ALL ON cache_tag FROM hc_app")
            try ground.takeDown(5)
            let lines = try await SchemaDrift(plane: ground.plane()).run()
            #expect(lines.map(\.isDifferent) == [true, false, false, true, false])
            #expect(lines[0].extra.count == 1 && lines[0].missing.isEmpty)
            #expect(lines[0].extra.first?.contains("CREATE INDEX by_hand ON") == true)
            #expect(lines[3].extra.isEmpty && !lines[3].missing.isEmpty)
            #expect(lines[3].missing.allSatisfy { $0.hasPrefix("grant cache_tag ") })
            #expect(lines[4].problem?.contains("s05") == true)
        }
    }
}
