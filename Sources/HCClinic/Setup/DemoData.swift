import HCCore
package import HCIO
package import HCTenancy

/// Sample data, made through the services that serve requests.
@LoopActor
package struct DemoData {
    package struct Progress: Sendable, Equatable {
        package var practitioners = 0
        package var patients = 0
        package var appointments = 0
        /// Made by this run; the rest was there.
        package var created = 0
    }

    /// Requests at once: the pool serves clinics as well.
    static let concurrencyMax = 8

    private let services: ClinicServices
    private let context: TenantContext
    private let content: DemoContent
    private let actor = Actor.system(requestID: "demo-data")
    private let requestTime: Duration
    private var progress = Progress()

    private init(
        services: ClinicServices, context: TenantContext, content: DemoContent, _ time: Duration
    ) {
        self.services = services
        self.context = context
        self.content = content
        requestTime = time
    }

    /// Fills a clinic: 6 practitioners, 500 patients, 60 days of appointments from the day after the first
    /// patient came. What is there already is left alone, so a second run adds nothing.
    ///
    /// - Parameters:
    ///   - requestTime: how long each request may take.
    ///   - report: called now and then, and at the end.
    @discardableResult
    package static func seed(
        in context: TenantContext, services: ClinicServices, seed: UInt64 = 2026,
        patientCount: Int = 500, dayCount: Int = 60, requestTime: Duration = .seconds(30),
        report: (Progress) -> Void = { _ in }
    ) async throws -> Progress {
        let content = DemoContent(seed: seed, patientCount: patientCount, dayCount: dayCount)
        var data = DemoData(
            services: services, context: context, content: content, requestTime)
        let practitioners = try await data.seedPractitioners()
        report(data.progress)
        let (patients, firstDay) = try await data.seedPatients(report)
        try await data.seedAppointments(practitioners, patients, from: firstDay, report)
        report(data.progress)
        return data.progress
    }

    private var deadline: Deadline {
        .after(requestTime, from: services.dependencies.clocks.monotonic())
    }

    // MARK: Practitioners

    private mutating func seedPractitioners() async throws -> [PractitionerID] {
        var known: [String: PractitionerID] = [:]
        for practitioner in try await all({ page in
            try await services.practitioners.list(
                page, isActive: nil, actor, in: context, deadline: deadline)
        }) {
            known[practitioner.name] = practitioner.id
        }
        var ids: [PractitionerID] = []
        for number in 1...DemoContent.practitionerCount {
            let draft = content.practitioner(number)
            if let id = known[draft.name] {
                ids.append(id)
            } else {
                ids.append(
                    try await services.practitioners.create(
                        draft, actor, in: context, deadline: deadline
                    ).id)
                progress.created += 1
            }
            progress.practitioners += 1
        }
        return ids
    }

    // MARK: Patients

    /// - Returns: the patients by number, and the first day of appointments.
    private mutating func seedPatients(
        _ report: (Progress) -> Void
    ) async throws -> (ids: [PatientID], firstDay: CalendarDate) {
        var known: [String: PatientID] = [:]
        var oldest: Timestamp?
        for record in try await all({ page in
            try await services.patients.list(
                PatientSearch(), page, actor, in: context, deadline: deadline)
        }) {
            guard let mrn = try record.patient().mrn, mrn.hasPrefix("DEMO-") else { continue }
            known[mrn] = record.id
            oldest = min(oldest ?? record.createdAt, record.createdAt)
        }
        let missing = (1...content.patientCount).filter { known[DemoContent.mrn($0)] == nil }
        progress.patients = content.patientCount - missing.count
        for batch in missing.batches(of: DemoData.concurrencyMax) {
            let made = try await withThrowingTaskGroup(of: (Int, PatientID).self) { group in
                for number in batch {
                    group.addTask { [self] in (number, try await create(number)) }
                }
                var made: [(Int, PatientID)] = []
                for try await patient in group { made.append(patient) }
                return made
            }
            for (number, id) in made { known[DemoContent.mrn(number)] = id }
            progress.patients += made.count
            progress.created += made.count
            report(progress)
        }
        let ids = try (1...content.patientCount).map { number in
            guard let id = known[DemoContent.mrn(number)] else { throw ClinicError.notFound }
            return id
        }
        let zone = try await services.settings.settings(in: context, deadline: deadline).timeZone
        let rules = services.dependencies.zones.rules(named: zone) ?? .utc
        let first = rules.local(at: oldest ?? services.dependencies.clocks.now()).date
        return (ids, first.adding(days: 1) ?? first)
    }

    private func create(_ number: Int) async throws -> PatientID {
        let reply = try await services.patients.create(
            content.patient(number), nil, actor, in: context, deadline: deadline)
        guard let id = reply.location.split(separator: "/").last.flatMap({ PatientID(String($0)) })
        else { throw ClinicError.notFound }
        return id
    }

    // MARK: Appointments

    private mutating func seedAppointments(
        _ practitioners: [PractitionerID], _ patients: [PatientID], from firstDay: CalendarDate,
        _ report: (Progress) -> Void
    ) async throws {
        let zone = try await services.settings.settings(in: context, deadline: deadline).timeZone
        let rules = services.dependencies.zones.rules(named: zone) ?? .utc
        let lastDay = firstDay.adding(days: content.dayCount - 1) ?? firstDay
        for (index, practitioner) in practitioners.enumerated() {
            var filter = AppointmentFilter()
            filter.practitionerID = practitioner
            filter.from = .day(firstDay)
            filter.to = .day(lastDay)
            let taken = Set(
                try await all({ page in
                    try await services.appointments.list(
                        filter, page, actor, in: context, deadline: deadline)
                }).map(\.appointment.startsAt))
            let days = (0..<content.dayCount).compactMap { firstDay.adding(days: $0) }
            let drafts = days.flatMap { content.visits(practitioner: index + 1, on: $0) }
                .compactMap { draft($0, practitioner, patients, rules) }
            let missing = drafts.filter { !taken.contains($0.startsAt) }
            progress.appointments += drafts.count - missing.count
            for batch in missing.batches(of: DemoData.concurrencyMax) {
                let booked = try await withThrowingTaskGroup(of: Bool.self) { group in
                    for draft in batch { group.addTask { [self] in try await book(draft) } }
                    var booked = 0
                    for try await isBooked in group where isBooked { booked += 1 }
                    return booked
                }
                progress.appointments += booked
                progress.created += booked
            }
            report(progress)
        }
    }

    /// Nil for a time that is over, or that the wall clock does not show on that day.
    private func draft(
        _ visit: DemoContent.Visit, _ practitioner: PractitionerID, _ patients: [PatientID],
        _ rules: TimeZoneRules
    ) -> AppointmentDraft? {
        let local = LocalDateTime(date: visit.date, secondOfDay: visit.minuteOfDay * 60)
        let start: Timestamp
        switch rules.instant(of: local) {
        case .one(let instant): start = instant
        case .ambiguous(let earlier, _): start = earlier
        case .gap: return nil
        }
        guard start > services.dependencies.clocks.now() else { return nil }
        return AppointmentDraft(
            patientID: patients[visit.patient - 1], practitionerID: practitioner, startsAt: start,
            endsAt: start + .seconds(visit.minutes * 60), reason: visit.reason)
    }

    /// - Returns: false if somebody has the time already.
    private func book(_ draft: AppointmentDraft) async throws -> Bool {
        do {
            _ = try await services.appointments.create(
                draft, nil, actor, in: context, deadline: deadline)
            return true
        } catch let error as ClinicError where error.code == .slotTaken {
            return false
        }
    }

    /// All items of a list, page by page.
    private func all<Item>(
        _ fetch: (PageRequest) async throws -> Page<Item>
    ) async throws -> [Item] {
        var items: [Item] = []
        var cursor: String?
        repeat {
            let page = try await fetch(PageRequest(limit: PageRequest.limitMax, cursor: cursor))
            items += page.items
            cursor = page.nextCursor
        } while cursor != nil
        return items
    }
}

extension Array {
    fileprivate func batches(of size: Int) -> [ArraySlice<Element>] {
        stride(from: 0, to: count, by: size).map { self[$0..<Swift.min($0 + size, count)] }
    }
}
