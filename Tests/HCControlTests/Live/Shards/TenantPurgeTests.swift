import HCCore
import HCIO
import HCPostgres
import HCTenancy
import HCTesting
import Testing

@testable import HCControl

@Suite("Removing a clinic's rows", .serialized, .onLoop)
@LoopActor
struct TenantPurgeTests {
    @Test(
        "all of them go, the neighbour's stay, and before it is said that nothing is left the disk is waited for"
    )
    func durable() async throws {
        try await withMoveGround(patients: 1_000) { ground in
            let shard = ground.shards[0]
            // Each batch comes by all tables that it has not done with; `practitioner` is where most rows are.
            try await ground.psql(
                shard.superuser,
                """
                CREATE TABLE public.batch (
                    number bigint GENERATED ALWAYS AS IDENTITY, is_durable boolean, leaves bigint);
                CREATE FUNCTION public.note_batch() RETURNS trigger LANGUAGE plpgsql SECURITY DEFINER AS $$
                BEGIN
                    INSERT INTO public.batch (is_durable, leaves) SELECT
                        current_setting('synchronous_commit') = 'on',
                        (SELECT count(*) FROM public.practitioner
                         WHERE tenant_id = '\(MoveGround.sunrise)');
                    RETURN NULL;
                END $$;
                CREATE TRIGGER note AFTER DELETE ON public.practitioner
                    FOR EACH STATEMENT EXECUTE FUNCTION public.note_batch();
                SET session_replication_role = replica;
                UPDATE hc_tenant SET state = 'moved' WHERE tenant_id = '\(MoveGround.sunrise)';
                """)
            func rows(of tenant: TenantID) async throws -> Int {
                try await Int(
                    ground.psql(
                        shard.superuser,
                        "SELECT count(*) FROM practitioner WHERE tenant_id = '\(tenant)'")) ?? -1
            }
            let neighbours = try await rows(of: MoveGround.lakeside)
            #expect(try await rows(of: MoveGround.sunrise) == 1_000 && neighbours > 0)
            let plane = ground.plane()
            var told: [Int] = []
            try await TenantPurge(plane: plane, tenant: MoveGround.sunrise, attempt: nil).run(
                on: plane.shard(reference: "s1", .mover), progress: { told.append($0) })
            #expect(try await rows(of: MoveGround.sunrise) == 0)
            #expect(try await rows(of: MoveGround.lakeside) == neighbours)
            #expect(told == told.sorted() && told.count > 1)
            let batches = try await ground.psql(
                shard.superuser,
                "SELECT is_durable, leaves FROM batch ORDER BY number"
            ).split(separator: "\n")
            #expect(batches.contains { $0.hasPrefix("f|") }, "\(batches)")
            #expect(batches.last == "t|0", "\(batches)")
        }
    }
}
