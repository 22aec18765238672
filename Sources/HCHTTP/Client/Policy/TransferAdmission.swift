/// Who may begin a transfer: so many at a time in all and to one origin, and so many who wait for that.
///
/// A machine: who asks gets an answer, who waits is named when there is room. Within an origin the order is kept;
/// an origin that is full does not hold up the others.
package struct TransferAdmission: Sendable {
    package struct Limits: Sendable {
        package var transfersMax: Int
        package var transfersPerOriginMax: Int
        package var queuedMax: Int
        package var queuedPerOriginMax: Int

        package init(
            transfersMax: Int = 128, transfersPerOriginMax: Int = 16, queuedMax: Int = 512,
            queuedPerOriginMax: Int = 128
        ) {
            self.transfersMax = transfersMax
            self.transfersPerOriginMax = transfersPerOriginMax
            self.queuedMax = queuedMax
            self.queuedPerOriginMax = queuedPerOriginMax
        }
    }

    package typealias WaiterID = Int

    package enum Answer: Equatable, Sendable {
        case begin
        case wait(WaiterID)
        case refuse
    }

    private struct Origin: Sendable {
        var active = 0
        var queued = 0
    }

    private struct Waiting: Sendable {
        let id: WaiterID
        let origin: String
    }

    private let limits: Limits
    package private(set) var active = 0
    private var origins: [String: Origin] = [:]
    /// In the order of arrival.
    private var queue: [Waiting] = []
    private var nextID: WaiterID = 1

    package init(_ limits: Limits) {
        self.limits = limits
    }

    package var queued: Int { queue.count }
    /// Only those with something under way or waiting are kept.
    package var originCount: Int { origins.count }

    package mutating func ask(_ origin: String) -> Answer {
        var entry = origins[origin] ?? Origin()
        if entry.queued == 0, entry.active < limits.transfersPerOriginMax,
            active < limits.transfersMax
        {
            entry.active += 1
            active += 1
            origins[origin] = entry
            return .begin
        }
        guard queue.count < limits.queuedMax, entry.queued < limits.queuedPerOriginMax else {
            return .refuse
        }
        entry.queued += 1
        origins[origin] = entry
        let id = nextID
        nextID += 1
        queue.append(Waiting(id: id, origin: origin))
        return .wait(id)
    }

    /// A transfer is over.
    ///
    /// - Returns: who may begin now; if he has gone meanwhile, `end` is called for him too.
    package mutating func end(_ origin: String) -> WaiterID? {
        guard var entry = origins[origin], entry.active > 0 else {
            preconditionFailure("a transfer ends once")
        }
        entry.active -= 1
        active -= 1
        origins[origin] = entry.active == 0 && entry.queued == 0 ? nil : entry
        let next = queue.firstIndex { waiting in
            (origins[waiting.origin]?.active ?? 0) < limits.transfersPerOriginMax
        }
        guard let next else { return nil }
        let waiting = queue.remove(at: next)
        origins[waiting.origin]?.queued -= 1
        origins[waiting.origin]?.active += 1
        active += 1
        return waiting.id
    }

    /// He waits no longer.
    ///
    /// - Returns: false if he was told to begin already.
    package mutating func leave(_ id: WaiterID) -> Bool {
        guard let index = queue.firstIndex(where: { $0.id == id }) else { return false }
        let waiting = queue.remove(at: index)
        guard var entry = origins[waiting.origin] else {
            preconditionFailure("an origin is kept while somebody waits for it")
        }
        entry.queued -= 1
        origins[waiting.origin] = entry.active == 0 && entry.queued == 0 ? nil : entry
        return true
    }
}
