package import HCCore
package import HCIO
import HCPostgres

/// How the map is kept up to date.
package struct DirectoryConfiguration: Sendable {
    /// Connection string of the control database, read for every connection: passwords change.
    package var conninfo: @Sendable () throws -> Sensitive<String>
    package var applicationName: String
    /// The last good map on disk; nil for programs that do not serve.
    package var file: String?
    package var pollInterval = Duration.seconds(1)
    /// For one poll, connecting included; when everything is read, for each page of it.
    package var pollTimeout = Duration.seconds(5)
    /// For the first reading of everything, at the start.
    package var loadTimeout = Duration.seconds(60)
    /// Between two savings of the map.
    package var saveInterval = Duration.seconds(1)
    /// Clinics that one query reads when everything is read: a few milliseconds of the loop.
    package var pageLength = 1000
    /// Requests that wait for the same refresh.
    package var waitersMax = 4096
    /// Which schemas of the control database this program works with.
    package var schemas = SchemaRange.control
    /// For programs that stay: what they report of themselves, and how often.
    package var report: (@LoopActor () -> ProcessReport)?
    package var reportInterval = Duration.seconds(5)

    package init(
        applicationName: String, file: String?,
        conninfo: @escaping @Sendable () throws -> Sensitive<String>
    ) {
        self.applicationName = applicationName
        self.file = file
        self.conninfo = conninfo
    }
}

/// Keeps the map of all clinics: reads it at the start, follows the control database's log, and serves the last
/// good one from disk when there is no control database.
///
/// NOTIFY is a hint and the poll is the truth. Being late is harmless: the shard itself refuses whoever comes
/// with an old epoch, and a refusal makes the map be read at once, once for all who wait (`refresh`).
@LoopActor
package final class DirectoryFollower: Service {
    package enum Origin: String, Sendable {
        case control
        case file
    }

    private let configuration: DirectoryConfiguration
    private let clocks: Clocks
    private let logger: Logger
    private let metrics: TenancyMetrics
    private let blocking: BlockingPool

    /// The map; nil until `load`, or the first poll, has brought one.
    package private(set) var snapshot: DirectorySnapshot?
    /// Where the present map came from.
    package private(set) var origin: Origin?
    /// When the control database last confirmed the map.
    package private(set) var confirmedAt: MonotonicTime?
    /// Why the control database is not read, though it answers.
    package private(set) var refusal: SchemaRefusal?
    private var reportedAt: MonotonicTime?

    /// Called with the clinics that changed, after the map has; with all of them after the first reading.
    var onChange: [@LoopActor (_ changed: [TenantID], DirectorySnapshot) -> Void] = []

    /// Polls begun since the start.
    private(set) var pollCount = 0
    private var connection: PostgresConnection?
    private var source = ""
    private var isPolling = false
    /// While everything is being read.
    private var isReloading = false
    /// Those who wait for a poll that begins from now on.
    private var waiters: [Waiter<Void>] = []
    /// Ends the pause between two polls.
    private var pause: Waiter<Void>?
    private var wantsPoll = false
    private var savedVersion: Int64 = -1
    private var savedAt: MonotonicTime?
    private var isSaving = false
    private var recent = RecentChanges(from: 0)
    /// Whether the contents of the file were compared with their checksums.
    private var fileIsVerified = false
    /// Whether the control database has gone back since the file was written: then a newer file is none.
    private var fileIsOfOtherLog = false

    package init(
        _ configuration: DirectoryConfiguration, clocks: Clocks, logger: Logger,
        metrics: TenancyMetrics, blocking: BlockingPool
    ) {
        self.configuration = configuration
        self.clocks = clocks
        self.logger = logger
        self.metrics = metrics
        self.blocking = blocking
    }

    // MARK: Loading

    /// Gets the first map: from the control database, or, if that cannot be had before `deadline`, from disk.
    ///
    /// - Throws: `.directoryUnavailable` if there is neither.
    package func load(deadline: Deadline) async throws(TenancyError) -> Origin {
        do {
            try await refresh(deadline: deadline)
            return .control
        } catch {
            // It answers, and there is much to read: that is worth waiting for.
            if error == .deadlineExceeded, isReloading,
                await isRefreshed(by: .after(configuration.loadTimeout, from: Loop.now))
            {
                return .control
            }
            logger.warning("the control database cannot be read; looking for the last good map")
        }
        guard let file = configuration.file else {
            throw .directoryUnavailable(retryAfter: .seconds(1))
        }
        let startedAt = clocks.monotonic()
        do {
            // Its own time: the deadline went to the control database.
            let snapshot = try await blocking.run(
                deadline: .after(.seconds(30), from: clocks.monotonic())
            ) {
                try DirectoryFile.read(file)
            }
            // A poll may have succeeded while the file was read.
            guard self.snapshot == nil else { return .control }
            install(snapshot, from: .file)
            savedVersion = snapshot.version
            logger.warning(
                "serving from the last good map",
                [
                    ("version", .integer(snapshot.version)),
                    ("clinics", .integer(snapshot.tenantCount)),
                    ("milliseconds", .integer(milliseconds(since: startedAt))),
                ])
            return .file
        } catch {
            logger.error("there is no last good map", [("reason", .string("\(error)"))])
            throw .directoryUnavailable(retryAfter: .seconds(1))
        }
    }

    private func isRefreshed(by deadline: Deadline) async -> Bool {
        do {
            try await refresh(deadline: deadline)
            return true
        } catch {
            return false
        }
    }

    package var serviceName: String { "directory" }

    /// Gets the first map, unless there is one.
    package func prepare() async throws {
        guard snapshot == nil else { return }
        _ = try await load(deadline: .after(configuration.loadTimeout, from: Loop.now))
    }

    private func milliseconds(since start: MonotonicTime) -> Int64 {
        (clocks.monotonic() - start).inMilliseconds
    }

    // MARK: Following

    /// Follows the log until the task is cancelled.
    package func run() async throws {
        var random = SystemRandomNumberGenerator()
        var backoff = Backoff(initial: .milliseconds(100), maximum: configuration.pollInterval * 2)
        defer { disconnect() }
        while !Task.isCancelled {
            var wait = configuration.pollInterval
            do throws(TenancyError) {
                wantsPoll = false
                try await refresh(
                    deadline: .after(configuration.pollTimeout * 2, from: Loop.now))
                backoff.reset()
            } catch {
                if error == .cancelled { break }
                wait = backoff.next(using: &random)
            }
            reportAge()
            startSaving()
            if wantsPoll { continue }
            let pause = Waiter<Void>()
            self.pause = pause
            defer { self.pause = nil }
            do {
                try await pause.wait(until: .after(wait, from: Loop.now))
            } catch is DeadlineExceeded {
                continue
            }
        }
    }

    /// Makes the map at least as new as the moment of this call. All who call while a poll is under way share
    /// the next one.
    ///
    /// - Throws: `.directoryUnavailable` if the control database does not answer, `.overloaded` if too many wait,
    ///   `.deadlineExceeded`, `.cancelled`.
    package func refresh(deadline: Deadline) async throws(TenancyError) {
        guard waiters.count < configuration.waitersMax else {
            throw .overloaded(retryAfter: .seconds(1))
        }
        let waiter = Waiter<Void>()
        waiters.append(waiter)
        if !isPolling { startPoll() }
        do {
            try await waiter.wait(until: deadline)
        } catch let error as TenancyError {
            throw error
        } catch is DeadlineExceeded {
            throw .deadlineExceeded
        } catch {
            throw .cancelled
        }
    }

    /// Something has happened: poll soon.
    private func hint() {
        wantsPoll = true
        pause?.succeed(())
    }

    private func startPoll() {
        isPolling = true
        pollCount += 1
        let joined = waiters
        waiters = []
        Loop.shared.spawn { [self] in
            let isDone = await poll()
            for waiter in joined {
                if isDone {
                    waiter.succeed(())
                } else {
                    waiter.fail(TenancyError.directoryUnavailable(retryAfter: .seconds(1)))
                }
            }
            isPolling = false
            if !waiters.isEmpty { startPoll() }
        }
    }

    /// - Returns: false if the control database could not be asked.
    private func poll() async -> Bool {
        let deadline = Deadline.after(configuration.pollTimeout, from: Loop.now)
        do {
            let connection = try await connected(deadline: deadline)
            try await follow(
                DirectoryReader(connection: connection, clocks: clocks, logger: logger),
                deadline: deadline)
            confirmedAt = Loop.now
            await reportIfDue(connection, deadline: deadline)
            return true
        } catch {
            metrics.directoryFailures.increment()
            logger.warning("the map cannot be confirmed", [("reason", .string("\(error)"))])
            // A connection whose state is in doubt is not worth keeping.
            disconnect()
            return false
        }
    }

    private func follow(_ reader: DirectoryReader, deadline: Deadline) async throws {
        var reader = reader
        while true {
            guard let (version, mapSource) = snapshot.map({ ($0.version, $0.source) }) else {
                return try await reload(reader, .nothingLoaded, deadline: deadline)
            }
            let news = try await reader.news(after: version, source: source, deadline: deadline)
            try judge(news.schema)
            let feed = news.feed
            metrics.directoryLag.set(Int(max(0, feed.version - version)))
            switch FollowerMachine.next(after: version, source: mapSource, feed: feed) {
            case .nothing:
                origin = .control
                return
            case .readEverything(let reason):
                return try await reload(reader, reason, deadline: deadline)
            case .read(let reading):
                let parts = try await reader.parts(reading, deadline: deadline)
                apply(reading, parts)
                let since = clocks.monotonic() - news.readAt
                for age in news.ages {
                    metrics.directoryChange.observe((age + since).inNanoseconds)
                }
                if !reading.isPartial { return }
            }
        }
    }

    private func reload(
        _ reader: DirectoryReader, _ reason: FollowerMachine.Reason, deadline: Deadline
    ) async throws {
        let startedAt = clocks.monotonic()
        var reader = reader
        var fresh = try await reader.beginning(source: source, deadline: deadline)
        isReloading = true
        defer { isReloading = false }
        var last: UUID?
        // Between two pages the loop serves requests.
        repeat {
            let page = try await reader.page(
                after: last, length: configuration.pageLength,
                deadline: .after(configuration.pollTimeout, from: Loop.now))
            fresh.add(page.tenants)
            last = page.next
        } while last != nil
        metrics.directoryReloads.increment()
        logger.notice(
            "the whole map was read",
            [
                ("reason", .string(reason.rawValue)), ("version", .integer(fresh.version)),
                ("clinics", .integer(fresh.tenantCount)),
                ("milliseconds", .integer(milliseconds(since: startedAt))),
            ])
        // Another log may have lower versions: what is on disk is then older all the same.
        if reason == .otherLog { (savedVersion, fileIsOfOtherLog) = (-1, true) }
        install(fresh, from: .control)
    }

    private func apply(_ reading: FollowerMachine.Reading, _ parts: DirectoryReader.Parts) {
        guard var map = snapshot else { return }
        // The table is changed in place: nobody else may hold it now.
        snapshot = nil
        let changed = map.apply(
            version: reading.version, asked: reading.tenants, found: parts.tenants,
            shards: parts.shards, tiers: parts.tiers)
        snapshot = map
        recent.note(reading)
        origin = .control
        metrics.directoryVersion.set(Int(map.version))
        for notify in onChange { notify(changed, map) }
    }

    private func install(_ map: DirectorySnapshot, from origin: Origin) {
        let before = snapshot
        snapshot = map
        recent = RecentChanges(from: map.version)
        self.origin = origin
        metrics.directoryVersion.set(Int(map.version))
        let changed = before.map { map.differences(from: $0) } ?? map.tenants.map(\.id)
        for notify in onChange { notify(changed, map) }
    }

    private func connected(deadline: Deadline) async throws -> PostgresConnection {
        if let connection, connection.isUsable { return connection }
        disconnect()
        let fresh = try await PostgresConnection.connect(
            PostgresConfiguration(
                connectionString: try configuration.conninfo(),
                applicationName: configuration.applicationName),
            deadline: deadline)
        do {
            let reader = DirectoryReader(connection: fresh, clocks: clocks, logger: logger)
            try judge(try await SchemaState(of: fresh, deadline: deadline))
            source = try await reader.source(deadline: deadline)
            // Before the first poll on this connection: what is committed later is notified.
            try await reader.listen(deadline: deadline)
        } catch {
            fresh.close()
            throw error
        }
        fresh.onNotification = { [weak self] _ in self?.hint() }
        fresh.onClose = { [weak self] in self?.hint() }
        connection = fresh
        return fresh
    }

    /// - Throws: `SchemaRefusal`; the last good map goes on being served then.
    private func judge(_ schema: SchemaState) throws(SchemaRefusal) {
        let now = configuration.schemas.refusal(of: schema)
        if now != refusal {
            refusal = now
            if let now {
                logger.error(
                    "the control database is not read", [("reason", .string("\(now)"))])
            } else {
                logger.notice("the control database is read again")
            }
        }
        if let now { throw now }
    }

    /// Whether nothing was heard of the control database for a while.
    package var isCutOff: Bool {
        guard let confirmedAt else { return true }
        return Loop.now - confirmedAt > configuration.pollTimeout * 2
    }

    // MARK: Reporting

    /// The map is confirmed whether the report is taken or not.
    private func reportIfDue(_ connection: PostgresConnection, deadline: Deadline) async {
        guard let report = configuration.report else { return }
        let now = Loop.now
        if let reportedAt, now - reportedAt < configuration.reportInterval { return }
        reportedAt = now
        do {
            _ = try await connection.execute(report().query, deadline: deadline)
        } catch {
            logger.warning(
                "this process could not be reported", [("reason", .string("\(error)"))])
        }
    }

    /// Takes back what was reported, so that nobody waits for a process that has ended. If it cannot be said now, it is
    /// seen by its silence.
    package func leave(deadline: Deadline) async {
        guard let report = configuration.report, reportedAt != nil, let connection,
            connection.isUsable
        else { return }
        do {
            _ = try await connection.execute(report().farewell, deadline: deadline)
        } catch {
            logger.warning(
                "the end of this process was not reported", [("reason", .string("\(error)"))])
        }
    }

    private func disconnect() {
        // Our own closing is no news.
        connection?.onClose = nil
        connection?.close()
        connection = nil
    }

    private func reportAge() {
        guard let confirmedAt else { return }
        metrics.directoryAge.set(
            Double((Loop.now - confirmedAt).inMicroseconds) / 1_000_000)
    }

    // MARK: The last good map

    private func startSaving() {
        guard let file = configuration.file, let version = snapshot?.version, origin == .control,
            !isSaving,
            version != savedVersion
        else { return }
        if let savedAt, Loop.now - savedAt < configuration.saveInterval { return }
        isSaving = true
        Loop.shared.spawn { [self] in
            await save(to: file)
            isSaving = false
        }
    }

    /// Saves the map now, if it is newer than what is on disk.
    package func save(deadline: Deadline) async {
        guard let file = configuration.file, let snapshot, origin == .control,
            snapshot.version != savedVersion
        else { return }
        await save(to: file)
    }

    /// The workers of a machine share one file: whoever comes first writes, and the others see that it is done.
    private func save(to file: String) async {
        let startedAt = Loop.now
        do {
            let deadline = Deadline.after(.seconds(60), from: startedAt)
            let verified = !fileIsVerified
            let state = try await blocking.run(deadline: deadline) {
                try DirectoryFile.state(of: file, verified: verified)
            }
            fileIsVerified = true
            guard let map = snapshot else { return }
            var isSaved = true
            switch recent.saving(map, over: fileIsOfOtherLog ? nil : state) {
            case .nothing: break
            case .append(let change):
                guard let state else { return }
                isSaved = try await blocking.run(deadline: deadline) {
                    try DirectoryFile.append(
                        change, to: file, at: state, verified: verified)
                }
            case .replace:
                isSaved = try await blocking.run(deadline: deadline) {
                    try DirectoryFile.replace(file, with: map)
                }
            }
            if isSaved {
                fileIsOfOtherLog = false
                savedVersion = map.version
                recent.forget(through: map.version)
            }
        } catch {
            logger.error("the map cannot be saved", [("reason", .string("\(error)"))])
        }
        savedAt = Loop.now
    }
}
