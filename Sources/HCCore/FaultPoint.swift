import Synchronization

/// Named places where a test can make a program die, stop or fail, to prove that nothing is half-made.
///
/// `try FaultPoint.reach("provision.after-keys")` costs one atomic load while nothing is armed. Programs
/// arm from `HC_FAULT` and bring the action: this room does not send signals.
package enum FaultPoint {
    package enum Action: String, CaseIterable, Sendable {
        /// SIGKILL to the own process.
        case kill
        /// SIGSTOP to the own process.
        case stop
        /// `reach` throws `FaultPointFailure`.
        case fail
    }

    private struct Armed {
        var action: Action
        /// The fault happens when this comes down to zero.
        var reachesLeft: Int
    }

    private struct Registry {
        var points: [String: Armed] = [:]
        var perform: @Sendable (Action) -> Void = { _ in }
    }

    private static let isArmed = Atomic<Bool>(false)
    private static let registry = Mutex(Registry())

    /// Arms points from a text like `provision.after-keys=kill,move.s7=fail@3`: the third time it is
    /// reached, and every time without `@`.
    ///
    /// - Parameter perform: carries out `kill` and `stop`; runs on the thread that reached the point.
    /// - Throws: `FaultPointSyntaxError` and arms nothing, if the text has another form.
    package static func arm(
        _ text: String, perform: @escaping @Sendable (Action) -> Void
    ) throws(FaultPointSyntaxError) {
        var points: [String: Armed] = [:]
        for entry in text.split(separator: ",") {
            let halves = entry.split(separator: "=", omittingEmptySubsequences: false)
            guard halves.count == 2, !halves[0].isEmpty else {
                throw FaultPointSyntaxError(entry: String(entry))
            }
            let words = halves[1].split(separator: "@", omittingEmptySubsequences: false)
            guard let action = Action(rawValue: String(words[0])), words.count <= 2 else {
                throw FaultPointSyntaxError(entry: String(entry))
            }
            var reaches = 0
            if words.count == 2 {
                guard let number = Int(words[1]), number >= 1 else {
                    throw FaultPointSyntaxError(entry: String(entry))
                }
                reaches = number
            }
            points[String(halves[0])] = Armed(action: action, reachesLeft: reaches)
        }
        registry.withLock { registry in
            registry.points = points
            registry.perform = perform
        }
        isArmed.store(!points.isEmpty, ordering: .releasing)
    }

    package static func disarm() {
        isArmed.store(false, ordering: .releasing)
        registry.withLock { $0 = Registry() }
    }

    /// Does what is armed for `name`, or nothing.
    ///
    /// - Throws: `FaultPointFailure` if `fail` is armed for it.
    package static func reach(_ name: StaticString) throws(FaultPointFailure) {
        guard isArmed.load(ordering: .relaxed) else { return }
        try strike(name)
    }

    @inline(never)
    private static func strike(_ name: StaticString) throws(FaultPointFailure) {
        let name = "\(name)"
        let due: (Action, @Sendable (Action) -> Void)? = registry.withLock { registry in
            guard var point = registry.points[name] else { return nil }
            guard point.reachesLeft > 0 else { return (point.action, registry.perform) }
            point.reachesLeft -= 1
            registry.points[name] = point.reachesLeft == 0 ? nil : point
            return point.reachesLeft == 0 ? (point.action, registry.perform) : nil
        }
        guard let (action, perform) = due else { return }
        if action == .fail { throw FaultPointFailure(point: name) }
        perform(action)
    }
}

/// Thrown at a point armed with `fail`.
package struct FaultPointFailure: Error, Equatable, CustomStringConvertible {
    package let point: String

    package init(point: String) {
        self.point = point
    }

    package var description: String { "fault point \(point) was armed to fail" }
}

package struct FaultPointSyntaxError: Error, Equatable, CustomStringConvertible {
    package let entry: String
    package var description: String {
        "HC_FAULT: '\(entry)' is no fault: write point=kill, point=stop or point=fail, with @n for the nth time"
    }
}
