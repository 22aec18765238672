import HCCore
import HCIO
import HCPostgres
import HCTesting
import Testing

@testable import HCTenancy

@Suite("The map follows the control database", .onLoop)
@LoopActor
struct DirectoryTests {
    /// Waits for the next change of the map, while `cause` makes it.
    private func change(
        of directory: DirectoryFollower, within deadline: Deadline,
        by cause: () async throws -> Void
    ) async throws -> [TenantID] {
        let news = Waiter<[TenantID]>()
        directory.onChange.append { changed, _ in news.succeed(changed) }
        try await cause()
        return try await news.wait(until: deadline)
    }

    @Test("a change arrives with its NOTIFY, before any poll is due")
    func notified() async throws {
        let ground = try await LivePlatform.makeGround()
        let platform = try await LivePlatform.make(ground)
        // Polls so rarely that only the notification can have brought it.
        var configuration = DirectoryConfiguration(applicationName: "test", file: nil) {
            Sensitive("\(ground.control.router)")
        }
        configuration.pollInterval = .seconds(600)
        let directory = DirectoryFollower(
            configuration, clocks: .system, logger: .silent, metrics: platform.metrics,
            blocking: fixtureThreads)
        _ = try await directory.load(deadline: platform.deadline)
        let service = Loop.shared.spawn { try? await directory.run() }
        defer { service.cancel() }
        let changed = try await change(of: directory, within: platform.deadline) {
            try await platform.psql(
                platform.control.admin,
                "UPDATE tenant SET name = 'Sunrise II' WHERE slug = 'sunrise'")
        }
        #expect(changed == [LivePlatform.sunrise])
        #expect(directory.snapshot?.find(LivePlatform.sunrise)?.name == "Sunrise II")
    }

    @Test("a changed tier, a new host, a new clinic and one that is gone are seen")
    func changes() async throws {
        let platform = try await LivePlatform.make()
        let directory = platform.directory
        try await platform.psql(
            platform.control.admin,
            """
            UPDATE tier SET definition = '{"name":"basic","unitsPerSecond":7,"burstUnits":700}';
            INSERT INTO domain (host, tenant_id, kind, verified_at)
            VALUES ('www.sunrise.example', '\(LivePlatform.sunrise)', 'custom', now());
            UPDATE tenant SET state = 'deleted', deleted_at = now() WHERE slug = 'hillview';
            """)
        try await directory.refresh(deadline: platform.deadline)
        let map = try #require(directory.snapshot)
        #expect(map.findTier("basic")?.rates.first?.units == 7)
        #expect(try platform.context(LivePlatform.sunrise).tier.rates.first?.units == 7)
        #expect(map.find(host: "www.sunrise.example")?.id == LivePlatform.sunrise)
        #expect(map.find(LivePlatform.hillview) == nil)
        #expect(map.find(host: "hillview.localhost") == nil)
        #expect(platform.metrics.directoryReloads.value == 1, "the first load only")
    }

    @Test(
        "everything is read page by page, whatever the length of a page", arguments: [1, 2, 3, 4])
    func pages(length: Int) async throws {
        let ground = try await LivePlatform.makeGround()
        let platform = try await LivePlatform.make(ground)
        var configuration = DirectoryConfiguration(applicationName: "test", file: nil) {
            Sensitive("\(ground.control.router)")
        }
        configuration.pageLength = length
        let directory = DirectoryFollower(
            configuration, clocks: .system, logger: .silent, metrics: platform.metrics,
            blocking: fixtureThreads)
        _ = try await directory.load(deadline: platform.deadline)
        let map = try #require(directory.snapshot)
        #expect(map.tenantCount == 3)
        #expect(map.differences(from: try #require(platform.directory.snapshot)) == [])
    }

    @Test("a reload tells of the clinics that differ, not of all")
    func reloadTells() async throws {
        let platform = try await LivePlatform.make()
        try await platform.psql(
            platform.control.superuser,
            """
            UPDATE tenant SET name = 'Cut' WHERE slug = 'sunrise';
            UPDATE tenant SET state = 'deleted', deleted_at = now() WHERE slug = 'hillview';
            DELETE FROM placement_log;
            """)
        let changed = try await change(of: platform.directory, within: platform.deadline) {
            try await platform.directory.refresh(deadline: platform.deadline)
        }
        #expect(Set(changed) == [LivePlatform.sunrise, LivePlatform.hillview])
    }

    @Test("a change is added to the file, and a restarted worker has it")
    func changesAreSaved() async throws {
        let path = try TemporaryFile.path("directory.last-good")
        defer {
            TemporaryFile.remove("\(path).lock")
            TemporaryFile.remove(path)
        }
        let ground = try await LivePlatform.makeGround()
        let before = try await LivePlatform.make(ground, file: path)
        await before.directory.save(deadline: before.deadline)
        let length = try #require(try DirectoryFile.state(of: path, verified: true)).mapLength
        try await before.psql(
            before.control.admin,
            """
            UPDATE tenant SET name = 'Later' WHERE slug = 'sunrise';
            UPDATE tenant SET state = 'deleted', deleted_at = now() WHERE slug = 'hillview';
            UPDATE tier SET definition = '{"name":"basic","unitsPerSecond":7,"burstUnits":700}';
            """)
        try await before.directory.refresh(deadline: before.deadline)
        await before.directory.save(deadline: before.deadline)
        let state = try #require(try DirectoryFile.state(of: path, verified: true))
        #expect(state.mapLength == length && state.end > length, "the map is not written again")
        let after = try await LivePlatform.make(ground, file: path, load: false)
        after.controlIsDown.set(true)
        #expect(try await after.directory.load(deadline: after.deadline) == .file)
        let map = try #require(after.directory.snapshot)
        #expect(map.find(LivePlatform.sunrise)?.name == "Later")
        #expect(map.find(LivePlatform.hillview) == nil)
        #expect(map.findTier("basic")?.rates.first?.units == 7)
    }

    @Test("how late a change was is counted, by the database's clock")
    func lateness() async throws {
        let platform = try await LivePlatform.make()
        try await platform.psql(
            platform.control.admin,
            "UPDATE tenant SET name = 'A' WHERE slug = 'sunrise'; UPDATE tenant SET name = 'B' WHERE slug = 'sunrise'"
        )
        try await platform.directory.refresh(deadline: platform.deadline)
        #expect(platform.metrics.directoryChange.value.count == 2)
    }

    @Test("when the log was cut, or the control database restored, everything is read anew")
    func reloads() async throws {
        let platform = try await LivePlatform.make()
        try await platform.psql(
            platform.control.superuser,
            """
            UPDATE tenant SET name = 'Cut' WHERE slug = 'sunrise';
            DELETE FROM placement_log;
            """)
        try await platform.directory.refresh(deadline: platform.deadline)
        #expect(platform.directory.snapshot?.find(LivePlatform.sunrise)?.name == "Cut")
        #expect(platform.metrics.directoryReloads.value == 2)
        try await platform.psql(
            platform.control.superuser,
            """
            SET session_replication_role = replica;
            UPDATE tenant SET name = 'Restored' WHERE slug = 'sunrise';
            UPDATE placement_version SET version = 1;
            """)
        try await platform.directory.refresh(deadline: platform.deadline)
        #expect(platform.directory.snapshot?.find(LivePlatform.sunrise)?.name == "Restored")
        #expect(platform.directory.snapshot?.version == 1)
    }

    @Test(
        "a restarted worker serves from the last good map, and catches up when the control database is back"
    )
    func lastGood() async throws {
        let path = try TemporaryFile.path("directory.last-good")
        defer {
            TemporaryFile.remove("\(path).lock")
            TemporaryFile.remove(path)
        }
        let ground = try await LivePlatform.makeGround()
        let before = try await LivePlatform.make(ground, file: path)
        await before.directory.save(deadline: before.deadline)

        let after = try await LivePlatform.make(ground, file: path, load: false)
        after.controlIsDown.set(true)
        #expect(try await after.directory.load(deadline: after.deadline) == .file)
        #expect(try after.door.context(host: "sunrise.localhost").id == LivePlatform.sunrise)
        try await after.context(LivePlatform.sunrise).write(
            [LivePlatform.addPractitioner("Dr Dark", to: LivePlatform.sunrise)],
            audit: [LivePlatform.event("create")], deadline: after.deadline)
        #expect(try await after.names(LivePlatform.sunrise) == ["Dr Dark"])
        await #expect(throws: TenancyError.directoryUnavailable(retryAfter: .seconds(1))) {
            try await after.directory.refresh(deadline: after.deadline)
        }
        // Unknown stays unknown: nothing is guessed.
        #expect(throws: TenancyError.tenantUnknown) {
            try after.door.context(host: "new.localhost")
        }

        try await after.psql(
            after.control.admin, "UPDATE tenant SET name = 'Later' WHERE slug = 'sunrise'")
        after.controlIsDown.set(false)
        try await after.directory.refresh(deadline: after.deadline)
        #expect(after.directory.origin == .control)
        #expect(after.directory.snapshot?.find(LivePlatform.sunrise)?.name == "Later")
        #expect(after.metrics.directoryReloads.value == 0, "it caught up line by line")
    }

    @Test("without control database and file there is no map, and nobody is served")
    func nothing() async throws {
        let platform = try await LivePlatform.make(load: false)
        platform.controlIsDown.set(true)
        await #expect(throws: TenancyError.directoryUnavailable(retryAfter: .seconds(1))) {
            try await platform.directory.load(deadline: platform.deadline)
        }
        #expect(throws: TenancyError.directoryUnavailable(retryAfter: .seconds(1))) {
            try platform.door.context(host: "sunrise.localhost")
        }
    }

    @Test("the follower comes back by itself when its connection is cut")
    func reconnects() async throws {
        let platform = try await LivePlatform.make()
        let service = Loop.shared.spawn { try? await platform.directory.run() }
        defer { service.cancel() }
        let changed = try await change(of: platform.directory, within: platform.deadline) {
            try await platform.psql(
                platform.control.superuser,
                """
                SELECT pg_terminate_backend(pid) FROM pg_stat_activity
                WHERE datname = '\(platform.control.database.name)' AND usename = 'hc_router'
                """)
            try await platform.psql(
                platform.control.admin, "UPDATE tenant SET name = 'Back' WHERE slug = 'sunrise'")
        }
        #expect(changed == [LivePlatform.sunrise])
    }
}
