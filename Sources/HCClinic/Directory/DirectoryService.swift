package import HCCore
package import HCIO
import HCPostgres
package import HCTenancy

/// What patients choose from: practitioners, services and free slots. Read often, changed seldom: answered from
/// copies, which are never older than the last commit.
///
/// Answers are the bytes of the JSON text: whoever asks gets the same, so permissions are looked at before.
@LoopActor
package final class DirectoryService {
    /// Of each kind in the whole directory; those with more are read page by page.
    static let entriesMax = 1000

    private let dependencies: ClinicDependencies
    private let cursors: CursorCodec

    nonisolated init(_ dependencies: ClinicDependencies) {
        self.dependencies = dependencies
        cursors = CursorCodec(dependencies.secrets.cursors)
    }

    // MARK: Practitioners

    package func practitioner(
        _ id: PractitionerID, _ actor: Actor, in context: TenantContext, deadline: Deadline
    ) async throws -> CachedValue {
        _ = try await context.require(
            .practitionersRead, of: actor, on: "practitioner", id.uuid, deadline: deadline)
        let key = CacheKey("practitioner:\(id)", tags: [.practitioners])
        let found = try await context.cached(key, deadline: deadline) {
            let rows = try await context.read(
                [PractitionerStore(tenant: context.id).find(id)], deadline: deadline)
            return try rows[0].first.map { row in
                let practitioner = try PractitionerStore.practitioner(row)
                return CachedValue(bytes: practitioner.json(), entityTag: practitioner.entityTag)
            }
        }
        guard let found else { throw ClinicError.notFound }
        return found
    }

    /// - Parameter isActive: nil for both.
    package func practitioners(
        _ page: PageRequest, isActive: Bool?, _ actor: Actor, in context: TenantContext,
        deadline: Deadline
    ) async throws -> CachedValue {
        _ = try await context.require(
            .practitionersRead, of: actor, on: "practitioner", deadline: deadline)
        var identity = QueryIdentity("practitioners by id")
        identity.add("active", isActive.map { $0 ? "true" : "false" })
        let after = try cursors.id(page.cursor, in: context.id, identity)
        return try await list(
            "practitioners", isActive, after, page, tags: [.practitioners], identity, context,
            deadline
        ) { limit in
            let query = PractitionerStore(tenant: context.id).list(
                isActive: isActive, after: after.map { PractitionerID($0) }, limit: limit)
            return try await context.read([query], deadline: deadline)[0].rows.map {
                try PractitionerStore.practitioner($0)
            }
        } position: {
            KeysetPosition.bytes(of: $0.id.uuid)
        }
    }

    // MARK: Services

    package func service(
        _ id: ServiceID, _ actor: Actor, in context: TenantContext, deadline: Deadline
    ) async throws -> CachedValue {
        _ = try await context.require(
            .servicesRead, of: actor, on: "service", id.uuid, deadline: deadline)
        let key = CacheKey("service:\(id)", tags: [.services])
        let found = try await context.cached(key, deadline: deadline) {
            let rows = try await context.read(
                [CareServiceStore(tenant: context.id).find(id)], deadline: deadline)
            return try rows[0].first.map { row in
                let service = try CareServiceStore.service(row)
                return CachedValue(bytes: service.json(), entityTag: service.entityTag)
            }
        }
        guard let found else { throw ClinicError.notFound }
        return found
    }

    /// - Parameter isActive: nil for both.
    package func services(
        _ page: PageRequest, isActive: Bool?, _ actor: Actor, in context: TenantContext,
        deadline: Deadline
    ) async throws -> CachedValue {
        _ = try await context.require(
            .servicesRead, of: actor, on: "service", deadline: deadline)
        var identity = QueryIdentity("services by id")
        identity.add("active", isActive.map { $0 ? "true" : "false" })
        let after = try cursors.id(page.cursor, in: context.id, identity)
        return try await list(
            "services", isActive, after, page, tags: [.services], identity, context, deadline
        ) { limit in
            let query = CareServiceStore(tenant: context.id).list(
                isActive: isActive, after: after.map { ServiceID($0) }, limit: limit)
            return try await context.read([query], deadline: deadline)[0].rows.map {
                try CareServiceStore.service($0)
            }
        } position: {
            KeysetPosition.bytes(of: $0.id.uuid)
        }
    }

    private func list<Item: JSONWritable & Sendable>(
        _ name: String, _ isActive: Bool?, _ after: UUID?, _ page: PageRequest, tags: [CacheTag],
        _ identity: QueryIdentity, _ context: TenantContext, _ deadline: Deadline,
        read: @LoopActor (Int) async throws -> [Item], position: (Item) -> [UInt8]
    ) async throws -> CachedValue {
        let active = isActive.map { $0 ? "active" : "inactive" } ?? "all"
        let key = CacheKey(
            "\(name):\(active):\(after?.description ?? "-"):\(page.limit)", tags: tags)
        let value = try await context.cached(key, deadline: deadline) {
            let found = try await read(page.limit + 1)
            let bytes = try cursors.page(
                found, page, in: context.id, identity, position: position
            ).json()
            return CachedValue(bytes: bytes, entityTag: try EntityTag.text(of: bytes))
        }
        guard let value else { preconditionFailure("a list is there, if empty") }
        return value
    }

    // MARK: The whole directory

    /// All that is offered, for a page on which somebody books: active practitioners and services.
    package func directory(
        _ actor: Actor, in context: TenantContext, deadline: Deadline
    ) async throws -> CachedValue {
        _ = try await context.require(
            .practitionersRead, of: actor, on: "practitioner", deadline: deadline)
        _ = try await context.require(
            .servicesRead, of: actor, on: "service", deadline: deadline)
        let key = CacheKey("directory", tags: [.practitioners, .services], isReadModel: true)
        let value = try await context.cached(key, deadline: deadline) {
            let results = try await context.read(
                [
                    PractitionerStore(tenant: context.id).list(
                        isActive: true, after: nil, limit: DirectoryService.entriesMax),
                    CareServiceStore(tenant: context.id).list(
                        isActive: true, after: nil, limit: DirectoryService.entriesMax),
                ], deadline: deadline)
            var writer = JSONWriter()
            writer.beginObject()
            writer.key("practitioners")
            writer.beginArray()
            for row in results[0].rows {
                try PractitionerStore.practitioner(row).write(to: &writer)
            }
            writer.endArray()
            writer.key("services")
            writer.beginArray()
            for row in results[1].rows { try CareServiceStore.service(row).write(to: &writer) }
            writer.endArray()
            writer.endObject()
            let bytes = writer.finish().bytes
            return CachedValue(bytes: bytes, entityTag: try EntityTag.text(of: bytes))
        }
        guard let value else { preconditionFailure("a directory is there, if empty") }
        return value
    }

    // MARK: Slots

    /// Free slots in order of time, at whole quarters of an hour, on the clinic's wall clock. Of who takes no
    /// appointments there are none.
    ///
    /// - Throws: `invalid-input` if there is no such practitioner, or no such service of hers.
    package func slots(
        _ query: SlotQuery, _ actor: Actor, in context: TenantContext, deadline: Deadline
    ) async throws -> CachedValue {
        _ = try await context.require(
            .practitionersRead, of: actor, on: "practitioner", query.practitionerID.uuid,
            deadline: deadline)
        let key = CacheKey(
            query.name,
            tags: [.slots(query.practitionerID), .practitioners, .services, .clinic])
        let value = try await context.cached(key, deadline: deadline) {
            let margin = Duration.seconds(4 * 3600) + AppointmentTime.durationMax
            var queries = [
                SlotStore(tenant: context.id).practice(query.practitionerID),
                BookedTime(tenant: context.id).busy(
                    query.practitionerID, in: (query.from - margin)..<(query.to + margin)),
            ]
            if case .service(let id) = query.length {
                queries.append(
                    SlotStore(tenant: context.id).duration(of: id, by: query.practitionerID))
            }
            let results = try await context.read(queries, deadline: deadline)
            guard let row = results[0].first else { return nil }
            let minutes: Int
            if case .minutes(let given) = query.length {
                minutes = given
            } else {
                guard let service = results[2].first else { return nil }
                minutes = try service.int(0)
            }
            return try self.offer(
                query, try SlotStore.Practice(row), minutes,
                busy: try results[1].rows.map { try SlotFinder.Busy($0) })
        }
        guard let value else {
            throw ClinicError.invalid(
                query.isOfService ? "serviceId" : "practitionerId", .notFound,
                query.isOfService
                    ? "names no service of this practitioner" : "names no practitioner")
        }
        return value
    }

    private func offer(
        _ query: SlotQuery, _ practice: SlotStore.Practice, _ minutes: Int,
        busy: [SlotFinder.Busy]
    ) throws -> CachedValue {
        let finder = SlotFinder(
            duration: .seconds(60 * minutes), bufferBefore: practice.bufferBefore,
            bufferAfter: practice.bufferAfter)
        let slots =
            practice.isActive
            ? finder.offer(
                from: max(query.from, dependencies.clocks.now()), until: query.to, busy: busy,
                capacity: practice.capacity) : []
        let rules = dependencies.zones.rules(named: practice.zone) ?? .utc
        var writer = JSONWriter()
        writer.beginObject()
        writer.key("items")
        writer.beginArray()
        for slot in slots {
            writer.beginObject()
            writer.member("startsAt", ZonedTime.text(slot.startsAt, rules))
            writer.member("endsAt", ZonedTime.text(slot.endsAt, rules))
            writer.endObject()
        }
        writer.endArray()
        writer.endObject()
        let bytes = writer.finish().bytes
        // The first slot is over when it has begun: from then on another list is true.
        return CachedValue(
            bytes: bytes, entityTag: try EntityTag.text(of: bytes), goodUntil: slots.first?.startsAt
        )
    }
}

extension SlotQuery {
    fileprivate var isOfService: Bool { if case .service = length { true } else { false } }
}

extension SlotFinder {
    /// All free slots that begin in a span, at whole steps of the clock.
    func offer(
        from: Timestamp, until end: Timestamp, busy: [Busy], capacity: Int
    ) -> [Slot] {
        let taken = TakenTime(busy, capacity: capacity)
        let step = SlotFinder.step.inMicroseconds
        let past = from.microseconds % step
        var start = past == 0 ? from : from + .microseconds(step - past)
        var slots: [Slot] = []
        while start < end {
            if isFree(start, taken) {
                slots.append(Slot(startsAt: start, endsAt: start + duration))
            }
            start = start + SlotFinder.step
        }
        return slots
    }
}
